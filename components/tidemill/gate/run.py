"""Judges one evidence artefact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidemill.decisions import read_decision
from tidemill.errors import GateRefused


@dataclass(frozen=True)
class GateReport:
    """What the gate saw when it let the run pass."""

    gate: str
    checks: int
    warnings: tuple[str, ...]


def run(evidence: str | Path) -> GateReport:
    """Lets the run pass, or stops it.

    Raises:
        GateRefused: with one line for each blocking check that failed.
    """
    decision = read_decision(Path(evidence))
    for warning in decision.warnings:
        print(f"warning: {warning.message}")
    if not decision.passed:
        reasons = "\n".join(f"  - {check.message}" for check in decision.refusals)
        raise GateRefused(
            f"{decision.gate} gate", f"{len(decision.refusals)} of {len(decision.checks)} checks failed\n{reasons}"
        )
    print(f"{decision.gate} gate: {len(decision.checks)} checks passed")
    return GateReport(decision.gate, len(decision.checks), tuple(check.message for check in decision.warnings))
