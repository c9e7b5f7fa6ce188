"""The gate turns a decision into a stop, with the reasons."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.decisions import Check, Decision
from tidemill.errors import GateRefused
from tidemill.files import write_json
from tidemill.gate.run import GateReport, run


def evidence(directory: Path, *checks: Check) -> Path:
    write_json(directory / "blessing.json", {"decision": Decision("model", checks).to_json()})
    return directory


PASSED = Check("auc", True, ">= 0.9", "0.93", "auc is 0.93")
LOW = Check("auc", False, ">= 0.9", "0.87", "auc is 0.87 and must be at least 0.9")
SLOW = Check("p99", False, "<= 250", "300", "p99 is 300 ms")
DRIFTS = Check("drift", False, "<= 0.3", "0.4", "age drifts", blocking=False)


def test_it_lets_a_run_pass_and_shows_the_warnings(tmp_path, capsys):
    assert run(evidence(tmp_path, PASSED, DRIFTS)) == GateReport("model", 2, ("age drifts",))
    assert capsys.readouterr().out == "warning: age drifts\nmodel gate: 2 checks passed\n"


def test_it_stops_a_run_with_every_reason(tmp_path):
    with pytest.raises(GateRefused) as caught:
        run(str(evidence(tmp_path, PASSED, LOW, SLOW, DRIFTS)))
    assert str(caught.value) == (
        "model gate: 2 of 4 checks failed\n  - auc is 0.87 and must be at least 0.9\n  - p99 is 300 ms"
    )


def test_a_missing_artefact_is_no_permission(tmp_path):
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "nowhere")
