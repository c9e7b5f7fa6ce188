"""Windows: every row gets its group's past beside it, never its future, however the source is cut and ordered."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.errors import DataError
from tidemill.files import digest_tree
from tidemill.ingest import delimited, readers, windows
from tidemill.problem import SPLITS

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


@pytest.mark.parametrize("method", ["hash", "random", "temporal", "stratified"])
def test_neither_order_nor_cuts_of_the_source_change_the_windows(method, ingest, monkeypatch):
    rows = series(40, 8)
    rows += [("g1", 1001, 77, "a", 0), ("g1", 1001, 78, "b", 1)]  # the times of three rows tie
    settings = {"windows": {"length": 4}, "split": {"method": method, "key": None, "seed": 3}, **PROBLEM}
    whole = ingest(table(rows), to="whole", **settings)
    again = ingest(table(rows), to="again", **settings)
    assert digest_tree(whole.directory) == digest_tree(again.directory)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 256)
    monkeypatch.setattr(readers, "_BATCH_BYTES", 512)
    monkeypatch.setattr(windows, "PARTITION_BYTES", 512)
    monkeypatch.setattr(windows, "_BATCH_VALUES", 64)
    random.Random(2).shuffle(rows)
    cut = ingest(table(rows), to="cut", **settings)
    assert len(cut.manifest.files) > 10
    splits = SPLITS if method != "random" else ()  # which hangs on the place in the source
    for one, other in [(whole.table, cut.table), *((whole.split(s), cut.split(s)) for s in splits)]:
        assert sorted(map(repr, one.to_pylist())) == sorted(map(repr, other.to_pylist()))
    for s in SPLITS:
        assert not {r["g"] for r in cut.split(s).to_pylist()} & {
            r["g"] for other in SPLITS if other != s for r in cut.split(other).to_pylist()
        }


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    length=st.integers(2, 5),
    horizon=st.integers(0, 2),
    stride=st.integers(1, 3),
    incomplete=st.sampled_from(["drop", "keep"]),
    split=st.sampled_from(["hash", "temporal", "straddle"]),
    seed=st.integers(0, 1000),
)
def test_no_window_sees_the_future_or_another_group(ingest, length, horizon, stride, incomplete, split, seed):
    """x is the row's own time, so that a look into the future would show."""
    rng = random.Random(seed)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = []
    for g in range(30):
        for _ in range(rng.randint(6, 9)):
            minutes = rng.randint(0, 300)
            stamp = (start + timedelta(minutes=minutes)).isoformat()
            rows.append((f"g{g}", stamp, minutes, f"g{g}", minutes))
    problem = {**PROBLEM, "task": "regression", "label": {"column": "y"}}
    chosen = {"length": length, "horizon": horizon, "stride": stride, "incomplete": incomplete}
    chosen["straddle"] = split == "straddle"
    method = "hash" if split == "hash" else "temporal"
    result = ingest(table(rows), to=f"{rng.random()}", windows=chosen, split={"method": method}, **problem)
    latest, earliest, groups = {}, {}, {}
    for name in SPLITS:
        for row in result.split(name).to_pylist():
            past = [row["x"], *(row[f"x@{i}"] for i in range(1, length))]
            known = [moment for moment in past if moment is not None]
            assert known == sorted(known, reverse=True)
            assert incomplete == "keep" or len(known) == length
            assert {row[f"c@{i}"] for i in range(1, length)} <= {row["g"], None}
            assert row["y"] >= row["x"]
            assert horizon or row["y"] == row["x"]
            latest[name] = max(latest.get(name, 0), row["y"])
            earliest[name] = min(earliest.get(name, 1e9), row["y"])
            groups.setdefault(name, set()).add(row["g"])
    if split == "straddle":
        assert latest["train"] < earliest["eval"] <= latest["eval"] < earliest["test"]
    else:
        assert not groups["train"] & groups["eval"] | groups["train"] & groups["test"] | groups["eval"] & groups["test"]
    if split == "temporal":
        assert latest["train"] < latest["eval"] < latest["test"]


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
    rows = [(g, t if g != "g0" else t + 3, x, c, y) for g, t, x, c, y in series(20, 20)]
    rows = [(g, t - int(g[1:]), x, c, y) for g, t, x, c, y in rows]
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
