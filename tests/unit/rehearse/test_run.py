"""A model that can't answer, differs or is too slow is refused; nothing of it raises."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.artifacts import ExamplesManifest, ModelManifest
from tidemill.decisions import Check, Decision, read_decision
from tidemill.errors import DataError
from tidemill.rehearse import run as module
from tidemill.rehearse.run import RehearsalReport, run
from tidemill.rehearse.server import NotServing, RehearsalServer, rehearsal_server


@pytest.fixture(scope="module")
def shared(artefacts: Any) -> Iterator[RehearsalServer]:
    """One real server for the tests that need one to be there but don't start it."""
    with rehearsal_server(artefacts.model) as server:
        yield server


@pytest.fixture
def started(shared: RehearsalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has rehearsals use the shared server."""

    @contextlib.contextmanager
    def use(_: Path) -> Iterator[RehearsalServer]:
        yield shared

    monkeypatch.setattr(module, "rehearsal_server", use)


def rehearse(artefacts: Any, target: Path, **changed: Path) -> tuple[RehearsalReport, Decision, dict[str, Any]]:
    inputs = {name: getattr(artefacts, name) for name in ("bundle", "examples", "model", "predictions")} | changed
    report = run(*(str(inputs[name]) for name in ("bundle", "examples", "model", "predictions")), str(target))
    return report, read_decision(target), json.loads((target / "rehearsal.json").read_text())


def failed(decision: Decision) -> dict[str, Check]:
    return {check.name: check for check in decision.refusals}


def test_a_good_model_passes_and_leaves_its_evidence(artefacts: Any, tmp_path: Path, toy: Any) -> None:
    report, decision, evidence = rehearse(artefacts, tmp_path / "rehearsal")
    assert decision.passed, decision.refusals
    assert report.passed
    assert {check.name for check in decision.checks} == {
        "serves",
        "answers.single",
        "answers.batched",
        "difference",
        "unusual.all_null",
        "unusual.all_left_out",
        "unusual.unseen_category",
        "malformed.wrong_type",
        "malformed.unknown_field",
        "malformed.not_a_list",
        "malformed.no_instances",
        "p99_ms",
    }
    assert 40 <= report.rows <= 43
    assert report.max_difference is not None
    assert report.max_difference < 1e-5
    assert evidence["challenger"] == ModelManifest.read(artefacts.model).digest
    assert evidence["startup_s"] > 0
    assert evidence["p50_ms"] <= evidence["p99_ms"]
    assert sum(b["requests"] for b in evidence["latencies"]["histogram"]) == report.rows
    assert "one client" in evidence["latencies"]["method"]
    assert evidence["budget"] == {"p50_ms": None, "p99_ms": 250.0}
    sample = json.loads((tmp_path / "rehearsal" / "sample.json").read_text())
    assert None not in sample["instance"].values()
    assert sample["prediction"]["probability"] == pytest.approx(toy.probability(sample["instance"], 0.0), abs=1e-6)


def test_a_model_that_does_not_load_fails_with_what_the_server_said(artefacts: Any, tmp_path: Path) -> None:
    broken = tmp_path / "model"
    shutil.copytree(artefacts.model, broken)
    (broken / "saved_model" / "saved_model.pb").write_bytes(b"broken")
    report, decision, _ = rehearse(artefacts, tmp_path / "rehearsal", model=broken)
    assert (report.passed, report.p99_ms, report.max_difference) == (False, None, None)
    assert list(failed(decision)) == ["serves"]
    message = decision.refusals[0].message
    assert message.startswith(
        "The model is not served: it ended with exit code 4: model/saved_model: the SavedModel cannot"
    )
    assert "\n" not in message
    assert not (tmp_path / "rehearsal" / "sample.json").exists()


@pytest.mark.usefixtures("started")
def test_a_served_prediction_that_differs_is_refused(artefacts: Any, tmp_path: Path) -> None:
    shifted = tmp_path / "predictions"
    shifted.mkdir()
    table = pq.read_table(artefacts.predictions / "part-00000.parquet")
    numbers = table["probability"].to_pylist()
    numbers[0] += 0.01
    pq.write_table(table.set_column(1, "probability", pa.array(numbers)), shifted / "part-00000.parquet")
    report, decision, _ = rehearse(artefacts, tmp_path / "rehearsal", predictions=shifted)
    check = failed(decision)["difference"]
    assert "test row 0 differ by 0.01" in check.message
    assert report.max_difference == pytest.approx(0.01, abs=1e-6)
    assert list(failed(decision)) == ["difference"]


@pytest.mark.usefixtures("started")
def test_rows_without_an_offline_prediction_are_refused(artefacts: Any, tmp_path: Path) -> None:
    fewer = tmp_path / "predictions"
    fewer.mkdir()
    table = pq.read_table(artefacts.predictions / "part-00000.parquet")
    pq.write_table(table.slice(0, 60), fewer / "part-00000.parquet")
    _, decision, _ = rehearse(artefacts, tmp_path / "rehearsal", predictions=fewer)
    assert "rows have no offline prediction" in failed(decision)["offline"].message
    shutil.rmtree(fewer)
    _, decision, evidence = rehearse(artefacts, tmp_path / "rehearsal", predictions=fewer)
    assert "offline" in failed(decision)
    assert evidence["max_difference"] is None


@pytest.mark.usefixtures("started")
def test_a_model_that_is_too_slow_is_refused(artefacts: Any, tmp_path: Path) -> None:
    bundle = artefacts.bundle_with(p50_ms="0.001", p99_ms="0.002")
    _, decision, evidence = rehearse(artefacts, tmp_path / "rehearsal", bundle=bundle)
    assert set(failed(decision)) == {"p50_ms", "p99_ms"}
    assert failed(decision)["p99_ms"].limit == 0.002
    assert evidence["latencies"]["rounds"] == 3


@pytest.mark.usefixtures("started")
def test_a_model_that_takes_other_features_than_the_data_has_is_refused(artefacts: Any, tmp_path: Path) -> None:
    other = tmp_path / "model"
    shutil.copytree(artefacts.model, other)
    manifest = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**manifest, "inputs": {"age": "float32", "job": "int64"}}))
    examples = tmp_path / "examples"
    (examples / "test").mkdir(parents=True)
    pq.write_table(pa.table({"age": [1.0], "job": [3]}), examples / "test" / "part-0.parquet")
    ExamplesManifest({"test": 1}, {}, (), {}).write(examples)
    _, decision, _ = rehearse(artefacts, tmp_path / "rehearsal", model=other, examples=examples)
    check = failed(decision)["answers.single"]
    assert "status 400" in check.message
    assert "instances[0].job: expected a string" in check.message


@pytest.mark.usefixtures("started")
def test_rows_that_json_cannot_hold_are_left_out_with_a_warning(artefacts: Any, tmp_path: Path) -> None:
    examples = tmp_path / "examples"
    (examples / "test").mkdir(parents=True)
    path = examples / "test" / "part-0.parquet"
    pq.write_table(pa.table({"age": [1.0, float("inf")], "hours": [1, 2], "job": ["a", "b"]}), path)
    ExamplesManifest({"test": 2}, {}, (), {}).write(examples)
    report, decision, _ = rehearse(artefacts, tmp_path / "rehearsal", examples=examples)
    assert report.rows == 1
    assert [warning.name for warning in decision.warnings] == ["representable"]
    pq.write_table(pa.table({"age": [float("inf")] * 2, "hours": [1, 2], "job": ["a", "b"]}), path)
    with pytest.raises(DataError, match="no row of the test split"):
        rehearse(artefacts, tmp_path / "rehearsal", examples=examples)


@pytest.mark.usefixtures("started")
def test_a_server_that_dies_in_the_middle_fails_a_check(
    artefacts: Any, tmp_path: Path, shared: RehearsalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reset(path: str, value: Any) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(shared.client, "post", reset)
    report, decision, _ = rehearse(artefacts, tmp_path / "rehearsal")
    assert not report.passed
    assert "ConnectionResetError instead of an answer" in failed(decision)["serves"].message


def test_a_server_that_never_becomes_ready_is_given_up(artefacts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.rehearse.server._START_TIMEOUT_S", 0.0)
    with pytest.raises(NotServing, match="not ready within 0 s"), rehearsal_server(artefacts.model):
        pass
