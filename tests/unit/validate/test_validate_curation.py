"""Changes to the curated schema: what the data calls for, what is safe, and what accepting writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill.errors import UsageError
from tidemill.runs import Artifact, TaskRecord
from tidemill.validate.curation import curate, main
from tidemill.validate.schema import domain_values

Columns = dict[str, pa.Array]


def record(loans: Any, schema: bool = True) -> Path:
    """Writes the record that a run of these loans leaves, and returns the run's directory."""
    run_dir = loans.directory / "run"
    outputs = {"statistics": Artifact(str(loans.statistics), "0")} if schema else {}
    TaskRecord("validate", "validation", "succeeded", "2026-01-01T00:00:00", outputs=outputs).write(run_dir)
    return run_dir  # type: ignore[no-any-return]


@pytest.fixture
def validated(make_loans: Any) -> Callable[..., tuple[Any, Path]]:
    """Validates loans as a run does; returns them and the run's directory."""

    def validate(**options: Any) -> tuple[Any, Path]:
        loans = make_loans(**options)
        loans.validate()
        return loans, record(loans)

    return validate


@pytest.fixture
def problem_dir(validated: Any) -> Path:
    """A problem whose curated schema was accepted from a first run."""
    loans, run_dir = validated(name="first")
    curate(loans.directory / "problem", run_dir, write=True)
    return loans.directory / "problem"  # type: ignore[no-any-return]


def edit(problem_dir: Path, column: str, change: Callable[[schema_pb2.Feature], None]) -> None:
    path = problem_dir / "schema.pbtxt"
    schema = text_format.Parse(path.read_text(), schema_pb2.Schema())
    change(next(feature for feature in schema.feature if feature.name == column))
    path.write_text(text_format.MessageToString(schema))


def read(problem_dir: Path) -> dict[str, schema_pb2.Feature]:
    schema = text_format.Parse((problem_dir / "schema.pbtxt").read_text(), schema_pb2.Schema())
    return {feature.name: feature for feature in schema.feature}


def changes(problem_dir: Path, run_dir: Path) -> list[tuple[str, str, str]]:
    found = curate(problem_dir, run_dir, write=False)["changes"]
    return [(change["column"], change["kind"], change["class"]) for change in found]


def with_column(name: str, make: Callable[[int], pa.Array], split: str | None = None) -> Any:
    def change(current: str, columns: Columns) -> Columns:
        return {**columns, name: make(len(columns["age"]))} if split in (None, current) else columns

    return change


def test_without_a_curated_schema_the_inferred_one_is_proposed_and_accepted(validated: Any) -> None:
    loans, run_dir = validated()
    problem_dir = loans.directory / "problem"
    proposed = curate(problem_dir, run_dir, write=False)
    assert not proposed["curated"]
    assert not proposed["written"]
    assert not (problem_dir / "schema.pbtxt").exists()
    assert {(c["kind"], c["class"]) for c in proposed["changes"]} == {("column_new", "safe")}
    assert curate(problem_dir, run_dir, write=True)["written"]
    accepted = read(problem_dir)
    assert accepted.keys() == {c["column"] for c in proposed["changes"]}
    assert changes(problem_dir, run_dir) == []


def test_what_was_accepted_lets_the_same_data_pass(validated: Any, make_loans: Any) -> None:
    """The evaluation split has a town and gaps that training hasn't: a curated schema covers all splits."""
    odd = with_column("city", lambda n: pa.array(["Paris", "Ghent", "Bruges", "Antwerp"] + ["Ghent"] * n)[:n], "eval")
    holed = with_column("note", lambda n: pa.array([None] + ["new car"] * (n - 1), pa.string()), "test")
    both = lambda split, columns: holed(split, odd(split, columns))  # noqa: E731
    gates = {"data": {"min_rows": 50, "max_skew": 1}}
    loans, run_dir = validated(change=both, problem={"gates": gates})
    curate(loans.directory / "problem", run_dir, write=True)
    schema = (loans.directory / "problem" / "schema.pbtxt").read_text()
    again = make_loans(change=both, problem={"gates": gates}, schema=schema, name="again")
    report = again.validate()
    assert report.schema == "curated"
    assert report.passed
    assert report.warnings == ()


def test_new_values_are_safe(validated: Any, problem_dir: Path) -> None:
    _, run_dir = validated(change=with_column("city", lambda n: pa.array(["Paris"] * n)))
    assert changes(problem_dir, run_dir) == [("city", "values", "safe")]
    assert curate(problem_dir, run_dir, write=True)["written"]
    assert domain_values(schema_pb2.Schema(), read(problem_dir)["city"]) == ["Antwerp", "Bruges", "Ghent", "Paris"]
    assert changes(problem_dir, run_dir) == []


def test_new_values_of_a_domain_that_columns_share_go_into_it(validated: Any, problem_dir: Path) -> None:
    path = problem_dir / "schema.pbtxt"
    schema = text_format.Parse(path.read_text(), schema_pb2.Schema())
    schema.string_domain.add(name="towns", value=["Ghent"])
    next(feature for feature in schema.feature if feature.name == "city").domain = "towns"
    path.write_text(text_format.MessageToString(schema))
    _, run_dir = validated()
    curate(problem_dir, run_dir, write=True)
    schema = text_format.Parse(path.read_text(), schema_pb2.Schema())
    assert list(schema.string_domain[0].value) == ["Ghent", "Antwerp", "Bruges"]


def test_more_values_than_can_be_listed_open_the_set_which_is_breaking(validated: Any, problem_dir: Path) -> None:
    many = with_column("city", lambda n: pa.array([f"c{i}" for i in range(n)]))
    _, run_dir = validated(change=many, rows={"train": 1100, "eval": 100, "test": 100})
    assert changes(problem_dir, run_dir) == [("city", "values_open", "breaking")]
    curate(problem_dir, run_dir, write=True, breaking=True)
    assert read(problem_dir)["city"].WhichOneof("domain_info") is None


def test_wider_bounds_are_safe(validated: Any, problem_dir: Path) -> None:
    def bound(feature: schema_pb2.Feature) -> None:
        feature.int_domain.min, feature.int_domain.max = 21, 60

    edit(problem_dir, "age", bound)
    _, run_dir = validated()
    assert changes(problem_dir, run_dir) == [("age", "bounds", "safe")]
    curate(problem_dir, run_dir, write=True)
    domain = read(problem_dir)["age"].int_domain
    assert (domain.min, domain.max) == (18, 79)


def test_a_new_column_that_nobody_has_to_give_is_safe(validated: Any, problem_dir: Path) -> None:
    _, run_dir = validated(change=with_column("colour", lambda n: pa.array(["red"] * n)))
    assert changes(problem_dir, run_dir) == [("colour", "column_new", "safe")]
    curate(problem_dir, run_dir, write=True)
    assert "colour" in read(problem_dir)


def test_a_new_column_that_every_caller_must_give_is_breaking(validated: Any, problem_dir: Path) -> None:
    path = problem_dir / "problem.yaml"
    path.write_text(path.read_text().replace("  note: text\n", "  note: text\n  colour: categorical\n"))
    _, run_dir = validated(change=with_column("colour", lambda n: pa.array(["red"] * n)))
    assert changes(problem_dir, run_dir) == [("colour", "column_new", "breaking")]


def test_a_column_that_is_gone_is_breaking_and_stays_unless_that_is_accepted(validated: Any, problem_dir: Path) -> None:
    _, run_dir = validated(change=lambda _, columns: {k: v for k, v in columns.items() if k != "race"})
    assert changes(problem_dir, run_dir) == [("race", "column_gone", "breaking")]
    kept = curate(problem_dir, run_dir, write=True)
    assert not kept["written"]
    assert "race" in read(problem_dir)
    curate(problem_dir, run_dir, write=True, breaking=True)
    assert "race" not in read(problem_dir)


def test_an_optional_column_may_be_gone(validated: Any, problem_dir: Path) -> None:
    edit(problem_dir, "race", lambda feature: feature.ClearField("presence"))
    _, run_dir = validated(change=lambda _, columns: {k: v for k, v in columns.items() if k != "race"})
    assert changes(problem_dir, run_dir) == []


def test_another_type_is_breaking_and_drops_the_old_types_domain(validated: Any, problem_dir: Path) -> None:
    _, run_dir = validated(change=with_column("city", lambda n: pa.array(range(n))))
    assert changes(problem_dir, run_dir) == [("city", "type", "breaking")]
    curate(problem_dir, run_dir, write=True, breaking=True)
    city = read(problem_dir)["city"]
    assert city.type == schema_pb2.INT
    assert city.WhichOneof("domain_info") is None


def test_gaps_in_what_was_always_there_are_breaking(validated: Any, problem_dir: Path) -> None:
    edit(problem_dir, "race", lambda feature: setattr(feature.presence, "min_fraction", 0.9))
    half = lambda n: pa.array(["a note", None] * n)[:n]  # noqa: E731
    both = lambda split, columns: with_column("race", half)(split, with_column("note", half)(split, columns))  # noqa: E731
    _, run_dir = validated(change=both)
    assert changes(problem_dir, run_dir) == [("note", "presence", "breaking"), ("race", "presence", "breaking")]
    curate(problem_dir, run_dir, write=True, breaking=True)
    assert not read(problem_dir)["note"].presence.HasField("min_fraction")
    assert read(problem_dir)["race"].presence.min_fraction == 0.5
    assert changes(problem_dir, run_dir) == []


def test_numbers_that_are_not_finite_any_more_are_breaking(validated: Any, problem_dir: Path) -> None:
    _, run_dir = validated(change=with_column("income", lambda n: pa.array([float("inf"), *range(1, n)], pa.float64())))
    assert changes(problem_dir, run_dir) == [("income", "non_finite", "breaking")]
    curate(problem_dir, run_dir, write=True, breaking=True)
    assert not read(problem_dir)["income"].float_domain.disallow_inf


def test_what_callers_give_follows_the_problem(validated: Any, problem_dir: Path) -> None:
    path = problem_dir / "problem.yaml"
    path.write_text(path.read_text().replace("note: text", "race: categorical"))
    _, run_dir = validated()
    assert changes(problem_dir, run_dir) == [("note", "environment", "safe"), ("race", "environment", "breaking")]
    curate(problem_dir, run_dir, write=True, breaking=True)
    assert list(read(problem_dir)["note"].not_in_environment) == ["SERVING"]
    assert list(read(problem_dir)["race"].not_in_environment) == []


def test_columns_that_are_not_in_use_yet_or_any_more_are_left_alone(validated: Any, problem_dir: Path) -> None:
    edit(problem_dir, "age", lambda feature: setattr(feature, "lifecycle_stage", schema_pb2.DEPRECATED))
    _, run_dir = validated(change=with_column("age", lambda n: pa.array(["forty"] * n)))
    assert changes(problem_dir, run_dir) == []


def test_only_the_safe_changes_are_accepted_by_default(validated: Any, problem_dir: Path) -> None:
    paris = with_column("city", lambda n: pa.array(["Paris"] * n))
    _, run_dir = validated(
        change=lambda split, columns: {**paris(split, columns), "age": pa.array(["x"] * len(columns["age"]))}
    )
    result = curate(problem_dir, run_dir, write=True)
    assert {(c["column"], c["accepted"]) for c in result["changes"]} == {("age", False), ("city", True)}
    assert read(problem_dir)["age"].type == schema_pb2.INT


def test_a_run_that_did_not_validate_is_a_mistake_of_usage(make_loans: Any) -> None:
    loans = make_loans()
    with pytest.raises(UsageError, match="has no statistics"):
        curate(loans.directory / "problem", record(loans, schema=False), write=False)


def test_a_run_without_training_rows_teaches_no_schema(validated: Any) -> None:
    loans, run_dir = validated(rows={"train": 0, "eval": 60, "test": 60})
    with pytest.raises(UsageError, match="no training rows"):
        curate(loans.directory / "problem", run_dir, write=False)


def test_the_module_prints_json(validated: Any, capsys: pytest.CaptureFixture[str]) -> None:
    loans, run_dir = validated()
    main(["accept", str(loans.directory / "problem"), str(run_dir), "--breaking"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["written"]
    assert printed["path"].endswith("problem/schema.pbtxt")


def test_the_module_as_a_program_prints_json_alone_on_standard_output(validated: Any) -> None:
    loans, run_dir = validated()
    command = [sys.executable, "-m", "tidemill.validate.curation", "diff", loans.directory / "problem", run_dir]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["changes"]) == 10
