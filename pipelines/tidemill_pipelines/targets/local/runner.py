"""A run on this machine, from a problem directory to a verdict."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tidemill
from tidemill.bundle import pack_views
from tidemill.costs import Prices, Tariff, run_cost
from tidemill.errors import UsageError, classify
from tidemill.execution import RUN_VARIABLE, RUNS_VARIABLE
from tidemill.files import write_text
from tidemill.ingest.fingerprint import fingerprint
from tidemill.ingest.templates import resolve
from tidemill.problem import load_problem
from tidemill.runs import RunRecord, TaskRecord, Verdict, output, read_tasks, verdict_of
from tidemill.stage import COMMIT_VARIABLE, LOCK_VARIABLE
from tidemill_pipelines.choices import Choices
from tidemill_pipelines.pipelines import load_pipeline
from tidemill_pipelines.targets.local.cache import Cache
from tidemill_pipelines.targets.local.environments import lock_digest
from tidemill_pipelines.targets.local.executor import TaskExecutor
from tidemill_pipelines.targets.local.layout import Layout, held
from tidemill_pipelines.targets.local.processes import Processes

if TYPE_CHECKING:
    from tidemill_pipelines.targets.local.ir import CompiledPipeline


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        overrides: YAML values by dotted path of problem.yaml.
        workers: processes that train together.
        resume: id of a run to go on with, or ``latest``; it must not have ended, and be of the same
            problem, pipeline and table.
        reuse: whether results of other runs may be reused.
        prices: for the estimate of what the run costs.
    """

    problem_dir: Path
    source: str
    pipeline: str = "training"
    overrides: Mapping[str, str] = field(default_factory=dict)
    beam_runner: str = "direct"
    beam_flags: Sequence[str] = ()
    workers: int = 1
    resume: str | None = None
    reuse: bool = True
    prices: Prices | None = None


@dataclass(frozen=True)
class Observer:
    """Is told of what happens: the plan first, then each task as it starts and ends."""

    planned: Callable[[RunRecord], None]
    task: Callable[[TaskRecord], None]


def run(request: Request, layout: Layout, observer: Observer) -> RunRecord:
    """Executes a pipeline to its verdict; see :func:`tidemill.runs.verdict_of`.

    Raises:
        TidemillError: if the run can't even begin: a faulty problem, a missing source, a missing environment.
        KeyboardInterrupt: after the run was recorded as interrupted.
    """
    from tidemill_pipelines.targets.local.ir import execute

    problem = load_problem(request.problem_dir, request.overrides)
    pipeline = load_pipeline(request.pipeline, choices=Choices.of(problem))
    source = resolve(request.source, datetime.now(UTC))
    source_fingerprint = fingerprint(source)
    bundles = pack_views(problem, request.problem_dir, layout.bundles.resolve())
    run_dir = _run_dir(request, layout, problem.name, source_fingerprint, bundles["whole"].stem).resolve()
    arguments = {
        "data_bundle": str(bundles["data"]),
        "feature_bundle": str(bundles["features"]),
        "model_bundle": str(bundles["model"]),
        "whole_bundle": str(bundles["whole"]),
        "source": _absolute(source),
        "registry": str(layout.registry.resolve()),
        "endpoints": str(layout.endpoints.resolve()),
        "beam_runner": request.beam_runner,
        "beam_flags": list(request.beam_flags),
        "workers": request.workers,
    }
    with held(run_dir):
        compiled = _compile(pipeline, run_dir / "pipeline.yaml")
        record = RunRecord(
            id=run_dir.name,
            problem=problem.name,
            pipeline=request.pipeline,
            verdict="running",
            started=datetime.now(UTC).isoformat(),
            source=source,
            source_fingerprint=source_fingerprint,
            bundle=bundles["whole"].stem,
            stages=tuple(task.name for task in compiled.tasks),
            environment=_environment(),
            parameters={**arguments, "problem_dir": str(request.problem_dir), "overrides": dict(request.overrides)},
            tariff=_tariff(request.prices),
        )
        _forget_tries(run_dir)
        record.write(run_dir)
        observer.planned(record)
        origin = {
            LOCK_VARIABLE: record.environment["uv.lock sha256"],
            COMMIT_VARIABLE: record.environment["git commit"],
        }
        place = {RUNS_VARIABLE: str(run_dir.parent), RUN_VARIABLE: run_dir.name}
        processes = Processes(run_dir / "logs", {"TF_CPP_MIN_LOG_LEVEL": "2", **origin, **place})
        executor = TaskExecutor(
            run_dir=run_dir,
            tasks=compiled.tasks,
            cache=Cache(layout.cache.resolve(), None if request.reuse else run_dir.name),
            processes=processes,
            scratch=layout.scratch.resolve(),
            earlier=_earlier(layout, record),
            observe=observer.task,
        )
        with contextlib.closing(processes), _concluded(record, run_dir):
            execute(compiled, arguments, run_dir / "artifacts", run_dir / "logs" / "kfp.log", executor, executor.stop)
        return RunRecord.read(run_dir)


@contextlib.contextmanager
def _concluded(record: RunRecord, run_dir: Path) -> Iterator[None]:
    """Writes how the run ended, however it ends."""
    begun = time.monotonic()

    def write(verdict: Verdict) -> None:
        _show_report(run_dir)
        now, wall_s = datetime.now(UTC).isoformat(), time.monotonic() - begun
        cost = run_cost(record, read_tasks(run_dir))
        told = None if cost is None else asdict(cost)
        replace(record, verdict=verdict, ended=now, wall_s=wall_s, cost=told).write(run_dir)

    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):  # where the disk is full, that is the error to be told
            write(_verdict(error))
        raise
    write(verdict_of(read_tasks(run_dir), record.stages))


def _tariff(prices: Prices | None) -> dict[str, Any] | None:
    return asdict(Tariff(prices.currency, prices.cpu_hour, prices.gib_hour)) if prices else None


def _verdict(error: BaseException) -> Verdict:
    """Returns what an error of the runner itself, not of a task, makes of the run."""
    verdicts: Mapping[int, Verdict] = {130: "interrupted", 4: "bad_input", 5: "platform_failure"}
    return verdicts.get(classify("run", error).exit_code, "defect")


def _run_dir(request: Request, layout: Layout, problem: str, source_fingerprint: str, bundle: str) -> Path:
    if request.resume is not None:
        before = layout.find(request.resume)
        if before.problem != problem or before.pipeline != request.pipeline:
            expected = f"a run of {before.problem} with pipeline {before.pipeline}"
            raise UsageError(f"--resume {request.resume}", expected, f"{problem} with {request.pipeline}")
        if before.verdict in ("released", "completed", "refused"):
            remedy = "run without --resume: what did not change is reused"
            raise UsageError(f"--resume {request.resume}", f"that run has ended: {before.verdict}", remedy=remedy)
        if (before.source_fingerprint, before.bundle) != (source_fingerprint, bundle):
            changed = "the table" if before.source_fingerprint != source_fingerprint else "the problem"
            remedy = "run without --resume: what did not change is reused"
            raise UsageError(f"--resume {request.resume}", f"{changed} is not that of the run", remedy=remedy)
        return layout.run_dir(before.id)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    run_dir = layout.runs / f"{problem}-{stamp}-{secrets.token_hex(2)}"
    run_dir.mkdir(parents=True)  # fails if two runs should ever get one id
    return run_dir


def _compile(pipeline: Any, path: Path) -> CompiledPipeline:
    from kfp import compiler

    from tidemill_pipelines.targets.local.ir import CompiledPipeline

    compiler.Compiler().compile(pipeline, str(path))
    return CompiledPipeline(path)


def _absolute(source: str) -> str:
    return source if "://" in source else str(Path(source).absolute())


def _forget_tries(run_dir: Path) -> None:
    """Removes what tries before a resume said of themselves or left half written; results are found by the cache."""
    shutil.rmtree(run_dir / "tasks", ignore_errors=True)
    (run_dir / "report.html").unlink(missing_ok=True)
    for debris in list((run_dir / "artifacts").glob("*/*/.*.partial")):  # of a killed stage, perhaps gigabytes
        shutil.rmtree(debris, ignore_errors=True)


def _show_report(run_dir: Path) -> None:
    """Lays the report where people look for it."""
    page = output(read_tasks(run_dir), "report", "page")
    if page:
        write_text(run_dir / "report.html", page.read_text(encoding="utf-8"))


def _earlier(layout: Layout, record: RunRecord) -> Callable[[str], TaskRecord | None]:
    runs = [r for r in layout.records() if r.problem == record.problem and r.id != record.id]

    def last(task: str) -> TaskRecord | None:
        paths = (layout.runs / run.id / "tasks" / f"{task}.json" for run in runs)
        return next((TaskRecord.read(path) for path in paths if path.is_file()), None)

    return last


def _environment() -> dict[str, str]:
    return {
        "tidemill": tidemill.__version__,
        "uv.lock sha256": lock_digest(),
        "git commit": _git_commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _git_commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown: no git here"
    here = Path(tidemill.__file__).parent
    done = subprocess.run([git, "-C", str(here), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "not a git checkout"
