"""``tidemill runs``: what ran, what came of it, and why."""

from __future__ import annotations

import dataclasses
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.errors import UsageError
from tidemill.runs import TaskRecord, read_tasks
from tidemill_pipelines.commands import remote_runs
from tidemill_pipelines.commands.compare import compare_runs
from tidemill_pipelines.commands.options import AnyTarget
from tidemill_pipelines.commands.run import print_checks, summary
from tidemill_pipelines.console import DEFAULT_RUNS_DIR, Json, RunsDir, duration, out, print_json, print_table
from tidemill_pipelines.targets.local.layout import Layout
from tidemill_pipelines.targets.names import closest

if TYPE_CHECKING:
    from tidemill_pipelines.targets.remote import RemoteTarget

app = typer.Typer(help="List, show, compare, open and cancel runs.", no_args_is_help=True)
app.command("compare")(compare_runs)
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or `latest`.")]


@app.command("list")
def list_runs(
    problem: Annotated[str | None, typer.Option(help="Only runs of this problem.")] = None,
    target: AnyTarget = None,
    limit: Annotated[int, typer.Option(min=1, help="With --target: how many at most.")] = 20,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """List runs, the newest first.

    Examples:

        tidemill runs list --problem lending

        tidemill runs list --json | jq '.[0].id'

        tidemill runs list --target production --limit 5
    """
    if target is not None:
        _list_remote(target, problem, limit, json_output)
        return
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
    target: AnyTarget = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """Show a run: its verdict, the reasons, its stages and what they cost.

    Examples:

        tidemill runs show

        tidemill runs show lending-20260101-120000-ab12 --why-cached

        tidemill runs show latest --target production
    """
    if target is not None:
        if why_cached:
            raise UsageError("--why-cached", "a backend doesn't tell why", remedy="leave it out: `cached` is shown")
        found = remote_runs.find(_open(target), run)
        if json_output:
            print_json(remote_runs.as_json(found))
        else:
            remote_runs.show(found)
        return
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


@app.command()
def logs(
    run: RunId = "latest",
    task: Annotated[str | None, typer.Option(help="One task; all by default.")] = None,
    target: AnyTarget = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """Print what a run's tasks printed, or where a backend that doesn't give it out has it.

    Examples:

        tidemill runs logs latest --task train

        tidemill runs logs latest --task train --target production
    """
    if target is not None:
        backend = _open(target)
        lines = backend.logs(remote_runs.find(backend, run).id, task)
    else:
        layout = Layout(runs_dir)
        lines = _local_logs(layout.run_dir(layout.find(run).id), task)
    if json_output:
        print_json(list(lines))
        return
    for line in lines:
        typer.echo(line)


@app.command()
def cancel(run: RunId, target: AnyTarget = None, json_output: Json = False) -> None:
    """Ask a target to end a run; one that has ended stays as it is.

    Example:

        tidemill runs cancel latest --target production
    """
    if target is None:
        remedy = "a run of this machine is ended with Ctrl-C where it was started"
        raise UsageError("tidemill runs cancel", "needs a --target", remedy=remedy)
    backend = _open(target)
    ended = backend.cancel(remote_runs.find(backend, run).id)
    if json_output:
        print_json(remote_runs.as_json(ended))
    else:
        out.print(f"{ended.id}: {ended.state}", soft_wrap=True)


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


def _open(target: str) -> RemoteTarget:
    from tidemill_pipelines.targets.backends import open_target
    from tidemill_pipelines.targets.config import load_target

    return open_target(load_target(target))


def _list_remote(target: str, problem: str | None, limit: int, json_output: bool) -> None:
    found = [r for r in _open(target).runs(limit) if problem is None or r.name.startswith(f"{problem}-")]
    if json_output:
        print_json([remote_runs.as_json(run) for run in found])
        return
    columns = ("run", "name", "state", "created (UTC)", "time")
    print_table(columns, [remote_runs.row(run) for run in found], f"no runs on {target}")


def _local_logs(run_dir: Path, task: str | None) -> Iterator[str]:
    """Yields the lines that tasks printed, those of several below their names."""
    files = {path.stem: path for path in sorted((run_dir / "logs").glob("*.log"), key=lambda p: p.stat().st_mtime)}
    if task is not None and task not in files:
        there = ", ".join(files) or "none"
        raise UsageError(f"task {task}", f"has no log in this run; there is {there}", remedy=closest(task, files))
    for name, path in files.items():
        if task in (None, name):
            if task is None:
                yield f"── {name}"
            yield from path.read_text(encoding="utf-8", errors="replace").splitlines()


def _costs(task: TaskRecord) -> tuple[Any, ...]:
    if task.status == "cached":
        return (task.name, "cached", duration(task.wall_s), "", "", "")
    peak = f"{task.peak_rss_mb:.0f} MB"
    return (task.name, task.status, duration(task.wall_s), duration(task.import_s), duration(task.cpu_s), peak)
