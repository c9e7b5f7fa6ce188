"""When a cron expression fires next, by trying minute after minute."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from vertex_world import Refusal

_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def parse(cron: str) -> tuple[list[set[int]], ZoneInfo]:
    """Returns the five fields as sets, and the time zone; refuses what isn't five fields in their ranges."""
    match = re.fullmatch(r"(?:(?:CRON_)?TZ=(\S+)\s+)?(.+)", cron.strip())
    zone = match.group(1) if match and match.group(1) else "UTC"
    parts = match.group(2).split() if match else []
    if zone not in available_timezones():
        raise Refusal("INVALID_ARGUMENT", f"Invalid cron '{cron}': unknown time zone '{zone}'.")
    if len(parts) != 5:
        raise Refusal("INVALID_ARGUMENT", f"Invalid cron '{cron}': expected exactly 5 fields, found {len(parts)}.")
    return [_field(cron, part, *limits) for part, limits in zip(parts, _RANGES, strict=True)], ZoneInfo(zone)


def _field(cron: str, text: str, least: int, most: int) -> set[int]:
    values: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\*|\d+(?:-(\d+))?)(?:/(\d+))?", part)
        if match is None:
            raise Refusal("INVALID_ARGUMENT", f"Invalid cron '{cron}': cannot read '{part}'.")
        begin = least if match.group(1) == "*" else int(match.group(1).split("-")[0])
        step = int(match.group(3) or 1)
        end = most if match.group(1) == "*" or (match.group(3) and not match.group(2)) else int(match.group(2) or begin)
        if not (least <= begin <= end <= most and step > 0):
            raise Refusal("INVALID_ARGUMENT", f"Invalid cron '{cron}': '{part}' is not within {least} to {most}.")
        values.update(range(begin, end + 1, step))
    return values


def next_time(cron: str, after: datetime) -> datetime | None:
    """Returns the first time after ``after``, or None if there is none within four years."""
    (minutes, hours, days, months, weekdays), zone = parse(cron)
    at = after.astimezone(zone).replace(second=0, microsecond=0) + timedelta(minutes=1)
    last = at + timedelta(days=4 * 366)
    weekdays = {day % 7 for day in weekdays}
    while at < last:
        if at.month not in months or at.day not in days or (at.isoweekday() % 7) not in weekdays:
            at = at.replace(hour=0, minute=0) + timedelta(days=1)
        elif at.hour not in hours:
            at = at.replace(minute=0) + timedelta(hours=1)
        elif at.minute not in minutes:
            at += timedelta(minutes=1)
        else:
            return at
    return None
