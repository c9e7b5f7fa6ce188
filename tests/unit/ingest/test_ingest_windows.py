"""Windows: every row gets its group's past beside it, never its future, however the source is cut and ordered."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.beam import Cluster
from tidemill.beam_files import Copies
from tidemill.errors import DataError
from tidemill.files import digest_tree
from tidemill.ingest import delimited, readers, windows
from tidemill.problem import SPLITS
from tidemill.windows import Windows

PROBLEM = {
    "label": {"column": "y", "positive": "1"},
    "features": {"x": "numeric", "c": "categorical"},
    "time": "t",
    "group": ["g"],
}


def table(rows: list[tuple[object, ...]], header: str = "g,t,x,c,y") -> str:
    return header + "\n" + "".join(",".join("" if v is None else str(v) for v in row) + "\n" for row in rows)


def series(groups: int, rows: int, shuffled: bool = True) -> list[tuple[object, ...]]:
    """Rows (g, t, x, c, y) in which x tells the group and the place."""
    made = [
        (f"g{g}", 1000 + g + 10 * i, 1000 * g + i, "ab"[(g + i) % 2], (g * 7 + i * 3) % 2)
        for g in range(groups)
        for i in range(rows)
    ]
    if shuffled:
        random.Random(1).shuffle(made)
    return made


def test_a_row_has_the_values_of_the_rows_before_it_beside_it(ingest):
    result = ingest(table(series(30, 6)), windows={"length": 3}, **PROBLEM)
    columns = result.table.column_names
    assert columns == ["g", "t", "x", "c", "y", "x@1", "x@2", "c@1", "c@2"]
    rows = result.table.to_pylist()
    assert len(rows) == 30 * 4  # the first two of each group have too few before them
    for row in rows:
        assert (row["x@1"], row["x@2"]) == (row["x"] - 1, row["x"] - 2)
        assert row["c@1"] != row["c"] == row["c@2"]
    assert result.manifest.columns["x@2"] == "int64"
    assert result.report.source["rows"] == 180
    assert result.report.source["left_out"] == result.manifest.source["left_out"] == 60


def test_incomplete_windows_are_kept_where_that_is_wanted_with_what_they_lack_missing(ingest):
    result = ingest(table(series(30, 4)), windows={"length": 3, "incomplete": "keep"}, **PROBLEM)
    rows = sorted(result.table.to_pylist(), key=lambda row: row["x"])
    assert len(rows) == 120
    assert [(row["x@1"], row["x@2"]) for row in rows[:4]] == [(None, None), (0, None), (1, 0), (2, 1)]
    assert result.report.nulls["x@2"] == 60


def test_windows_end_stride_rows_apart(ingest):
    result = ingest(table(series(40, 9)), windows={"length": 3, "stride": 3}, **PROBLEM)
    assert sorted({row["x"] % 1000 for row in result.table.to_pylist()}) == [2, 5, 8]


def test_only_the_features_that_are_named_have_a_past(ingest):
    result = ingest(table(series(30, 4)), windows={"length": 2, "features": ["c"]}, **PROBLEM)
    assert result.table.column_names == ["g", "t", "x", "c", "y", "c@1"]


def test_the_label_lies_as_many_rows_ahead_as_the_horizon_says(ingest):
    problem = {**PROBLEM, "task": "regression", "label": {"expression": "x", "uses": ["x"], "name": "next"}}
    result = ingest(table(series(40, 6)), windows={"length": 2, "horizon": 2}, **problem)
    rows = result.table.to_pylist()
    assert {row["next"] - row["x"] for row in rows} == {2.0}
    assert {row["x"] % 1000 for row in rows} == {1, 2, 3}


@pytest.mark.parametrize("method", ["hash", "temporal"])
def test_neither_order_nor_cuts_of_the_source_change_the_windows(method, ingest, monkeypatch):
    rows = series(40, 8)
    rows += [("g1", 1001, 77, "a", 0), ("g1", 1001, 78, "b", 1)]  # the times of three rows tie
    settings = {"windows": {"length": 4}, "split": {"method": method, "key": None, "seed": 3}, **PROBLEM}
    whole = ingest(table(rows), to="whole", **settings)
    again = ingest(table(rows), to="again", **settings)
    assert digest_tree(whole.directory) == digest_tree(again.directory)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 2048)
    monkeypatch.setattr(readers, "_BATCH_BYTES", 4096)
    monkeypatch.setattr(windows, "PARTITION_BYTES", 2048)
    monkeypatch.setattr(windows, "_BATCH_VALUES", 256)
    random.Random(2).shuffle(rows)
    cut = ingest(table(rows), to="cut", **settings)
    assert len(cut.manifest.files) > 6
    for one, other in [(whole.split(s), cut.split(s)) for s in SPLITS]:
        assert sorted(map(repr, one.to_pylist())) == sorted(map(repr, other.to_pylist()))
    for s in SPLITS:
        assert not {r["g"] for r in cut.split(s).to_pylist()} & {
            r["g"] for other in SPLITS if other != s for r in cut.split(other).to_pylist()
        }


def test_workers_of_another_disk_bring_the_same_rows_together(ingest, tmp_path, monkeypatch):
    chosen = {"windows": {"length": 3}, **PROBLEM}
    here = ingest(table(series(40, 5)), to="here", **chosen)

    @contextlib.contextmanager
    def elsewhere(*_: object) -> Iterator[Cluster]:
        yield Cluster("direct", (), Copies(str(tmp_path / "exchange")))

    monkeypatch.setattr("tidemill.ingest.run.opened_cluster", elsewhere)
    there = ingest(table(series(40, 5)), to="there", **chosen)
    assert list((tmp_path / "exchange").rglob("*.arrow"))
    assert digest_tree(there.directory) == digest_tree(here.directory)


def check_past(row: dict[str, object], length: int, horizon: int, incomplete: str) -> None:
    """Holds a row against its past; x and y are its own time and that of its label, c its group."""
    known = [moment for moment in [row["x"], *(row[f"x@{i}"] for i in range(1, length))] if moment is not None]
    assert known == sorted(known, reverse=True)
    assert incomplete == "keep" or len(known) == length
    assert {row[f"c@{i}"] for i in range(1, length)} <= {row["c"], None}
    assert row["y"] >= row["x"]
    assert horizon or row["y"] == row["x"]


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20)), min_size=1, max_size=60),
    length=st.integers(2, 5),
    horizon=st.integers(0, 3),
    stride=st.integers(1, 3),
    incomplete=st.sampled_from(["drop", "keep"]),
    ahead=st.booleans(),
)
def test_no_window_sees_the_future_or_another_group(rows, length, horizon, stride, incomplete, ahead):
    groups, times = (np.array(values) for values in zip(*rows, strict=True))
    hashes = np.arange(len(rows), dtype=np.uint64) * np.uint64(7919) % np.uint64(101)
    staged = pa.table(
        [times, groups, times, hashes, groups.astype("u8"), times.astype("u8"), times], names=list("xcyhgmt")
    )
    settings = Windows(length=length, horizon=horizon, stride=stride, incomplete=incomplete)
    made = list(windows.windows(windows.WindowRule(settings, ("x", "c"), "x", "y", ahead), 0, staged))
    found = [row for keyed in made for row in keyed.batch.table.to_pylist()]
    for row in found:
        check_past(row, length, horizon, incomplete)
    measures = [measure for keyed in made for measure in keyed.measures.tolist()]
    assert measures == [row["y"] if ahead else row["x"] for row in found]
    shortest = (length if incomplete == "drop" else 1) + horizon
    sizes = np.bincount(groups)
    assert len(found) == sum(-(-(size - shortest + 1) // stride) for size in sizes if size >= shortest)


@pytest.mark.parametrize(("method", "straddle"), [("hash", False), ("temporal", False), ("temporal", True)])
def test_splits_part_groups_or_times_and_training_never_knows_a_later_label(method, straddle, ingest):
    rng = random.Random(0)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = []
    for g in range(40):
        for _ in range(rng.randint(6, 9)):
            minutes = rng.randint(0, 300)
            rows.append((f"g{g}", (start + timedelta(minutes=minutes)).isoformat(), minutes, f"g{g}", minutes))
    problem = {**PROBLEM, "task": "regression", "label": {"column": "y"}}
    chosen = {"length": 3, "horizon": 1, "straddle": straddle}
    result = ingest(table(rows), windows=chosen, split={"method": method}, **problem)
    labels, groups = {}, {}
    for split in SPLITS:
        found = result.split(split).to_pylist()
        for row in found:
            check_past(row, 3, 1, "drop")
        labels[split] = [row["y"] for row in found]
        groups[split] = {row["g"] for row in found}
    if straddle:
        assert max(labels["train"]) < min(labels["eval"]) <= max(labels["eval"]) < min(labels["test"])
    else:
        assert not groups["train"] & groups["eval"]
        assert not (groups["train"] | groups["eval"]) & groups["test"]
    if method == "temporal":
        assert max(labels["train"]) < max(labels["eval"]) < max(labels["test"])


def test_a_row_without_time_is_quarantined_and_nobodys_past(ingest):
    rows = series(30, 5, shuffled=False)
    rows[2] = ("g0", None, 555, "a", 0)
    result = ingest(table(rows), windows={"length": 2}, gates={"data": {"max_quarantined": 0.1}}, **PROBLEM)
    (fault,) = result.quarantine
    assert (fault["kind"], fault["line"]) == ("no event time", 4)
    assert result.report.quarantined == 1
    rows = result.table.to_pylist()
    assert 555 not in {row["x@1"] for row in rows}
    assert [row["x@1"] for row in rows if row["x"] == 3] == [1]


def test_series_that_all_end_alike_can_be_divided_by_time_only_if_they_may_straddle(ingest):
    rows = [(g, t - int(g[1:]), x, c, y) for g, t, x, c, y in series(20, 20)]
    with pytest.raises(DataError, match=r"(?s)split eval is empty.*windows\.straddle"):
        ingest(table(rows), windows={"length": 3}, split={"method": "temporal"}, **PROBLEM)
    chosen = {"length": 3, "straddle": True}
    result = ingest(table(rows), windows=chosen, split={"method": "temporal"}, **PROBLEM)
    assert result.report.rows["test"] > 20


def test_groups_that_are_too_short_for_a_window_are_told(ingest):
    with pytest.raises(DataError, match=r"a window needs 9 rows that agree in `group` \(got all groups are shorter\)"):
        ingest(table(series(30, 5)), windows={"length": 8, "horizon": 1}, **PROBLEM)


def test_a_column_that_is_called_like_one_to_be_made_is_refused(ingest):
    rows = [(*row, 1) for row in series(30, 5)]
    with pytest.raises(DataError, match=r"must not have columns that windows makes itself.*x@1"):
        ingest(table(rows, "g,t,x,c,y,x@1"), windows={"length": 3}, **PROBLEM)
