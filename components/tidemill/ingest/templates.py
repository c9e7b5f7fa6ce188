"""Sources that depend on when a pipeline runs: ``gs://bucket/loans/{{ schedule.time | date('%Y-%m-%d') }}.csv``.

They are resolved when the run starts, not when it is compiled or scheduled.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from tidemill.errors import PlatformError, UsageError

NOW: Final = "now"
_OPENINGS: Final = ("{{", "{%")


@dataclass(frozen=True)
class ScheduleTime:
    """What ``schedule`` means in a template.

    Attributes:
        time: aware; when the schedule was due, or when a run without one was created.
    """

    time: datetime


def resolve(source: str, time: datetime) -> str:
    """Returns ``source`` with its templates filled in; one without is returned as it is.

    A template is a Jinja expression over ``schedule.time``: ``{{ schedule.time | date('%Y/%m/%d') }}``,
    ``{{ (schedule.time - days(7)) | in_zone('Europe/Berlin') | date('%G-W%V') }}``; without a filter it is written
    as ISO 8601 in UTC.

    Raises:
        UsageError: if it is no template or names what there isn't.
    """
    if not has_template(source):
        return source
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, finalize=_shown)
    environment.filters |= {"date": _date, "in_zone": _in_zone}
    context = {"schedule": ScheduleTime(time), "days": _days, "hours": _hours}
    try:
        return environment.from_string(source).render(context)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        remedy = "for example {{ (schedule.time - days(1)) | date('%Y-%m-%d') }}"
        raise UsageError(f"source {source}", "is no template that can be filled in", str(error), remedy) from error


def has_template(source: str) -> bool:
    """Tells whether a source depends on the time of the run."""
    return any(opening in source for opening in _OPENINGS)


def run_time(scheduled: str, created: str) -> datetime:
    """Returns the time that templates are about: when the run was due, or else when it was created.

    Args:
        scheduled: ISO 8601 or epoch seconds, or ``now`` where the clock is to decide.
        created: likewise.

    Raises:
        PlatformError: if neither is a time: KFP before 2.17 leaves them empty, or leaves the placeholder as it is.
    """
    for text in (scheduled, created):
        if text == NOW:
            return datetime.now(UTC)
        if text.isdecimal():
            return datetime.fromtimestamp(int(text), UTC)
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            continue
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    expected, remedy = (
        "the backend must say when the run was due",
        "KFP does since 2.17; or name a source without template",
    )
    raise PlatformError("locate", expected, repr(scheduled), remedy)


def _shown(value: object) -> object:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value


def _date(value: datetime, form: str) -> str:
    return value.strftime(form)


def _in_zone(value: datetime, name: str) -> datetime:
    return value.astimezone(ZoneInfo(name))


def _days(number: float) -> timedelta:
    return timedelta(days=number)


def _hours(number: float) -> timedelta:
    return timedelta(hours=number)
