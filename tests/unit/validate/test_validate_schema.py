"""The inferred schema: types, presence, closed sets where they mean something, two environments."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill.validate.columns import known_only_in_training, roles
from tidemill.validate.schema import domain_values


@pytest.fixture
def schema(make_loans: Any) -> dict[str, schema_pb2.Feature]:
    loans = make_loans(lambda _, columns: {**columns, "void": pa.nulls(len(columns["age"]), pa.int64())})
    loans.validate()
    return {f.name: f for f in text_format.Parse(loans.schema.read_text(), schema_pb2.Schema()).feature}


def test_types_are_those_of_the_data_even_without_a_value(schema: dict[str, schema_pb2.Feature]) -> None:
    types = {name: schema_pb2.FeatureType.Name(feature.type) for name, feature in schema.items()}
    assert types["age"] == types["term"] == types["void"] == "INT"
    assert types["income"] == "FLOAT"
    assert types["city"] == types["note"] == "BYTES"


def test_only_columns_that_were_never_missing_must_not_be(schema: dict[str, schema_pb2.Feature]) -> None:
    required = {name for name, feature in schema.items() if feature.presence.min_fraction == 1}
    assert required == schema.keys() - {"income", "city", "sex", "void"}


def test_closed_sets_are_for_categories_and_the_label(schema: dict[str, schema_pb2.Feature]) -> None:
    closed = {name: domain_values(schema_pb2.Schema(), feature) for name, feature in schema.items()}
    assert {name: values for name, values in closed.items() if values} == {
        "city": ["Antwerp", "Bruges", "Ghent"],
        "repaid": ["no", "yes"],
    }
    assert schema["term"].int_domain.is_categorical


def test_callers_are_asked_for_what_the_model_reads(schema: dict[str, schema_pb2.Feature]) -> None:
    assert {name for name, feature in schema.items() if "SERVING" not in feature.not_in_environment} == {
        "age", "applied_at", "city", "income", "note", "term",
    }  # fmt: skip


def test_a_set_with_many_values_stays_open(make_loans: Any) -> None:
    def many(_: str, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        return {**columns, "city": pa.array([f"c{i % 101}" for i in range(len(columns["age"]))])}

    loans = make_loans(many)
    loans.validate()
    (city,) = [f for f in tfdv.load_schema_text(str(loans.schema)).feature if f.name == "city"]
    assert city.WhichOneof("domain_info") is None


def test_what_a_derived_label_is_made_of_is_unknown_at_serving_unless_a_feature_reads_it(make_loans: Any) -> None:
    problem = make_loans(
        problem={
            "label": {"expression": "tips > 0.2 * fare", "name": "big", "uses": ["tips", "fare"], "leaks": ["tips"]},
            "features": {"fare": "numeric"},
            "weight": "importance",
        }
    ).problem
    assert known_only_in_training(problem) == {"big", "tips", "importance"}


def test_a_column_is_what_the_features_read_it_as(make_loans: Any) -> None:
    features = {
        "age": "numeric",
        "age_group": {"kind": "categorical", "column": "age"},
        "zone": "categorical",
        "note": "text",
        "rate": "categorical",
        "pair": {"kind": "crossed", "of": ["zone", "town"]},
    }
    columns = {
        "age": "int64", "zone": "int64", "town": "string", "note": "string", "rate": "float64", "id": "string",
        "repaid": "string",
    }  # fmt: skip
    assert roles(make_loans(problem={"features": features, "sensitive": []}).problem, columns) == {
        "age": "quantity",
        "zone": "category",
        "town": "category",
        "note": "other",
        "rate": "quantity",
        "id": "other",
        "repaid": "category",
    }
