"""A source may depend on when its run is due; the time is filled in when the run starts."""

from datetime import UTC, datetime

import pytest

from tidemill.errors import DataError, PlatformError, UsageError
from tidemill.ingest.location import run
from tidemill.ingest.templates import resolve, run_time

DUE = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("source", "resolved"),
    [
        ("loans.csv", "loans.csv"),
        ("gs://b/{{ schedule.time | date('%Y/%m/%d') }}/*.csv", "gs://b/2026/03/29/*.csv"),
        ("{{ (schedule.time - days(1)) | date('%Y-%m-%d') }}.csv", "2026-03-28.csv"),
        ("{{ (schedule.time - hours(24.5)) | date('%d %H:%M') }}", "28 00:00"),
        ("{{ schedule.time | in_zone('Europe/Berlin') | date('%H:%M') }}", "01:30"),
        ("{{ (schedule.time + hours(1)) | in_zone('Europe/Berlin') | date('%H:%M') }}", "03:30"),  # summer has begun
        ("{{ schedule.time }}", "2026-03-29T00:30:00Z"),
    ],
)
def test_templates_are_filled_in(source, resolved):
    assert resolve(source, DUE) == resolved


@pytest.mark.parametrize(
    "source",
    [
        "{{ schedule.tme }}",
        "{{ schedule.time | date }}",
        "{{ schedule.time",
        "{{ schedule.time | in_zone('Europe/Berln') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ nothing }}",
    ],
)
def test_what_cannot_be_filled_in_is_told_and_nothing_else_is_reached(source):
    with pytest.raises(UsageError, match="is no template that can be filled in") as told:
        resolve(source, DUE)
    assert "schedule.time - days(1)" in told.value.remedy


def test_the_time_is_when_the_run_was_due_or_else_made_or_else_now():
    assert run_time("2026-03-29T00:30:00Z", "2026-03-29T00:31:07Z") == DUE
    assert run_time("1774744200", "") == DUE
    assert run_time("", "2026-03-29T00:30:00") == DUE  # Vertex AI, for a run without a schedule
    assert abs((run_time("now", "now") - datetime.now(UTC)).total_seconds()) < 60


@pytest.mark.parametrize("told", ["", "{{$.pipeline_job_schedule_time_utc}}"])
def test_a_backend_that_does_not_say_the_time_fails_a_template_and_nothing_else(told, tmp_path):
    """KFP 2.16 hands out an empty text, those before it the placeholder: today's table would be the wrong one."""
    with pytest.raises(PlatformError, match="must say when the run was due"):
        run(str(tmp_path / "{{ schedule.time }}.csv"), told, told, tmp_path / "s", tmp_path / "f")
    (tmp_path / "loans.csv").write_text("a\n1\n")
    assert run(str(tmp_path / "loans.csv"), told, told, tmp_path / "s", tmp_path / "f").source.endswith("loans.csv")


def test_the_table_is_located_and_fingerprinted(tmp_path):
    table = tmp_path / "loans-2026-03-29.csv"
    table.write_text("a,b\n1,2\n")
    template = str(tmp_path / "loans-{{ schedule.time | date('%Y-%m-%d') }}.csv")
    found = run(template, "2026-03-29T00:30:00Z", "", tmp_path / "source", tmp_path / "fingerprint")
    assert (tmp_path / "source").read_text() == found.source == str(table)
    assert (tmp_path / "fingerprint").read_text() == found.fingerprint
    table.write_text("a,b\n1,3\n")
    assert run(template, "2026-03-29T00:30:00Z", "", tmp_path / "s", tmp_path / "f").fingerprint != found.fingerprint


def test_a_window_without_a_table_is_told(tmp_path):
    with pytest.raises(DataError, match="loans-2026"):
        run(str(tmp_path / "loans-{{ schedule.time }}.csv"), "2026-03-29T00:30:00Z", "", tmp_path / "s", tmp_path / "f")
    assert not (tmp_path / "s").exists()
