"""``tidemill schedule``: pipelines that a target runs again and again."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.errors import UsageError
from tidemill_pipelines.commands.options import (
    Cache,
    Images,
    Labels,
    Overrides,
    PipelineName,
    ProblemDir,
    Source,
    TargetName,
    assignments,
)
from tidemill_pipelines.commands.remote_runs import moment
from tidemill_pipelines.commands.submit import compiled_and_checked, request_digest
from tidemill_pipelines.console import Json, out, print_json, print_table

if TYPE_CHECKING:
    from tidemill_pipelines.targets.remote import RemoteSchedule, RemoteTarget, ScheduleRequest

app = typer.Typer(help="Have a target run a pipeline again and again.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
Cron = Annotated[str, typer.Option(help="Five fields: minute, hour, day of month, month, day of week.")]
OwnName = Annotated[str | None, typer.Option("--name", help="Name of the schedule; <problem>-<pipeline> by default.")]
TimeZone = Annotated[str, typer.Option(help="Time zone of --cron, and of --start and --end without one.")]
MaxConcurrent = Annotated[int, typer.Option(min=1, help="Runs at a time; a due one waits, or is left out.")]
CatchUp = Annotated[
    bool, typer.Option("--catch-up/--no-catch-up", help="Make up for runs that were missed while it was paused.")
]
Start = Annotated[str | None, typer.Option(metavar="TIME", help="Not before; ISO 8601.")]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Not after; ISO 8601.")]


@app.command()
def create(
    problem_dir: ProblemDir,
    target: TargetName,
    cron: Cron,
    name: OwnName = None,
    time_zone: TimeZone = "UTC",
    max_concurrent: MaxConcurrent = 1,
    catch_up: CatchUp = False,
    start: Start = None,
    end: End = None,
    pipeline: PipelineName = "training",
    images: Images = None,
    source: Source = None,
    overrides: Overrides = None,
    labels: Labels = None,
    cache: Cache = None,
    json_output: Json = False,
) -> None:
    """Compile a pipeline, check it, and have a target run it by a schedule.

    Making the same schedule again changes nothing; one of the same name that differs is refused: `update` replaces
    it. Templates in the source, such as {{ schedule.time | date('%Y-%m-%d') }}, are filled in when each run begins.

    Exit codes: 0 made, or there already; 4 bad input, or refused; 5 the backend failed.

    Examples:

        tidemill schedule create my-problem --target production --cron '0 3 * * 1' --source gs://example-bucket/loans.csv

        tidemill schedule create my-problem --target production --cron '30 2 * * *' --catch-up \
            --source "gs://example-bucket/{{ schedule.time | date('%Y-%m-%d') }}.csv"
    """
    backend, request = _request(
        problem_dir, target, cron, name, time_zone, max_concurrent, catch_up, start, end, pipeline, images, source,
        overrides, labels, cache, json_output,
    )  # fmt: skip
    made = backend.create_schedule(request)
    _tell(made, "is there already" if made.existed else "made", json_output)


@app.command()
def update(
    problem_dir: ProblemDir,
    target: TargetName,
    cron: Cron,
    name: OwnName = None,
    time_zone: TimeZone = "UTC",
    max_concurrent: MaxConcurrent = 1,
    catch_up: CatchUp = False,
    start: Start = None,
    end: End = None,
    pipeline: PipelineName = "training",
    images: Images = None,
    source: Source = None,
    overrides: Overrides = None,
    labels: Labels = None,
    cache: Cache = None,
    json_output: Json = False,
) -> None:
    """Replace a schedule: what it runs, and when. All that is not given has its default, not what it was.

    Exit codes: 0 replaced; 4 bad input, or there is none of that name; 5 the backend failed.

    Example:

        tidemill schedule update my-problem --target production --cron '0 4 * * 1' --images images.json
    """
    backend, request = _request(
        problem_dir, target, cron, name, time_zone, max_concurrent, catch_up, start, end, pipeline, images, source,
        overrides, labels, cache, json_output,
    )  # fmt: skip
    _known(backend, request.name)
    _tell(backend.update_schedule(request), "replaced", json_output)


@app.command("list")
def list_schedules(target: TargetName, json_output: Json = False) -> None:
    """List a target's schedules.

    Examples:

        tidemill schedule list --target production

        tidemill schedule list --target production --json | jq -r '.[].next_run'
    """
    found = _open(target).schedules()
    if json_output:
        print_json([dataclasses.asdict(schedule) for schedule in found])
        return
    rows = [
        (s.name, s.state, s.cron, s.time_zone, str(s.max_concurrent), "yes" if s.catch_up else "no", moment(s.next_run))
        for s in found
    ]
    columns = ("schedule", "state", "cron", "time zone", "at a time", "catch up", "next run (UTC)")
    print_table(columns, rows, "no schedules")


@app.command()
def pause(name: Name, target: TargetName, json_output: Json = False) -> None:
    """Let no further run of a schedule begin; those at work go on.

    Example:

        tidemill schedule pause lending-training --target production
    """
    backend = _open(target)
    _known(backend, name)
    _tell(backend.pause_schedule(name), "paused", json_output)


@app.command()
def resume(name: Name, target: TargetName, json_output: Json = False) -> None:
    """Let a paused schedule go on.

    Example:

        tidemill schedule resume lending-training --target production
    """
    backend = _open(target)
    _known(backend, name)
    _tell(backend.resume_schedule(name), "goes on", json_output)


@app.command()
def delete(name: Name, target: TargetName, json_output: Json = False) -> None:
    """Delete a schedule; its runs stay.

    Example:

        tidemill schedule delete lending-training --target production
    """
    backend = _open(target)
    _known(backend, name)
    backend.delete_schedule(name)
    if json_output:
        print_json({"name": name, "deleted": True})
    else:
        out.print(f"{name}: deleted")


def _open(target: str) -> RemoteTarget:
    from tidemill_pipelines.targets.backends import open_target
    from tidemill_pipelines.targets.config import load_target

    return open_target(load_target(target))


def _known(backend: RemoteTarget, name: str) -> None:
    """Raises UsageError if the target has no schedule of that name."""
    from tidemill_pipelines.targets.names import closest

    names = [schedule.name for schedule in backend.schedules()]
    if name not in names:
        there = ", ".join(names) or "none"
        raise UsageError(
            f"schedule {name}", f"there is none of that name; there is {there}", None, closest(name, names)
        )


def _request(
    problem_dir: Path,
    target: str,
    cron: str,
    name: str | None,
    time_zone: str,
    max_concurrent: int,
    catch_up: bool,
    start: str | None,
    end: str | None,
    pipeline: str,
    images: Path | None,
    source: str | None,
    overrides: list[str] | None,
    labels: list[str] | None,
    cache: bool | None,
    quiet: bool,
) -> tuple[RemoteTarget, ScheduleRequest]:
    """Compiles and checks what a schedule is to run, uploads its files, and returns what to ask of whom."""
    from tidemill_pipelines.targets.backends import open_target
    from tidemill_pipelines.targets.checking.subject import Plan
    from tidemill_pipelines.targets.config import load_target
    from tidemill_pipelines.targets.cron import parse_cron
    from tidemill_pipelines.targets.remote import ScheduleRequest, Submission

    config = load_target(target)
    parse_cron(cron)
    begins, ends = _moment("--start", start, time_zone), _moment("--end", end, time_zone)
    if begins and ends and ends <= begins:
        raise UsageError("--end", f"must be after --start, {begins.isoformat()}", ends.isoformat())
    own = assignments("--label", labels, "team=risk")
    given = assignments("--set", overrides, "training.max_epochs=5")
    plan = Plan(cron, time_zone, max_concurrent, begins, ends)
    compiled = compiled_and_checked(problem_dir, pipeline, config, images, given, source, own, plan, quiet)
    submission = Submission(
        compiled.package.name, compiled.package, request_digest(compiled, own, cache), labels=own, cache=cache
    )
    backend = open_target(config)
    backend.stage(compiled.files)
    shown = name or compiled.package.name
    return backend, ScheduleRequest(
        shown, submission, cron, time_zone, max_concurrent, catch_up, start=begins, end=ends
    )


def _moment(flag: str, text: str | None, zone: str) -> datetime | None:
    """Returns a time that was given, aware; one without a zone is meant in that of the schedule."""
    from tidemill_pipelines.targets.config import time_zone

    known = time_zone(zone)
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(flag, "expected a time as ISO 8601 has it", text, "2026-03-01T06:00") from error
    return time if time.tzinfo else time.replace(tzinfo=known)


def _tell(schedule: RemoteSchedule, what: str, json_output: bool) -> None:
    if json_output:
        print_json(dataclasses.asdict(schedule))
        return
    out.print(f"{schedule.name}: {what}, {schedule.state}", soft_wrap=True)
    out.print(f"  {schedule.cron} {schedule.time_zone}, next run {moment(schedule.next_run)} UTC", soft_wrap=True)
