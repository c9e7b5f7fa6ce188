"""What a gate decides, and the machine-readable reasons for it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """One limit held against one value.

    Attributes:
        name: what was checked, such as ``auc`` or ``schema.unexpected_category``.
        passed: whether the limit holds.
        expected: the limit in words, such as ``>= 0.9``.
        got: the value in words, such as ``0.87 [0.85, 0.89]``.
        message: one sentence for people.
        value: the number behind ``got``, where there is one.
        limit: the number behind ``expected``, where there is one.
        slice: the slice, such as ``{"sex": "Female"}``; empty for the whole.
        blocking: a check that is not blocking is shown as a warning and stops nothing.
    """

    name: str
    passed: bool
    expected: str
    got: str
    message: str
    value: float | None = None
    limit: float | None = None
    slice: dict[str, str] = field(default_factory=dict)
    blocking: bool = True


@dataclass(frozen=True)
class Decision:
    """The outcome of a gate: it passes when no blocking check failed."""

    gate: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return not self.refusals

    @property
    def refusals(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.blocking and not check.passed)

    @property
    def warnings(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.blocking and not check.passed)

    def to_json(self) -> dict[str, Any]:
        """Returns what is stored under the key ``decision`` of an evidence file."""
        return {"gate": self.gate, "passed": self.passed, "checks": [asdict(check) for check in self.checks]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Decision:
        return cls(gate=value["gate"], checks=tuple(Check(**check) for check in value["checks"]))


# The evidence artefacts that a gate can judge, by the one file that each of them holds.
EVIDENCE_FILES = ("anomalies.json", "blessing.json", "rehearsal.json", "compression.json")


def read_decision(evidence: Path) -> Decision:
    """Reads the decision out of an evidence artefact (anomalies, blessing, rehearsal or compression).

    Raises:
        FileNotFoundError: if the artefact holds none of ``EVIDENCE_FILES``.
    """
    for name in EVIDENCE_FILES:
        if (evidence / name).is_file():
            return Decision.from_json(json.loads((evidence / name).read_text())["decision"])
    raise FileNotFoundError(f"{evidence} holds none of {', '.join(EVIDENCE_FILES)}")
