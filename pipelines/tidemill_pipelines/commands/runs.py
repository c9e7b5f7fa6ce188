"""``tidemill runs``: what ran, what came of it, and why."""

from __future__ import annotations

import dataclasses
import webbrowser
from typing import Annotated, Any

import typer

from tidemill.errors import UsageError
from tidemill.runs import TaskRecord, read_tasks
from tidemill_pipelines.commands.run import print_checks, summary
from tidemill_pipelines.console import DEFAULT_RUNS_DIR, Json, RunsDir, duration, out, print_json, print_table
from tidemill_pipelines.targets.local.layout import Layout

app = typer.Typer(help="List, show and open runs.", no_args_is_help=True)
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or `latest`.")]


@app.command("list")
def list_runs(
    problem: Annotated[str | None, typer.Option(help="Only runs of this problem.")] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """List runs, the newest first.

    Examples:

        tidemill runs list --problem lending

        tidemill runs list --json | jq '.[0].id'
    """
    runs = [run for run in Layout(runs_dir).records() if problem in (None, run.problem)]
    if json_output:
        print_json([dataclasses.asdict(run) for run in runs])
        return
    rows = [(r.id, r.problem, r.verdict, r.started[:19].replace("T", " "), duration(r.wall_s)) for r in runs]
    print_table(("run", "problem", "verdict", "started (UTC)", "time"), rows, f"no runs below {runs_dir}")


@app.command()
def show(
    run: RunId = "latest",
    why_cached: Annotated[bool, typer.Option("--why-cached", help="Say why each stage was reused or not.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """Show a run: its verdict, the reasons, its stages and what they cost.

    Examples:

        tidemill runs show

        tidemill runs show lending-20260101-120000-ab12 --why-cached
    """
    layout = Layout(runs_dir)
    record = layout.find(run)
    run_dir = layout.run_dir(record.id)
    tasks = read_tasks(run_dir)
    if json_output:
        told = {**dataclasses.asdict(record), **summary(record, run_dir)}
        print_json({**told, "tasks": [dataclasses.asdict(task) for task in tasks]})
        return
    out.print(record.id, style="bold", end="")
    out.print(f"  {record.verdict}  {record.started[:19].replace('T', ' ')} UTC")
    out.print(
        f"source {record.source}  {record.source_fingerprint[:19]}  bundle {record.bundle[:12]}\n", soft_wrap=True
    )
    if why_cached:
        rows = [(task.name, task.status, task.cache_reason) for task in tasks]
        print_table(("stage", "status", "why"), rows, "no stage ran")
    else:
        print_table(
            ("stage", "status", "wall", "import", "CPU", "peak"), [_costs(task) for task in tasks], "nothing ran"
        )
    facts = summary(record, run_dir)
    for message in facts["errors"]:
        out.print(message, soft_wrap=True)
    print_checks(tasks)
    if facts["report"]:
        out.print(f"report: {facts['report']}", soft_wrap=True)


@app.command("open")
def open_report(run: RunId = "latest", runs_dir: RunsDir = DEFAULT_RUNS_DIR) -> None:
    """Open a run's report in the browser.

    Example:

        tidemill runs open latest
    """
    layout = Layout(runs_dir)
    record = layout.find(run)
    page = layout.run_dir(record.id) / "report.html"
    if not page.is_file():
        raise UsageError(f"run {record.id}", f"has no report ({record.verdict})")
    out.print(str(page), soft_wrap=True)
    webbrowser.open(page.resolve().as_uri())


def _costs(task: TaskRecord) -> tuple[Any, ...]:
    if task.status == "cached":
        return (task.name, "cached", duration(task.wall_s), "", "", "")
    peak = f"{task.peak_rss_mb:.0f} MB"
    return (task.name, task.status, duration(task.wall_s), duration(task.import_s), duration(task.cpu_s), peak)
