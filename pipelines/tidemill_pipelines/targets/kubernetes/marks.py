"""What tidemill writes into the descriptions of runs and schedules, KFP having no labels or request ids for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

_PREFIX: Final = "tidemill "


@dataclass(frozen=True)
class RunMark:
    """What a run's description says.

    Attributes:
        request: the request id.
        key: what KFP's filter looks for: a digest of the id, free of what SQL's LIKE would read as a pattern.
        digest: of what was to run; None for a run that was submitted before marks had it.
    """

    request: str
    key: str
    labels: Mapping[str, str] = field(default_factory=dict)
    digest: str | None = None

    @classmethod
    def of(cls, request: str, labels: Mapping[str, str], digest: str) -> RunMark:
        return cls(request, f"request-{hashlib.sha256(request.encode()).hexdigest()[:32]}", dict(labels), digest)


@dataclass(frozen=True)
class ScheduleMark:
    """What a recurring run's description says.

    Attributes:
        cron: five fields, in ``time_zone``: KFP has six and one zone for all.
        digest: of all that makes the schedule what it is, to tell an equal request from another.
        replaces: id of the recurring run that this one takes the place of; the change ends with its deletion.
        active: whether it is to run once it has taken that place.
    """

    cron: str
    time_zone: str
    digest: str
    replaces: str | None = None
    active: bool = True


def written(mark: RunMark | ScheduleMark) -> str:
    """Returns a mark as the text of a description."""
    return _PREFIX + json.dumps(asdict(mark), sort_keys=True, separators=(",", ":"))


def run_mark(description: str | None) -> RunMark | None:
    """Returns the mark of a run's description, or None for what tidemill didn't write."""
    value = _read(description)
    if value is None or value.keys() - {"digest"} != {"request", "key", "labels"}:
        return None
    return RunMark(**value)


def schedule_mark(description: str | None) -> ScheduleMark | None:
    """Returns the mark of a recurring run's description, or None for what tidemill didn't write."""
    value = _read(description)
    return ScheduleMark(**value) if value is not None and "digest" in value else None


def _read(description: str | None) -> dict[str, Any] | None:
    if not description or not description.startswith(_PREFIX):
        return None
    try:
        value = json.loads(description.removeprefix(_PREFIX))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
