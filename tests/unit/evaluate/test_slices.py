"""Which slices there are, and that every row is in exactly one slice of each key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.errors import DataError
from tidemill.evaluate.slices import MAX_VALUES, MISSING_VALUE, OTHER_VALUE, plan_slices


def write(directory: Path, **columns: pa.Array) -> list[Path]:
    table = pa.table(columns)
    half = table.num_rows // 2
    paths = [directory / "part-00000.parquet", directory / "part-00001.parquet"]
    pq.write_table(table.slice(0, half), paths[0])
    pq.write_table(table.slice(half), paths[1])
    return paths


def names_of(paths: list[Path], key: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The slice of each row, as shown."""
    plan = plan_slices(paths, [key])
    batch = pa.concat_tables([pq.read_table(p) for p in paths]).combine_chunks().to_batches()[0]
    return [plan.keys[1].names[code] for code in plan.codes(batch)[1]]


def test_values_crosses_and_missing_values_are_slices(tmp_path: Path) -> None:
    paths = write(tmp_path, sex=pa.array(["f", "m", None, "f"]), race=pa.array(["a", "b", "a", "a"]))
    plan = plan_slices(paths, [("sex",), ("sex", "race")])
    assert plan.slices == [
        {},
        {"sex": "f"},
        {"sex": "m"},
        {"sex": MISSING_VALUE},
        {"race": "a", "sex": "f"},
        {"race": "a", "sex": MISSING_VALUE},
        {"race": "b", "sex": "m"},
    ]
    assert names_of(paths, ("sex",)) == [("f",), ("m",), (MISSING_VALUE,), ("f",)]
    assert list(plan.members(("sex", "race"))) == [4, 5, 6]


def test_few_numbers_are_values_and_not_a_number_is_missing(tmp_path: Path) -> None:
    paths = write(tmp_path, children=pa.array([0.0, 10.0, 2.0, float("nan"), None, 2.0]))
    assert names_of(paths, ("children",)) == [("0",), ("10",), ("2",), (MISSING_VALUE,), (MISSING_VALUE,), ("2",)]
    assert [s["children"] for s in plan_slices(paths, [("children",)]).slices[1:]] == ["0", "2", "10", MISSING_VALUE]


def test_many_numbers_are_cut_at_round_ones(tmp_path: Path) -> None:
    ages = pa.array([*range(17, 80), None])
    paths = write(tmp_path, age=ages)
    names = names_of(paths, ("age",))
    assert names[0] == ("< 20",)
    assert names[20 - 17] == ("[20, 30)",)
    assert names[70 - 17] == (">= 70",)
    assert names[-1] == (MISSING_VALUE,)
    assert len(set(names)) == 8


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_ranges_fit_any_scale(tmp_path: Path, scale: float) -> None:
    numbers = np.random.default_rng(0).normal(size=500) * scale
    names = names_of(write(tmp_path, x=pa.array(numbers)), ("x",))
    assert 4 <= len(set(names)) <= 10


def test_ranges_of_long_numbers_have_names_of_their_own(tmp_path: Path) -> None:
    """Six digits would give years in seconds, or postcodes, one name for several ranges."""
    numbers = [1_700_000_000.0 + i for i in range(600)]
    paths = write(tmp_path, seen=pa.array(numbers))
    shown = [s["seen"] for s in plan_slices(paths, [("seen",)]).slices[1:]]
    assert len(set(shown)) == len(shown) >= 6
    assert "[1700000100, 1700000200)" in shown


def test_a_number_that_hardly_varies_has_two_ranges(tmp_path: Path) -> None:
    numbers = [5.0] * 1000 + [float(i) for i in range(20)]
    names = names_of(write(tmp_path, x=pa.array(numbers)), ("x",))
    assert set(names) == {("< 5",), (">= 5",)}


def test_the_most_frequent_values_are_kept_and_the_rest_is_together(tmp_path: Path) -> None:
    values = [f"v{i:04d}" for i in range(MAX_VALUES + 50)]
    paths = write(tmp_path, zip=pa.array([*values, *values[: MAX_VALUES + 10]]))
    names = names_of(paths, ("zip",))
    assert names.count((OTHER_VALUE,)) == 2 * 10 + 40
    assert len(plan_slices(paths, [("zip",)]).slices) == 1 + MAX_VALUES + 1


def test_crosses_beyond_the_limit_are_together_too(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    a = [f"a{i}" for i in generator.integers(0, 30, 3000)]
    b = [f"b{i}" for i in generator.integers(0, 30, 3000)]
    plan = plan_slices(write(tmp_path, a=pa.array(a), b=pa.array(b)), [("a", "b")])
    assert len(plan.slices) == 1 + MAX_VALUES + 1
    assert plan.slices[-1] == {"a": OTHER_VALUE, "b": OTHER_VALUE}


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    paths = write(tmp_path, sex=pa.array(["f", "m"]))
    with pytest.raises(DataError, match="race"):
        plan_slices(paths, [("race",)])
