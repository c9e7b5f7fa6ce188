"""A run on this machine, from a problem directory to a verdict."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import tidemill
from tidemill.bundle import pack_views
from tidemill.errors import UsageError
from tidemill.files import write_text
from tidemill.ingest.fingerprint import fingerprint
from tidemill.problem import load_problem
from tidemill.runs import RunRecord, TaskRecord, output, read_tasks, verdict_of
from tidemill_pipelines.targets.local.cache import Cache
from tidemill_pipelines.targets.local.environments import lock_digest
from tidemill_pipelines.targets.local.executor import TaskExecutor
from tidemill_pipelines.targets.local.layout import Layout
from tidemill_pipelines.targets.local.processes import Processes


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        overrides: YAML values by dotted path of problem.yaml.
        resume: id of a run to go on with; its other settings must be what they were.
        reuse: whether results of other runs may be reused.
    """

    problem_dir: Path
    source: str
    pipeline: str = "training"
    overrides: Mapping[str, str] = field(default_factory=dict)
    beam_runner: str = "direct"
    resume: str | None = None
    reuse: bool = True


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
    from tidemill_pipelines.targets.local.ir import CompiledPipeline, execute

    problem = load_problem(request.problem_dir, request.overrides)
    source_fingerprint = fingerprint(request.source)
    bundles = pack_views(problem, request.problem_dir, layout.bundles.resolve())
    run_dir = _run_dir(request, layout, problem.name).resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    pipeline_file = run_dir / "pipeline.yaml"
    _compile(request.pipeline, pipeline_file)
    compiled = CompiledPipeline(pipeline_file)
    arguments = {
        "data_bundle": str(bundles["data"]),
        "feature_bundle": str(bundles["features"]),
        "model_bundle": str(bundles["model"]),
        "whole_bundle": str(bundles["whole"]),
        "source": _absolute(request.source),
        "source_fingerprint": source_fingerprint,
        "registry": str(layout.registry.resolve()),
        "endpoints": str(layout.endpoints.resolve()),
        "run_id": run_dir.name,
        "run_dir": str(run_dir),
        "beam_runner": request.beam_runner,
    }
    record = RunRecord(
        id=run_dir.name,
        problem=problem.name,
        pipeline=request.pipeline,
        verdict="running",
        started=datetime.now(UTC).isoformat(),
        source=request.source,
        source_fingerprint=source_fingerprint,
        bundle=bundles["whole"].stem,
        stages=tuple(task.name for task in compiled.tasks),
        environment=_environment(),
        parameters={**arguments, "problem_dir": str(request.problem_dir), "overrides": dict(request.overrides)},
    )
    _forget_tasks(run_dir)
    record.write(run_dir)
    observer.planned(record)
    started = time.monotonic()
    processes = Processes(run_dir / "logs", {"TF_CPP_MIN_LOG_LEVEL": "2"})
    executor = TaskExecutor(
        run_dir=run_dir,
        tasks=compiled.tasks,
        cache=Cache(layout.cache.resolve(), None if request.reuse else run_dir.name),
        processes=processes,
        scratch=layout.scratch.resolve(),
        earlier=_earlier(layout, record),
        observe=observer.task,
    )
    interrupted = False
    try:
        execute(compiled, arguments, run_dir / "artifacts", run_dir / "logs" / "kfp.log", executor)
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        processes.close()
        _show_report(run_dir)
        verdict = "interrupted" if interrupted else verdict_of(read_tasks(run_dir))
        record = replace(
            record, verdict=verdict, ended=datetime.now(UTC).isoformat(), wall_s=time.monotonic() - started
        )
        record.write(run_dir)
    return record


def _run_dir(request: Request, layout: Layout, problem: str) -> Path:
    if request.resume:
        run_dir = layout.run_dir(request.resume)
        before = RunRecord.read(run_dir)
        if before.problem != problem or before.pipeline != request.pipeline:
            expected = f"a run of {before.problem} with pipeline {before.pipeline}"
            raise UsageError(f"--resume {request.resume}", expected, f"{problem} with {request.pipeline}")
        return run_dir
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return layout.runs / f"{problem}-{stamp}-{secrets.token_hex(2)}"


def _compile(name: str, path: Path) -> None:
    from kfp import compiler

    from tidemill_pipelines.pipelines import load_pipeline

    compiler.Compiler().compile(load_pipeline(name), str(path))


def _absolute(source: str) -> str:
    return source if "://" in source else str(Path(source).absolute())


def _forget_tasks(run_dir: Path) -> None:
    """Removes the records of the tries before a resume; their results are found again through the cache."""
    shutil.rmtree(run_dir / "tasks", ignore_errors=True)


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
    here = Path(tidemill.__file__).parent
    done = subprocess.run(["git", "-C", str(here), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "not a git checkout"
