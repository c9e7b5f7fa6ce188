"""A decision passes when no blocking check failed, and survives being written."""

from __future__ import annotations

import json

import pytest

from tidemill.decisions import EVIDENCE_FILES, Check, Decision, read_decision

PASSED = Check("auc", True, ">= 0.9", "0.93", "auc is 0.93", 0.93, 0.9)
FAILED = Check("auc", False, ">= 0.9", "0.87", "auc is too low", 0.87, 0.9, {"sex": "Female"})
WARNING = Check("drift", False, "<= 0.3", "0.4", "age drifts", blocking=False)


def test_only_blocking_failures_refuse():
    assert Decision("model", (PASSED, WARNING)).passed
    assert Decision("model", (PASSED, WARNING)).warnings == (WARNING,)
    refused = Decision("model", (PASSED, FAILED, WARNING))
    assert not refused.passed
    assert refused.refusals == (FAILED,)
    assert Decision("model", ()).passed


@pytest.mark.parametrize("name", EVIDENCE_FILES)
def test_a_decision_reads_back_from_its_evidence(tmp_path, name):
    decision = Decision("model", (PASSED, FAILED, WARNING))
    (tmp_path / name).write_text(json.dumps({"decision": decision.to_json(), "more": 1}))
    assert read_decision(tmp_path) == decision
    assert json.loads((tmp_path / name).read_text())["decision"]["passed"] is False


def test_a_directory_without_evidence_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds none of anomalies\.json, blessing\.json, rehearsal\.json"):
        read_decision(tmp_path)
