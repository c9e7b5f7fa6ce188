"""Slices are sums of cells: every row once, few cells, names that are files."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.validate import cells
from tidemill.validate.cells import MAX_CELLS, file_name, plan_slices

VALUES = st.sampled_from([None, "", "a", "b", "β,=/"])


def batch(**columns: object) -> pa.RecordBatch:
    arrays = [values if isinstance(values, pa.Array) else pa.array(values) for values in columns.values()]
    return pa.RecordBatch.from_arrays(arrays, list(columns))


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=50))
def test_every_row_is_in_exactly_one_cell_and_in_its_order(rows: list[tuple[str | None, str | None]]) -> None:
    table = batch(
        x=pa.array([x for x, _ in rows], pa.string()),
        y=pa.array([y for _, y in rows], pa.string()),
        place=list(range(len(rows))),
    )
    plan = plan_slices([table], [("x",), ("y",), ("y", "x")], table.schema.names)
    found = {cell: part.column(2).to_pylist() for cell, part in plan.split(table)}
    expected: dict[tuple[str | None, str | None], list[int]] = {}
    for place, row in enumerate(rows):
        expected.setdefault(row, []).append(place)
    assert found == expected


def test_rows_without_a_value_are_in_no_slice_of_that_column() -> None:
    table = batch(sex=["F", None], race=["a", "a"])
    plan = plan_slices([table], [("sex",), ("race",), ("sex", "race")], ["sex", "race"])
    assert list(plan.slices_of((None, "a"))) == [(("race", "a"),)]
    assert list(plan.slices_of(("F", "a"))) == [(("sex", "F"),), (("race", "a"),), (("sex", "F"), ("race", "a"))]


def test_columns_that_the_data_lacks_get_no_slices() -> None:
    plan = plan_slices([batch(sex=["F"])], [("sex",), ("race",), ("sex", "race")], ["sex"])
    assert plan.keys == (("sex",),)


def test_numbers_get_slices_by_value() -> None:
    table = batch(district=[3, 3, 7])
    plan = plan_slices([table], [("district",)], ["district"])
    assert {cell: part.num_rows for cell, part in plan.split(table)} == {("3",): 2, ("7",): 1}


def test_of_many_values_the_frequent_ones_get_slices_and_the_rest_is_counted() -> None:
    rng = np.random.default_rng(0)
    towns = [f"t{i}" for i in rng.zipf(1.4, 5000) % 400]
    sexes = np.array(["F", "M"])[rng.integers(0, 2, 5000)]
    table = batch(town=towns, sex=sexes)
    plan = plan_slices([table], [("town",), ("sex", "town")], ["town", "sex"])
    kept = [town for town, _ in Counter(towns).most_common(len(plan.values["town"]))]
    assert set(kept) == plan.values["town"]
    assert len(list(plan.split(table))) <= MAX_CELLS
    assert len(kept) > 10
    assert plan.omitted == {"town": sum(town not in kept for town in towns)}
    assert sum(part.num_rows for _, part in plan.split(table)) == 5000


def test_an_identifier_among_the_sensitive_columns_does_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "_MAX_COUNTED", 100)
    batches = [batch(person=["Ann"] * 5 + [f"p{i}" for i in range(start, start + 90)]) for start in range(0, 900, 90)]
    plan = plan_slices(batches, [("person",)], ["person"])
    assert "Ann" in plan.values["person"]
    assert len(plan.values["person"]) <= MAX_CELLS


def test_file_names_are_plain_and_distinct() -> None:
    assert file_name((("sex", "Female"), ("race", "Amer Indian"))) == "sex=Female,race=Amer Indian"
    assert file_name((("path", "../a,b=c"),)) == "path=..%2Fa%2Cb%3Dc"
    one, other = (file_name((("note", "ß" * 200 + end),)) for end in "12")
    assert one != other
    assert len(one) < 200


def test_the_rows_of_a_rare_cell_do_not_keep_their_batch_in_memory() -> None:
    sexes = np.where(np.arange(10_000) % 1000 == 0, "X", "F")
    table = batch(sex=sexes, number=np.arange(10_000.0))
    plan = plan_slices([table], [("sex",)], ["sex"])
    rare = dict(plan.split(table))[("X",)]
    assert rare.num_rows == 10
    assert sum(buffer.size for column in rare.columns for buffer in column.buffers() if buffer) < 1000
