"""Cron as KFP's server and controller read it: github.com/robfig/cron 1.2, whose default has seconds first.

Not the code under test: it reads what arrives on the wire, so that tests can say when a schedule would really run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_NAMES = {
    "month": ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    "weekday": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
_BOUNDS = ((0, 59, ""), (0, 59, ""), (0, 23, ""), (1, 31, ""), (1, 12, "month"), (0, 6, "weekday"))
_DESCRIPTORS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}


@dataclass(frozen=True)
class Schedule:
    """Six sets of values: second, minute, hour, day of month, month, day of week; and which days were stars."""

    fields: tuple[frozenset[int], ...]
    star_day: bool
    star_weekday: bool

    def fires(self, local: datetime) -> bool:
        values = (local.second, local.minute, local.hour, local.day, local.month, local.isoweekday() % 7)
        fits = [value in field for value, field in zip(values, self.fields, strict=True)]
        either = not (self.star_day or self.star_weekday)
        day = fits[3] or fits[5] if either else fits[3] and fits[5]
        return fits[0] and fits[1] and fits[2] and fits[4] and day

    def times(self, begin: datetime, end: datetime, zone: str = "UTC") -> Iterator[datetime]:
        """Yields, in UTC, the whole minutes of an interval at which it fires; its seconds must be 0."""
        assert self.fields[0] == {0}
        where, moment = ZoneInfo(zone), begin.astimezone(UTC).replace(second=0, microsecond=0)
        while moment < end:
            if moment >= begin and self.fires(moment.astimezone(where)):
                yield moment
            moment += timedelta(minutes=1)


def parse(spec: str) -> Schedule:
    """Reads five or six fields (the sixth, the day of week, may be left out) or a descriptor.

    Raises:
        ValueError: in the library's words.
    """
    if not spec:
        raise ValueError("Empty spec string")
    if spec.startswith("@"):
        if spec not in _DESCRIPTORS:
            raise ValueError(f"Unrecognized descriptor: {spec}")
        spec = _DESCRIPTORS[spec]
    fields = spec.split()
    if not 5 <= len(fields) <= 6:
        raise ValueError(f"Expected 5 to 6 fields, found {len(fields)}: {spec}")
    fields += ["*"] * (6 - len(fields))
    sets = tuple(_field(text, *bounds) for text, bounds in zip(fields, _BOUNDS, strict=True))
    return Schedule(sets, *(any(part[:1] in ("*", "?") for part in fields[i].split(",")) for i in (3, 5)))


def _field(text: str, low: int, high: int, names: str) -> frozenset[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        span, *steps = part.split("/")
        ends = span.split("-")
        if len(steps) > 1:
            raise ValueError(f"Too many slashes: {part}")
        if len(ends) > 2:
            raise ValueError(f"Too many hyphens: {part}")
        first, last = (low, high) if ends[0] in ("*", "?") else (_number(ends[0], names), _number(ends[-1], names))
        if steps and len(ends) == 1:
            last = high
        step = _number(steps[0], "") if steps else 1
        if first < low:
            raise ValueError(f"Beginning of range ({first}) below minimum ({low}): {part}")
        if last > high:
            raise ValueError(f"End of range ({last}) above maximum ({high}): {part}")
        if first > last:
            raise ValueError(f"Beginning of range ({first}) beyond end of range ({last}): {part}")
        if step == 0:
            raise ValueError(f"Step of range should be a positive number: {part}")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, names: str) -> int:
    if names and text.lower() in _NAMES[names]:
        return _NAMES[names].index(text.lower()) + (1 if names == "month" else 0)
    if not text.isdecimal():
        raise ValueError(f"Failed to parse int from {text}: strconv.Atoi: parsing {text!r}: invalid syntax")
    return int(text)
