"""Schedules in the one canonical form, five fields and a time zone, and in that of KFP, which has seconds first.

The fields are cron's: minute, hour, day of month, month, day of week; numbers, English short names, lists, ranges
and steps. Where both days are restricted a time fits either, as in Vixie's cron and KFP's. What backends read
differently is refused: descriptors such as ``@daily``, ``?``, ``L``, ``#``, and a step over all of one day field
while the other is restricted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from tidemill.errors import UsageError

Values = frozenset[int]
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_HORIZON: Final = timedelta(days=366 * 5)
_SAFE_DAYS: Final = {-1: range(2, 29), 0: range(1, 32), 1: range(1, 28)}
"""Days of a month whose neighbour, a day earlier or later, is in the same month whatever the month."""


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _WEEKDAYS),
)


@dataclass(frozen=True)
class Cron:
    """A schedule's times.

    Attributes:
        days: of the month; None for any.
        weekdays: 0 is Sunday; None for any.
    """

    minutes: Values
    hours: Values
    days: Values | None
    months: Values
    weekdays: Values | None

    def __str__(self) -> str:
        """The five fields, in one spelling for all that mean the same."""
        return " ".join(
            (
                _stepped(self.minutes, 0, 59),
                _stepped(self.hours, 0, 23),
                _listed(self.days),
                _stepped(self.months, 1, 12),
                _listed(self.weekdays),
            )
        )

    def due(self, day: date) -> bool:
        """Tells whether the schedule has times on a day."""
        if day.month not in self.months:
            return False
        of_month = self.days is None or day.day in self.days
        of_week = self.weekdays is None or day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.days is not None and self.weekdays is not None else of_month and of_week

    def times(self, after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """Yields the aware times after ``after``, for five years.

        A time that the clocks skip has no run that day; one that they repeat has two. KFP's do the same.
        """
        day, last = after.astimezone(zone).date(), (after + _HORIZON).astimezone(zone).date()
        while day <= last:
            if self.due(day):
                yield from (time for time in self._on(day, zone) if time > after)
            day += timedelta(days=1)

    def _on(self, day: date, zone: ZoneInfo) -> list[datetime]:
        moments = set()
        for hour in self.hours:
            for minute in self.minutes:
                for fold in (0, 1):
                    local = datetime(day.year, day.month, day.day, hour, minute, fold=fold, tzinfo=zone)
                    moment = local.astimezone(UTC)
                    if moment.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
                        moments.add(moment)
        return [moment.astimezone(zone) for moment in sorted(moments)]


def parse_cron(text: str) -> Cron:
    """Reads five fields.

    Raises:
        UsageError: naming the field at fault.
    """
    where, fields = f"cron {text!r}", text.split()
    if len(fields) != len(_FIELDS):
        expected = "expected five fields: minute, hour, day of month, month, day of week"
        hint = "the six of KFP begin with seconds: leave those out" if len(fields) == 6 else None
        raise UsageError(where, expected, f"{len(fields)}", hint or "every day at 3: 0 3 * * *")
    values = [_values(text, field, where) for text, field in zip(fields, _FIELDS, strict=True)]
    any_day, any_weekday = (_is_any(fields[i]) for i in (2, 4))
    for i, other in ((2, any_weekday), (4, any_day)):
        if fields[i].startswith("*") and not _is_any(fields[i]) and not other:
            remedy = "list the days that are meant"
            told = f"{_FIELDS[i].name} must not be a step over all while the other day is restricted"
            raise UsageError(where, told, fields[i], remedy)
    weekdays = frozenset(value % 7 for value in values[4])
    cron = Cron(values[0], values[1], None if any_day else values[2], values[3], None if any_weekday else weekdays)
    if next(cron.times(datetime(2000, 1, 1, tzinfo=UTC), ZoneInfo("UTC")), None) is None:
        raise UsageError(where, "must have a time that comes", "a day that its months don't have")
    return cron


def to_kfp(cron: Cron, zone: ZoneInfo, controller: ZoneInfo, start: datetime, end: datetime | None) -> str:
    """Returns KFP's six fields for a schedule.

    KFP has no time zone per schedule: its controller reads all of them in one. A schedule of another zone is
    shifted by their difference, if that gives exactly the same times for as long as the schedule lives.

    Args:
        zone: that the schedule is meant in.
        controller: that KFP's controller reads it in.
        start: from when it matters.
        end: until when; five years from the start if None.

    Raises:
        UsageError: if no six fields mean the same.
    """
    shifted = set()
    for minutes in sorted(_differences(zone, controller, start, end or start + _HORIZON)):
        try:
            shifted.add(shift(cron, minutes))
        except ValueError as error:
            raise _inexact(cron, zone, controller, str(error)) from error
    if len(shifted) > 1:
        raise _inexact(cron, zone, controller, "their difference changes with summer time")
    return f"0 {shifted.pop()}"


def from_kfp(text: str) -> Cron:
    """Reads KFP's six fields, in the controller's zone.

    Raises:
        UsageError: if they have no equal in five: other seconds than 0, or what `parse_cron` refuses.
    """
    seconds, _, rest = text.strip().partition(" ")
    if seconds != "0":
        raise UsageError(f"cron {text!r}", "expected six fields that begin with second 0", text)
    return parse_cron(rest)


def shift(cron: Cron, minutes: int) -> Cron:
    """Returns the schedule whose times are ``minutes`` earlier (later, if negative).

    Raises:
        ValueError: if it has no exact form in five fields.
    """
    moved: dict[int, dict[int, set[int]]] = {}
    for hour in cron.hours:
        for minute in cron.minutes:
            carry, rest = divmod(hour * 60 + minute - minutes, 24 * 60)
            moved.setdefault(carry, {}).setdefault(rest // 60, set()).add(rest % 60)
    free = cron.days is None and cron.weekdays is None and len(cron.months) == 12
    if free:  # then it matters not on which day
        merged: dict[int, set[int]] = {}
        for hours in moved.values():
            for hour, own in hours.items():
                merged.setdefault(hour, set()).update(own)
        moved = {0: merged}
    if len(moved) > 1:
        raise ValueError("some of its times would fall on the day before or after, others not")
    ((carry, hours),) = moved.items()
    kinds = {frozenset(own) for own in hours.values()}
    if len(kinds) > 1:
        raise ValueError("its hours would not have the same minutes")
    days, weekdays = cron.days, cron.weekdays
    if carry:
        if len(cron.months) < 12 and days is None:
            raise ValueError("its months would begin on another day")
        if days is not None:
            if not days <= set(_SAFE_DAYS[carry]):
                raise ValueError("a day of month would fall into another month")
            if len(cron.months) < 12 and weekdays is not None:
                raise ValueError("its months would begin on another day")
            days = frozenset(day + carry for day in days)
        weekdays = weekdays and frozenset((day + carry) % 7 for day in weekdays)
    return Cron(kinds.pop(), frozenset(hours), days, cron.months, weekdays)


def _differences(zone: ZoneInfo, controller: ZoneInfo, start: datetime, end: datetime) -> set[int]:
    """Returns by how many minutes ``zone`` is ahead of ``controller`` between two times."""
    found, moment = set(), start
    while moment <= max(start, end):
        ahead = (moment.astimezone(zone).utcoffset() or timedelta()) - (
            moment.astimezone(controller).utcoffset() or timedelta()
        )
        found.add(int(ahead.total_seconds()) // 60)
        moment += timedelta(hours=12)
    return found


def _inexact(cron: Cron, zone: ZoneInfo, controller: ZoneInfo, reason: str) -> UsageError:
    return UsageError(
        f"cron {str(cron)!r} in {zone.key}",
        f"cannot be said exactly to KFP, whose controller reads every schedule in {controller.key}",
        reason,
        f"give the schedule in {controller.key}; or set cronScheduleTimezone in KFP's pipeline-install-config to "
        f"{zone.key}, which concerns all its schedules, and `kubernetes.cron_time_zone` to the same",
    )


def _is_any(text: str) -> bool:
    return text in ("*", "*/1")


def _values(text: str, field: _Field, where: str) -> Values:
    found: set[int] = set()
    for part in text.split(","):
        found.update(_part(part, field, where))
    return frozenset(found)


def _part(text: str, field: _Field, where: str) -> Iterable[int]:
    name = r"[a-z]{3}|\d{1,2}"
    match = re.fullmatch(rf"(?:(\*)|({name})(?:-({name}))?)(?:/(\d{{1,2}}))?", text.lower())
    if match is None:
        what = "expected numbers, ranges a-b, steps */n or a-b/n, and * for all, separated by commas"
        raise UsageError(where, f"{field.name}: {what}", repr(text))
    star, first, last, step_text = match.groups()
    high = 6 if star and field.names == _WEEKDAYS else field.high
    begin = field.low if star else _number(first, field, where)
    until = high if star or (step_text and last is None) else _number(last or first, field, where)
    if begin > until:
        raise UsageError(where, f"{field.name}: a range must begin before it ends", repr(text))
    step = int(step_text or 1)
    if step == 0 or step > field.high:
        raise UsageError(where, f"{field.name}: a step must be from 1 to {field.high}", repr(text))
    return range(begin, until + 1, step)


def _number(text: str, field: _Field, where: str) -> int:
    if text in field.names:
        return field.names.index(text) + (1 if field.names == _MONTHS else 0)
    if not text.isdecimal() or not field.low <= int(text) <= field.high:
        names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
        raise UsageError(where, f"{field.name}: expected {field.low} to {field.high}{names}", repr(text))
    return int(text)


def _stepped(values: Values, low: int, high: int) -> str:
    """Returns values of a field whose star means no more than all of them."""
    ordered = sorted(values)
    if len(ordered) == high - low + 1:
        return "*"
    step = ordered[1] - ordered[0] if len(ordered) > 2 else 0
    return f"*/{step}" if step > 1 and ordered == list(range(low, high + 1, step)) else _listed(values)


def _listed(values: Values | None) -> str:
    if values is None:
        return "*"
    ordered, parts, i = sorted(values), [], 0
    while i < len(ordered):
        j = i
        while j + 1 < len(ordered) and ordered[j + 1] == ordered[j] + 1:
            j += 1
        first, last = ordered[i], ordered[j]
        parts += [f"{first}-{last}"] if j - i > 1 else [str(v) for v in ordered[i : j + 1]]
        i = j + 1
    return ",".join(parts)
