"""What is wrong with the data is written with its reasons, blocks where it must, and never raises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill.decisions import read_decision
from tidemill.errors import DataError
from tidemill.gates import DataGate
from tidemill.validate.statistics import read_statistics

UNEXPECTED = "ENUM_TYPE_UNEXPECTED_STRING_VALUES"


def put(name: str, values: Any, split: str | None = None) -> Any:
    """Returns a change that replaces a column, in one split or in all."""

    def change(current: str, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        if split not in (None, current):
            return columns
        rows = len(columns["age"])
        return {**columns, name: values(rows) if callable(values) else values}

    return change


def nulls(kind: pa.DataType) -> Any:
    return lambda rows: pa.nulls(rows, kind)


def repeated(value: Any) -> Any:
    return lambda rows: pa.array([value] * rows)


@pytest.fixture
def curated(make_loans: Any) -> str:
    """The schema that a first run infers."""
    first = make_loans(name="first")
    first.validate()
    return first.schema.read_text()


def edited(schema: str, column: str, edit: Any) -> str:
    parsed = text_format.Parse(schema, schema_pb2.Schema())
    edit(next(feature for feature in parsed.feature if feature.name == column))
    return text_format.MessageToString(parsed)


def test_good_data_passes_and_leaves_all_artefacts(make_loans: Any) -> None:
    loans = make_loans(problem={"sensitive": ["sex", "race", ["sex", "race"]]})
    report = loans.validate()
    assert report.passed
    assert report.refusals == ()
    assert report.warnings == ()
    assert (report.schema, report.compared, report.columns, report.slices) == ("inferred", False, 10, 11)
    assert report.rows == {"train": 800, "eval": 200, "test": 200}
    decision = read_decision(loans.directory / "anomalies")
    assert decision.gate == "data"
    assert [c.name for c in decision.checks] == [
        "min_rows",
        "max_quarantined",
        "empty_split",
        "columns",
        "schema",
        "skew",
    ]
    for split in ("train", "eval", "test"):
        assert read_statistics(loans.statistics / split / "stats.pb").datasets[0].num_examples == report.rows[split]
        slices = {path.stem for path in (loans.statistics / split / "slices").iterdir()}
        assert {"sex=F", "race=c", "sex=M,race=a"} <= slices


def test_a_second_validation_writes_the_same_bytes(make_loans: Any) -> None:
    loans = make_loans()
    written = []
    for _ in range(2):
        loans.validate()
        files = [p for p in loans.directory.rglob("*") if p.is_file()]
        written.append({p.relative_to(loans.directory): p.read_bytes() for p in files})
    assert written[0] == written[1]


def test_a_category_that_the_curated_schema_does_not_know_blocks_training(make_loans: Any, curated: str) -> None:
    loans = make_loans(put("city", repeated("Paris"), "train"), schema=curated)
    report = loans.validate()
    assert not report.passed
    (check,) = loans.failed(f"schema.{UNEXPECTED.lower()}")
    assert check["blocking"]
    assert check["message"].startswith("`city` in train: Examples contain values missing from the schema: Paris")
    assert "tidemill schema accept" in check["message"]
    assert f"gates.data.allow: [city:{UNEXPECTED}]" in check["message"]


@pytest.mark.parametrize("allowed", ["city", f"city:{UNEXPECTED}"])
def test_what_the_problem_allows_warns_and_does_not_block(make_loans: Any, curated: str, allowed: str) -> None:
    gates = {"data": {"min_rows": 50, "allow": [allowed]}}
    loans = make_loans(put("city", repeated("Paris")), problem={"gates": gates}, schema=curated)
    report = loans.validate()
    assert report.passed
    assert any("Paris" in warning for warning in report.warnings)


def test_allowing_one_anomaly_of_a_column_allows_no_other(make_loans: Any, curated: str) -> None:
    gates = {"data": {"min_rows": 50, "allow": ["city:SCHEMA_MISSING_COLUMN"]}}
    assert not make_loans(put("city", repeated("Paris")), {"gates": gates}, curated).validate().passed


def test_an_eval_category_that_training_lacks_warns_when_the_schema_is_inferred(make_loans: Any) -> None:
    def one_odd(rows: int) -> pa.Array:
        return pa.array(["Paris"] + ["Ghent", "Bruges", "Antwerp"] * rows)[:rows]

    loans = make_loans(put("city", one_odd, "eval"))
    report = loans.validate()
    assert report.passed
    (check,) = loans.failed(f"schema.{UNEXPECTED.lower()}")
    assert not check["blocking"]


def test_a_column_of_another_type_than_the_curated_schemas_blocks(make_loans: Any, curated: str) -> None:
    loans = make_loans(put("age", repeated("forty")), schema=curated)
    assert not loans.validate().passed
    assert "UNEXPECTED_DATA_TYPE" in {anomaly["type"] for anomaly in loans.anomalies["anomalies"]}


def test_a_column_that_the_curated_schema_demands_and_the_data_lacks_blocks(make_loans: Any, curated: str) -> None:
    def dropped(_: str, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        return {name: array for name, array in columns.items() if name != "sex"}

    loans = make_loans(dropped, {"sensitive": []}, curated)
    assert not loans.validate().passed
    (check, *_) = loans.failed("schema.schema_missing_column")
    assert "`sex` in train" in check["message"]


@pytest.mark.parametrize(("column", "blocks"), [("colour", False), ("income", True)])
def test_a_column_new_to_the_curated_schema_blocks_if_the_model_reads_it(
    make_loans: Any, curated: str, column: str, blocks: bool
) -> None:
    schema = text_format.Parse(curated, schema_pb2.Schema())
    kept = [feature for feature in schema.feature if feature.name != column]
    del schema.feature[:]
    schema.feature.extend(kept)
    change = put("colour", repeated("red")) if column == "colour" else put("age", lambda rows: pa.array(range(rows)))
    loans = make_loans(change, schema=text_format.MessageToString(schema))
    assert loans.validate().passed is not blocks
    assert {check["blocking"] for check in loans.failed("schema.schema_new_column")} == {blocks}


def test_a_schema_that_demands_the_label_of_callers_is_found_before_they_call(make_loans: Any, curated: str) -> None:
    demanding = edited(curated, "repaid", lambda feature: feature.ClearField("not_in_environment"))
    loans = make_loans(schema=demanding)
    assert not loans.validate().passed
    (check,) = loans.failed("schema.schema_missing_column")
    assert "`repaid` in the SERVING environment" in check["message"]
    assert 'not_in_environment: "SERVING"' in check["message"]


def test_a_curated_schema_without_environments_gets_them(make_loans: Any, curated: str) -> None:
    plain = text_format.Parse(curated, schema_pb2.Schema())
    del plain.default_environment[:]
    for feature in plain.feature:
        feature.ClearField("not_in_environment")
    loans = make_loans(schema=text_format.MessageToString(plain))
    assert loans.validate().passed
    used = text_format.Parse(loans.schema.read_text(), schema_pb2.Schema())
    assert list(used.default_environment) == ["TRAINING", "SERVING"]
    assert [f.name for f in used.feature if not f.not_in_environment] == [
        "age", "applied_at", "city", "income", "note", "term",
    ]  # fmt: skip


def test_a_curated_schema_that_is_no_schema_is_the_users_fault(make_loans: Any) -> None:
    with pytest.raises(DataError, match=r"schema\.pbtxt: is not a schema in text form"):
        make_loans(schema="features: [age]").validate()


def test_a_curated_schema_can_ask_for_rows(make_loans: Any, curated: str) -> None:
    loans = make_loans(schema=f"{curated}dataset_constraints {{ min_examples_count: 100000 }}")
    assert not loans.validate().passed
    messages = [check["message"] for check in loans.failed("schema.dataset_low_num_examples")]
    assert len(messages) == 3
    assert "gates.data.allow: [dataset:DATASET_LOW_NUM_EXAMPLES]" in messages[0]


def test_too_few_rows_block(make_loans: Any) -> None:
    loans = make_loans(rows={"train": 30, "eval": 8, "test": 8})
    assert not loans.validate().passed
    (check,) = loans.failed("min_rows")
    assert (check["value"], check["limit"]) == (46, 50)


def test_too_many_unreadable_rows_block(make_loans: Any) -> None:
    loans = make_loans(quarantined=50)
    assert not loans.validate().passed
    (check,) = loans.failed("max_quarantined")
    assert check["value"] == pytest.approx(50 / 1250)
    assert "quarantine/" in check["message"]


@pytest.mark.parametrize("split", ["train", "eval", "test"])
def test_an_empty_split_blocks_and_is_named(make_loans: Any, split: str) -> None:
    loans = make_loans(rows={"train": 300, "eval": 80, "test": 80, split: 0})
    assert not loans.validate().passed
    (check,) = loans.failed("empty_split")
    assert f"No rows in {split}" in check["message"]


@pytest.mark.parametrize(
    ("column", "kind"), [("income", pa.float64()), ("city", pa.string()), ("term", pa.int64()), ("note", pa.string())]
)
def test_a_feature_without_any_value_blocks(make_loans: Any, column: str, kind: pa.DataType) -> None:
    loans = make_loans(put(column, nulls(kind)))
    assert not loans.validate().passed
    (check,) = loans.failed("all_null")
    assert check["blocking"]
    assert f"`{column}` has no value in any of the 800 training rows" in check["message"]


def test_a_feature_that_the_data_does_not_have_blocks(make_loans: Any) -> None:
    def dropped(_: str, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        return {name: array for name, array in columns.items() if name != "income"}

    loans = make_loans(dropped)
    assert not loans.validate().passed
    assert "`income`" in loans.failed("all_null")[0]["message"]


def test_a_column_without_any_value_that_nothing_reads_is_fine(make_loans: Any) -> None:
    assert make_loans(put("loan_id", nulls(pa.string()))).validate().passed


@pytest.mark.parametrize(("column", "value"), [("city", "Ghent"), ("age", 40), ("income", 1.5), ("term", 12)])
def test_a_constant_feature_warns(make_loans: Any, column: str, value: Any) -> None:
    loans = make_loans(put(column, repeated(value)))
    assert loans.validate().passed
    (check,) = loans.failed("constant")
    assert not check["blocking"]
    assert str(value) in check["message"]


def test_infinity_in_a_number_that_the_model_reads_blocks(make_loans: Any) -> None:
    loans = make_loans(put("income", lambda rows: pa.array([np.inf, *np.random.default_rng(rows).random(rows - 1)])))
    assert not loans.validate().passed
    assert [c["blocking"] for c in loans.failed("schema.float_type_has_inf")] == [True] * 3
    assert loans.summary["splits"]["train"]["features"]["income"]["max"] is None


def test_nan_in_a_number_that_the_model_reads_warns(make_loans: Any) -> None:
    loans = make_loans(put("income", lambda rows: pa.array([np.nan, *np.random.default_rng(rows).random(rows - 1)])))
    assert loans.validate().passed
    (check,) = loans.failed("nan")
    assert "`income` is NaN in 1 of 800 training rows" in check["message"]


def test_rows_without_a_label_block(make_loans: Any) -> None:
    loans = make_loans(put("repaid", lambda rows: pa.array(["yes", "no", None] * rows)[:rows], "train"))
    assert not loans.validate().passed
    (check,) = loans.failed("label_missing")
    assert "266 of 800 training rows have no `repaid`" in check["message"]


def test_a_label_column_that_is_not_there_blocks(make_loans: Any) -> None:
    def dropped(_: str, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        return {name: array for name, array in columns.items() if name != "repaid"}

    loans = make_loans(dropped)
    assert not loans.validate().passed
    assert loans.failed("label_missing")


def test_a_label_of_a_single_class_blocks(make_loans: Any) -> None:
    loans = make_loans(put("repaid", repeated("yes")))
    assert not loans.validate().passed
    (check,) = loans.failed("single_class")
    assert "`repaid` is yes in every training row" in check["message"]


def test_a_class_that_training_has_no_example_of_warns(make_loans: Any) -> None:
    loans = make_loans(
        problem={"task": "multiclass_classification", "label": {"column": "repaid"}}, classes=("no", "partly", "yes")
    )
    assert loans.validate().passed
    (check,) = loans.failed("class_without_examples")
    assert "'partly'" in check["message"]


def test_a_regression_label_is_described_as_a_quantity(make_loans: Any) -> None:
    features = {"age": "numeric", "city": "categorical"}
    loans = make_loans(problem={"task": "regression", "label": {"column": "income"}, "features": features}, classes=())
    report = loans.validate()
    assert not report.passed  # a tenth of the incomes are missing
    label = loans.summary["splits"]["train"]["label"]
    assert label.keys() == {"mean"}
    assert 20_000 < label["mean"] < 60_000


def test_skew_between_training_and_eval_blocks_and_names_the_value(make_loans: Any) -> None:
    mostly = lambda rows: pa.array((["Ghent"] * 9 + ["Bruges"]) * rows)[:rows]  # noqa: E731
    loans = make_loans(put("city", mostly, "eval"))
    assert not loans.validate().passed
    (check,) = loans.failed("skew")
    assert check["value"] > check["limit"]
    assert "`city` differs between training and eval: L-infinity distance" in check["message"]
    assert "'Ghent'" in check["message"]
    assert "gates.data.allow: [city:SKEW]" in check["message"]


def test_drift_from_the_last_released_run_blocks(make_loans: Any) -> None:
    released = make_loans(name="released")
    released.validate()
    richer = make_loans(
        put("income", lambda rows: pa.array(np.random.default_rng(3).lognormal(13, 1, rows))), name="now"
    )
    report = richer.validate(released.statistics)
    assert report.compared
    assert not report.passed
    assert [check["name"] for check in richer.anomalies["decision"]["checks"] if not check["passed"]] == ["drift"]
    assert "`income` differs between training and the last released run" in report.refusals[0]


def test_other_rows_of_the_same_kind_do_not_drift(make_loans: Any) -> None:
    released = make_loans(name="released")
    released.validate()
    again = make_loans(name="now", seed=7)
    report = again.validate(released.statistics)
    assert report.passed
    drift = {(entry["column"], entry["measure"]) for entry in again.anomalies["drift"]}
    assert ("income", "jensen_shannon") in drift
    assert ("city", "l_infinity") in drift
    assert ("note", "missing_share") in drift
    assert {column for column, _ in drift}.isdisjoint({"loan_id", "sex", "race"})


def test_a_gap_that_opened_since_the_last_release_is_drift(make_loans: Any) -> None:
    released = make_loans(name="released")
    released.validate()
    gap = lambda rows: pa.array(["a note", None] * rows)[:rows]  # noqa: E731
    holed = make_loans(put("note", gap), name="now")
    assert not holed.validate(released.statistics).passed
    assert "missing shares" in holed.failed("drift")[0]["message"]


def test_the_curated_schemas_comparators_set_a_columns_own_limit(make_loans: Any, curated: str) -> None:
    def loosen(feature: schema_pb2.Feature) -> None:
        feature.skew_comparator.infinity_norm.threshold = 0.9

    mostly = lambda rows: pa.array((["Ghent"] * 9 + ["Bruges"]) * rows)[:rows]  # noqa: E731
    loans = make_loans(put("city", mostly, "eval"), schema=edited(curated, "city", loosen))
    assert loans.validate().passed
    limits = {e["column"]: e["limit"] for e in loans.anomalies["skew"] if e["measure"] == "l_infinity"}
    assert (limits["city"], limits["term"]) == (0.9, DataGate().max_skew)
