"""``tidemill run``."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

from tidemill.decisions import Decision, read_decision
from tidemill.errors import UsageError
from tidemill.runs import EXIT_CODES, RunRecord, TaskRecord, output, read_tasks
from tidemill_pipelines.commands.live import RunView
from tidemill_pipelines.commands.options import assignments
from tidemill_pipelines.console import DEFAULT_RUNS_DIR, Json, RunsDir, amount, duration, err, out, print_json
from tidemill_pipelines.pipelines import PIPELINES
from tidemill_pipelines.targets.local.layout import Layout

BeamRunner = Literal["direct", "flink", "dataflow", "spark"]
_VERDICTS = {
    "released": ("green", "released"),
    "completed": ("green", "completed"),
    "refused": ("yellow", "refused by a gate"),
    "bad_input": ("red", "bad input"),
    "platform_failure": ("red", "platform failure"),
    "defect": ("red", "failed by a defect"),
    "interrupted": ("yellow", "interrupted"),
}
_EVIDENCE = (
    ("validate", "anomalies"),
    ("evaluate", "blessing"),
    ("rehearse", "rehearsal"),
    ("compress", "compression"),
)


def run(
    problem_dir: Annotated[Path, typer.Argument(help="Directory with problem.yaml.", file_okay=False)],
    source: Annotated[str | None, typer.Option(help="The table: file, directory, glob or URI.")] = None,
    pipeline: Annotated[str, typer.Option(help=f"Pipeline to run: {', '.join(PIPELINES)}.")] = "training",
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value of problem.yaml.")
    ] = None,
    beam_runner: Annotated[BeamRunner, typer.Option(help="What the Beam stages run on.")] = "direct",
    beam_flags: Annotated[
        list[str] | None, typer.Option("--beam-flag", metavar="FLAG", help="A flag of Beam, such as --parallelism=8.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes of this machine that train together.")] = 1,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run that was killed: its id, or `latest`.")
    ] = None,
    reuse: Annotated[bool, typer.Option(help="Reuse unchanged stages of earlier runs.")] = True,
    prices: Annotated[
        Path | None,
        typer.Option(envvar="TIDEMILL_PRICES", dir_okay=False, help="Prices, for an estimate of what the run costs."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Run a pipeline on this machine, each stage in its own environment.

    Exit codes: 0 released, 1 a defect of tidemill, 2 a mistyped command, 3 refused by a gate, 4 bad input,
    5 platform failure (running it again may help), 130 interrupted.

    Examples:

        tidemill run pipelines/problems/lending --source loans.csv

        tidemill run my-problem --source 'data/*.parquet' --set training.max_epochs=5

        tidemill run my-problem --source loans.csv --resume lending-20260101-120000-ab12
    """
    from tidemill.costs import load_prices
    from tidemill_pipelines.targets.local.runner import Observer, Request
    from tidemill_pipelines.targets.local.runner import run as run_locally

    layout = Layout(runs_dir)
    given = assignments("--set", overrides, "training.max_epochs=5")
    request = Request(
        problem_dir=problem_dir,
        source=source or _default_source(problem_dir, given),
        pipeline=pipeline,
        overrides=given,
        beam_runner=beam_runner,
        beam_flags=beam_flags or [],
        workers=workers,
        resume=resume,
        reuse=reuse,
        prices=load_prices(prices) if prices else None,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is recorded like Ctrl-C
    record: RunRecord | None = None

    def planned(plan: RunRecord) -> None:
        nonlocal record
        record = plan
        view.planned(plan)

    try:
        # kfp.local prints to sys.stdout, which is redirected while it runs: the view keeps today's.
        with RunView(Console(file=sys.stdout, highlight=False, markup=False, emoji=False), quiet=json_output) as view:
            record = run_locally(request, layout, Observer(planned, view.task))
    except KeyboardInterrupt:
        err.print("interrupted", style="yellow", end="\n" if record is None else "")
        if record:
            err.print(f"; `--resume {record.id}` with the same command goes on", soft_wrap=True)
        raise typer.Exit(130) from None
    run_dir = layout.run_dir(record.id)
    if json_output:
        print_json(summary(record, run_dir))
    else:
        _conclude(record, run_dir)
    raise typer.Exit(EXIT_CODES[record.verdict])


def summary(record: RunRecord, run_dir: Path) -> dict[str, Any]:
    """Returns what a program wants to know of an ended run."""
    tasks = read_tasks(run_dir)
    checks = [check for decision in _decisions(tasks) for check in decision.checks]
    page = run_dir / "report.html"
    return {
        "run": record.id,
        "verdict": record.verdict,
        "exit_code": EXIT_CODES.get(record.verdict),
        "wall_s": record.wall_s,
        "cost": record.cost,
        "refusals": [c.message for c in checks if c.blocking and not c.passed],
        "checks": [{"name": c.name, "slice": c.slice, "passed": c.passed, "value": c.value} for c in checks],
        "errors": [t.error["message"] for t in tasks if t.error],
        "tasks": {t.name: {"status": t.status, "wall_s": t.wall_s} for t in tasks},
        "report": str(page) if page.is_file() else None,
        "deployment": _deployment(tasks),
    }


def _default_source(problem_dir: Path, overrides: Mapping[str, str]) -> str:
    from tidemill.problem import load_problem

    source = load_problem(problem_dir, overrides).ingest.source
    if source is None:
        raise UsageError("--source", "the problem names no `ingest.source`", remedy="give the table with --source")
    return source if "://" in source else str(problem_dir / source)


def _decisions(tasks: list[TaskRecord]) -> list[Decision]:
    found = [output(tasks, task, name) for task, name in _EVIDENCE]
    return [read_decision(path) for path in found if path is not None]


def _deployment(tasks: list[TaskRecord]) -> dict[str, Any] | None:
    path = output(tasks, "deploy", "deployment")
    return json.loads((path / "deployment.json").read_text()) if path else None


def _conclude(record: RunRecord, run_dir: Path) -> None:
    style, words = _VERDICTS[record.verdict]
    tasks = read_tasks(run_dir)
    out.print(Text.assemble("\n", (words, f"bold {style}"), f" in {duration(record.wall_s)}{_priced(record)}"))
    for task in tasks:
        if task.error:
            out.print(task.error["message"], soft_wrap=True)
    print_checks(tasks)
    page = run_dir / "report.html"
    if page.is_file():
        out.print(f"report: {page}", soft_wrap=True)
    if deployment := _deployment(tasks):
        out.print("ask the endpoint:")
        out.print(f"  {deployment['curl']}", soft_wrap=True)
    if record.verdict in ("platform_failure", "defect"):
        out.print(f"logs: {run_dir / 'logs'}; `--resume {record.id}` goes on from the finished stages", soft_wrap=True)


def _priced(record: RunRecord) -> str:
    if record.cost is None:
        return ""
    return f" for about {amount(record.cost['total'])} {record.cost['currency']}"


def print_checks(tasks: list[TaskRecord]) -> None:
    """Prints the checks that failed, and of those that passed the ones that judge the whole model."""
    untold = 0
    for decision in _decisions(tasks):
        for check in decision.checks:
            if check.passed and (check.slice or check.value is None or decision.gate == "data"):
                untold += 1
                continue
            mark = ("✓", "green") if check.passed else ("✗", "red") if check.blocking else ("!", "yellow")
            where = ", ".join(f"{k}={v}" for k, v in check.slice.items())
            name = f"{check.name} of {where}" if where else check.name
            out.print(Text.assemble("  ", mark, f" {name}: {check.got}, limit {check.expected}"), soft_wrap=True)
    if untold:
        out.print(f"  and {untold} other checks passed: see the report")
