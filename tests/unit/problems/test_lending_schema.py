"""The lending problem's curated schema takes what the generator makes and nothing that is planted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill.synthetic.lending import LendingConfig, generate

SCHEMA = Path(__file__).parents[3] / "pipelines" / "problems" / "lending" / "schema.pbtxt"


def outside(defects: Mapping[str, float]) -> dict[str, int]:
    """Returns the number of values that lie outside their domain, by column that has any."""
    schema = text_format.Parse(SCHEMA.read_text(), schema_pb2.Schema())
    table = pa.concat_tables([chunk.table for chunk in generate(LendingConfig(rows=20_000, defects=defects))])
    assert {feature.name for feature in schema.feature} == set(table.column_names)
    counts = {}
    for feature in schema.feature:
        column = table[feature.name].drop_null()
        domain = feature.WhichOneof("domain_info")
        if domain == "string_domain":
            known = pa.array(feature.string_domain.value)
            counts[feature.name] = len(column) - pc.sum(pc.is_in(column, known)).as_py()
        elif domain == "int_domain" and feature.int_domain.max:
            low, high = feature.int_domain.min, feature.int_domain.max
            inside = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
            counts[feature.name] = len(column) - pc.sum(inside).as_py()
    assert {"age", "amount", "income", "credit_score", "housing", "repaid"} <= set(counts)
    return {name: count for name, count in counts.items() if count}


def test_all_that_is_generated_lies_inside():
    assert outside({}) == {}


@pytest.mark.parametrize(
    ("defect", "column"), [("unknown_category", "housing"), ("out_of_range", "age"), ("negative_amount", "amount")]
)
def test_a_planted_value_lies_outside(defect, column):
    assert set(outside({defect: 0.01})) == {column}
