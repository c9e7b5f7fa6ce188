"""``tidemill schedule``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from click.testing import Result
from remote_memory import MemoryTarget

from tidemill.errors import UsageError
from tidemill_pipelines.targets.compilation import Compiled

Invoke = Callable[..., Result]
Target = tuple[str, str]
WEEKLY = ("--cron", "0 3 * * 1", "--time-zone", "Europe/Berlin")


@pytest.fixture
def schedule(invoke: Invoke, example: dict[str, tuple[str, ...]], remote: MemoryTarget) -> Invoke:
    return lambda command, *more: invoke("schedule", command, *example["vertex"], *more)


def test_a_schedule_is_made_with_all_that_was_asked_for(
    schedule: Invoke, remote: MemoryTarget, package: Compiled
) -> None:
    times = ("--start", "2026-03-01T06:00", "--end", "2026-12-31T00:00:00+00:00")
    told = schedule("create", *WEEKLY, *times, "--max-concurrent", "2", "--catch-up", "--label", "a=b", "--no-cache")
    assert told.stdout == (
        "lending-training: made, active\n  0 3 * * 1 Europe/Berlin, next run 2026-03-01 12:00:00 UTC\n"
    )
    (request,) = remote.requests
    assert (request.name, request.cron, request.time_zone) == ("lending-training", "0 3 * * 1", "Europe/Berlin")
    assert (request.max_concurrent, request.catch_up) == (2, True)
    assert request.start == datetime(2026, 3, 1, 6, tzinfo=timezone(timedelta(hours=1)))
    assert request.end == datetime(2026, 12, 31, tzinfo=UTC)
    assert (request.submission.labels, request.submission.cache) == ({"a": "b"}, False)
    assert request.submission.package == package.package
    assert remote.staged == dict(package.files)
    assert not remote.submissions


def test_the_defaults_are_one_at_a_time_and_no_catching_up(schedule: Invoke, remote: MemoryTarget) -> None:
    schedule("create", "--cron", "0 3 * * *", "--name", "nightly")
    (request,) = remote.requests
    assert (request.name, request.time_zone, request.max_concurrent, request.catch_up) == ("nightly", "UTC", 1, False)
    assert (request.start, request.end) == (None, None)


def test_made_again_it_is_found(schedule: Invoke, remote: MemoryTarget, read_json: Callable[[Result], Any]) -> None:
    schedule("create", *WEEKLY)
    assert "lending-training: is there already, active" in schedule("create", *WEEKLY).stdout
    assert read_json(schedule("create", *WEEKLY, "--json"))["existed"] is True
    first, second, third = (request.submission.request_id for request in remote.requests)
    assert first == second == third


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--cron", "0 0 3 * * 1"), "expected five fields"),
        (("--cron", "61 * * * *"), "minute"),
        (("--cron", "0 3 * * *", "--time-zone", "Berlin"), "IANA"),
        (("--cron", "0 3 * * *", "--start", "tomorrow"), "ISO 8601"),
        (("--cron", "0 3 * * *", "--start", "2026-02-01", "--end", "2026-01-01"), "must be after --start"),
    ],
)
def test_times_that_mean_nothing_are_refused_before_anything_is_made(
    arguments: tuple[str, ...], told: str, schedule: Invoke, remote: MemoryTarget
) -> None:
    with pytest.raises(UsageError, match=told):
        schedule("create", *arguments)
    assert not remote.staged
    assert not remote.requests


def test_what_the_backend_would_refuse_is_found_before(
    invoke: Invoke, remote: MemoryTarget, example: dict[str, tuple[str, ...]]
) -> None:
    """KFP takes ten runs at a time."""
    with pytest.raises(UsageError, match="would be refused"):
        invoke("schedule", "create", *example["kubernetes"], "--cron", "0 3 * * *", "--max-concurrent", "11")
    assert not remote.requests


def test_update_replaces_one_that_is_there(schedule: Invoke, remote: MemoryTarget) -> None:
    with pytest.raises(UsageError, match="there is none of that name; there is none"):
        schedule("update", *WEEKLY)
    schedule("create", *WEEKLY)
    assert "lending-training: replaced" in schedule("update", "--cron", "0 4 * * 1").stdout
    assert remote.planned["lending-training"].cron == "0 4 * * 1"
    assert remote.planned["lending-training"].time_zone == "UTC"


def test_list_pause_resume_and_delete(
    schedule: Invoke, invoke: Invoke, remote: MemoryTarget, on_vertex: Target, read_json: Callable[[Result], Any]
) -> None:
    assert invoke("schedule", "list", *on_vertex).stdout == "no schedules\n"
    schedule("create", *WEEKLY)
    row = invoke("schedule", "list", *on_vertex).stdout.splitlines()[1]
    told = "lending-training active 0 3 * * 1 Europe/Berlin 1 no 2026-03-01 12:00:00"
    assert " ".join(row.split()) == told
    assert "lending-training: paused, paused" in invoke("schedule", "pause", "lending-training", *on_vertex).stdout
    assert "next run – UTC" in invoke("schedule", "pause", "lending-training", *on_vertex).stdout
    resumed = read_json(invoke("schedule", "resume", "lending-training", *on_vertex, "--json"))
    assert (resumed["state"], resumed["cron"]) == ("active", "0 3 * * 1")
    (listed,) = read_json(invoke("schedule", "list", *on_vertex, "--json"))
    assert listed["name"] == "lending-training"
    assert invoke("schedule", "delete", "lending-training", *on_vertex).stdout == "lending-training: deleted\n"
    assert remote.planned == {}


@pytest.mark.parametrize("command", ["pause", "resume", "delete"])
def test_a_misspelt_name_is_told_what_may_be_meant(
    command: str, schedule: Invoke, invoke: Invoke, on_vertex: Target
) -> None:
    schedule("create", *WEEKLY)
    with pytest.raises(UsageError, match=r"there is lending-training\n  → did you mean lending-training\?"):
        invoke("schedule", command, "lending-trainig", *on_vertex)


def test_deleting_is_told_as_json(
    schedule: Invoke, invoke: Invoke, on_vertex: Target, read_json: Callable[[Result], Any]
) -> None:
    schedule("create", *WEEKLY)
    told = read_json(invoke("schedule", "delete", "lending-training", "--json", *on_vertex))
    assert told == {"name": "lending-training", "deleted": True}


def test_templates_of_the_source_reach_the_run_as_they_are(
    invoke: Invoke, example: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled for real: it is the run that fills them in."""
    from tidemill_pipelines.targets import backends

    memory = MemoryTarget()
    monkeypatch.setattr(backends, "open_target", lambda config: memory)
    directory, _, _, *target = example["vertex"]
    source = "gs://example-bucket/{{ schedule.time | date('%Y-%m-%d') }}.csv"
    invoke("schedule", "create", directory, *target, "--source", source, "--cron", "0 3 * * *")
    (request,) = memory.requests
    assert request.submission.package.defaults["source"] == source
