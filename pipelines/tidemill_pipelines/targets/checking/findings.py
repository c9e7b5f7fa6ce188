"""What a check is and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tidemill_pipelines.targets.checking.subject import Subject
from tidemill_pipelines.targets.config import KINDS, Kind

Severity = Literal["error", "warning", "note"]
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")
"""``error``: the backend refuses it, or no run can succeed. ``warning``: it is silently changed, ignored or wasteful.
``note``: nothing is wrong, and something outside the package must be there."""


@dataclass(frozen=True)
class Told:
    """One thing that a check found.

    Attributes:
        task: as people see it; None for the package as a whole.
        what: what is so, in terms of the package.
        cure: what to do about it.
    """

    task: str | None
    what: str
    cure: str


@dataclass(frozen=True)
class Finding:
    """What a check found, by the check's own id and severity."""

    id: str
    severity: Severity
    task: str | None
    what: str
    cure: str


Look = Callable[[Subject], Iterable[Told]]


@dataclass(frozen=True)
class Check:
    """A question asked of every package.

    Attributes:
        id: stable; scripts may name it.
        kinds: the backends that it concerns.
        tells: for the table: when it fires, and why that matters there.
    """

    id: str
    severity: Severity
    kinds: tuple[Kind, ...]
    tells: str
    look: Look

    def findings(self, subject: Subject) -> Iterator[Finding]:
        """Yields what it finds; nothing on a backend that it doesn't concern."""
        if subject.target.kind in self.kinds:
            for told in self.look(subject):
                yield Finding(self.id, self.severity, told.task, told.what, told.cure)


def check(identity: str, severity: Severity, tells: str, on: Sequence[Kind] = KINDS) -> Callable[[Look], Check]:
    """Makes a check of a function."""

    def made(look: Look) -> Check:
        return Check(identity, severity, tuple(on), tells, look)

    return made
