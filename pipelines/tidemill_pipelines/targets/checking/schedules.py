"""When a package is to be run again and again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from tidemill.errors import UsageError
from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject
from tidemill_pipelines.targets.config import time_zone
from tidemill_pipelines.targets.cron import parse_cron, to_kfp

_MOST_CONCURRENT: Final = 10


@check(
    "cron-seconds-first", "error", "The cron has six fields, as KFP's own has; tidemill's has five on every backend."
)
def cron_seconds_first(subject: Subject) -> Iterator[Told]:
    if subject.plan and len(fields := subject.plan.cron.split()) == 6:
        yield Told(
            None, f"the cron {subject.plan.cron!r} has six fields", f"leave out the seconds: {' '.join(fields[1:])!r}"
        )


@check("cron-invalid", "error", "The cron is none: five fields, minute first.")
def cron_invalid(subject: Subject) -> Iterator[Told]:
    if subject.plan and len(subject.plan.cron.split()) != 6:
        try:
            parse_cron(subject.plan.cron)
        except UsageError as error:
            yield Told(None, str(error).partition("\n")[0], error.remedy or "every day at 3: 0 3 * * *")


@check("time-zone-unknown", "error", "The time zone is none of the IANA database.")
def time_zone_unknown(subject: Subject) -> Iterator[Told]:
    if subject.plan:
        try:
            time_zone(subject.plan.time_zone)
        except UsageError:
            yield Told(None, f"there is no time zone {subject.plan.time_zone}", "write Europe/Berlin, or UTC")


@check(
    "cron-zone",
    "error",
    "KFP reads all schedules in one time zone, and this one can't be said exactly in it.",
    ["kubernetes"],
)
def cron_zone(subject: Subject) -> Iterator[Told]:
    plan = subject.plan
    if plan is None:
        return
    try:
        cron, zone = parse_cron(plan.cron), time_zone(plan.time_zone)
        controller = time_zone(subject.target.on_kubernetes.cron_time_zone)
    except UsageError:
        return  # which other checks tell
    try:
        to_kfp(cron, zone, controller, plan.start or datetime.now(UTC), plan.end)
    except UsageError as error:
        yield Told(None, str(error).partition("\n")[0], error.remedy or "use --time-zone UTC")


@check("concurrency", "error", "KFP takes from 1 to 10 runs of a schedule at a time.", ["kubernetes"])
def concurrency(subject: Subject) -> Iterator[Told]:
    if subject.plan and not 1 <= subject.plan.max_concurrent <= _MOST_CONCURRENT:
        number = subject.plan.max_concurrent
        yield Told(None, f"{number} runs may be at work at a time", f"use 1 to {_MOST_CONCURRENT}")


CHECKS: Final = (cron_seconds_first, cron_invalid, time_zone_unknown, cron_zone, concurrency)
