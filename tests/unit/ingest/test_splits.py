"""Splits: exact, disjoint, stable, and never through a unit."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.errors import DataError
from tidemill.ingest import delimited, readers
from tidemill.ingest.hashing import hash_rows
from tidemill.ingest.splits import PlanPart, Sketch, SplitPlan, SplitRule
from tidemill.problem import SPLITS, SplitConfig

METHODS = ("hash", "random", "temporal", "stratified")
N = 600


def table(n: int = N, seed: int = 0) -> list[str]:
    """Rows id, group, time, x, y: a fifth positive, groups of about three, every tenth row a copy of another."""
    random = np.random.default_rng(seed)
    rows = [f"{i},g{random.integers(n // 3)},{1_600_000_000 + int(t)},{i * 0.5},{int(random.random() < 0.2)}"
            for i, t in enumerate(random.integers(0, n // 2, n))]  # fmt: skip
    for copy in range(5, n, 10):
        rows[copy] = rows[copy - 3]
    return rows


def text(rows: list[str]) -> str:
    return "id,group,time,x,y\n" + "\n".join(rows) + "\n"


def ids(result) -> dict[str, list[int]]:
    return {split: result.split(split)["id"].to_pylist() for split in SPLITS}


@pytest.mark.parametrize("method", METHODS)
def test_every_row_is_in_one_split_copies_together_in_source_order(method, ingest):
    result = ingest(text(table()), split={"method": method}, time="time")
    split = ids(result)
    everything = [row for rows in split.values() for row in rows]
    assert Counter(everything) == Counter(int(row.split(",")[0]) for row in table())
    assert len(set(everything)) == sum(len(set(rows)) for rows in split.values())
    assert result.report.duplicates == result.manifest.duplicates == N // 10
    place = {int(row.split(",")[0]): i for i, row in reversed(list(enumerate(table())))}
    for rows in split.values():
        first_seen = list(dict.fromkeys(rows))
        assert first_seen == sorted(first_seen, key=place.__getitem__)


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_a_group_are_never_divided(method, ingest):
    result = ingest(text(table()), split={"method": method}, time="time", group=["group"])
    groups = [set(result.split(split)["group"].to_pylist()) for split in SPLITS]
    assert sum(len(g) for g in groups) == len(set.union(*groups))


@pytest.mark.parametrize("method", ["random", "temporal", "stratified"])
def test_shares_are_exact_but_for_ties(method, ingest):
    distinct = [row for i, row in enumerate(table()) if i % 10 != 5]
    result = ingest(text(distinct), split={"method": method}, time="time")
    ties = 6 if method == "temporal" else 1
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert abs(result.report.rows[split] - share * len(distinct)) <= ties


def test_stratified_splits_have_the_shares_of_each_class(ingest):
    distinct = [row for i, row in enumerate(table()) if i % 10 != 5]
    result = ingest(text(distinct), split={"method": "stratified"})
    for name in ("0", "1"):
        total = sum(part[name] for part in result.report.label.values())
        for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
            assert abs(result.report.label[split][name] - share * total) <= 1


def test_temporal_splits_go_from_the_oldest_to_the_newest_and_keep_ties(ingest):
    result = ingest(text(table()), split={"method": "temporal"}, time="time")
    times = [result.split(split)["time"].to_numpy() for split in SPLITS]
    assert times[0].max() < times[1].min()
    assert times[1].max() < times[2].min()


def test_with_groups_no_training_row_is_newer_than_the_boundary(ingest):
    """A group counts as its latest row, so training holds nothing that happened after the groups in test ended."""
    result = ingest(text(table()), split={"method": "temporal"}, time="time", group=["group"])
    latest = []
    for split in SPLITS:
        rows = result.split(split)
        ends: dict[str, int] = {}
        for group, time in zip(rows["group"].to_pylist(), rows["time"].to_pylist(), strict=True):
            ends[group] = max(time, ends.get(group, 0))
        latest.append(list(ends.values()))
    assert max(latest[0]) < min(latest[1])
    assert max(latest[1]) < min(latest[2])


def test_times_may_be_iso_text_or_fractions_and_a_missing_one_is_quarantined(ingest):
    stamps = [f"2024-01-{1 + i % 28:02d}T{i % 24:02d}:00:00+02:00" for i in range(200)]
    body = "x,when,y\n" + "".join(f"{i},{s},{i % 2}\n" for i, s in enumerate(stamps)) + "200,soon,1\n201,,0\n"
    limits = {"data": {"max_quarantined": 0.05}}
    result = ingest(body, split={"method": "temporal"}, time="when", gates=limits)
    assert max(result.split("train")["when"].to_pylist()) < min(result.split("eval")["when"].to_pylist())
    assert [(q["line"], q["kind"]) for q in result.quarantine] == [(202, "no event time"), (203, "no event time")]
    seconds = "x,when,y\n" + "".join(f"{i},{(i * 7 % 200) / 8 - 10},{i % 2}\n" for i in range(200))
    result = ingest(seconds, split={"method": "temporal"}, time="when")
    assert max(result.split("train")["when"].to_pylist()) < min(result.split("eval")["when"].to_pylist())


@pytest.mark.parametrize("method", ["hash", "stratified"])
def test_hashed_splits_do_not_hang_on_the_order_of_rows_columns_or_files(method, ingest, tmp_path, monkeypatch):
    rows = table()
    whole = ids(ingest(text(rows), split={"method": method}))
    columns = [row.split(",") for row in reversed(rows)]
    turned = ["y,x,id,time,group", *(",".join(row[k] for k in (4, 3, 0, 2, 1)) for row in columns)]
    data = tmp_path / "data"
    data.mkdir()
    for i, start in enumerate(range(0, N, 150)):
        (data / f"{i}.csv").write_text("\n".join([turned[0], *turned[1 + start : 151 + start]]) + "\n")
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 512)
    monkeypatch.setattr(readers, "_BATCH_BYTES", 1024)
    monkeypatch.setattr(readers, "_SHARD_BYTES", 6000)
    pieces = ids(ingest(data, to="pieces", split={"method": method}))
    assert {k: sorted(v) for k, v in whole.items()} == {k: sorted(v) for k, v in pieces.items()}


def test_hash_splits_keep_every_row_in_its_place_when_data_grows(ingest):
    before = ids(ingest(text(table()), to="before"))
    after = ids(ingest(text(table()) + "".join(f"{i},g,1,1,0\n" for i in range(N, 2 * N)), to="after"))
    for split in SPLITS:
        assert set(before[split]) <= set(after[split])


def test_a_key_decides_alone_and_a_row_without_one_by_its_content(ingest):
    body = "id,x,y\n" + "".join(f"{i // 4},{i},{i % 2}\n" for i in range(400)) + "".join(f",{i},1\n" for i in range(50))
    result = ingest(body, split={"key": "id"})
    keys = [set(result.split(split)["id"].to_pylist()) - {None} for split in SPLITS]
    assert sum(len(k) for k in keys) == len(set.union(*keys)) == 100
    assert all(result.split(split)["id"].null_count for split in SPLITS)


@pytest.mark.parametrize("method", ["hash", "random", "stratified"])
def test_another_seed_gives_another_split_and_the_same_seed_the_same(method):
    units, measures = np.arange(500, dtype=np.uint64), np.arange(500, dtype=np.uint64) % np.uint64(2)

    def assigned(seed: int) -> list[int]:
        rule = SplitRule(SplitConfig(method=method, seed=seed), (), None, "y")
        places = np.arange(500, dtype=np.uint64) if method == "random" else measures
        plan = SplitPlan.by_hash(rule) if method == "hash" else PlanPart.of(rule, units, places).plan(rule)
        return plan.assign(rule, units, places).tolist()

    assert assigned(0) == assigned(0) != assigned(1)
    assert Counter(assigned(1)).keys() == {0, 1, 2}


def test_random_splits_go_by_place_not_content(ingest):
    rows = [row for i, row in enumerate(table()) if i % 10 != 5]
    straight = ids(ingest(text(rows), to="a", split={"method": "random"}))
    turned = ids(ingest(text(rows[::-1]), to="b", split={"method": "random"}))
    assert set(straight["test"]) != set(turned["test"])
    places = {row.split(",")[0]: i for i, row in enumerate(rows)}
    assert sorted(places[str(i)] for i in straight["test"]) == sorted(
        len(rows) - 1 - places[str(i)] for i in turned["test"]
    )


def test_an_empty_split_stops_the_run_with_the_counts(ingest):
    with pytest.raises(DataError, match=r"split test is empty.*train: 2, eval: 1, test: 0"):
        ingest("x,y\n1,0\n2,1\n3,1\n", split={"method": "random"})


def test_a_row_hash_is_the_same_in_another_process_and_ignores_order_nulls_and_widening():
    plain = pa.table({"a": [1, 2, None], "b": ["x", None, "z"], "c": [0.5, -0.0, 2.0**60]})
    hashes = hash_rows(plain, ["a", "b", "c"])
    turned = pa.table(
        {"c": plain["c"], "void": pa.nulls(3, pa.string()), "b": plain["b"], "a": plain["a"].cast("double")}
    )
    assert (hash_rows(turned, ["void", "c", "a", "b"]) == hashes).all()
    assert len(set(hashes.tolist())) == 3
    assert (hash_rows(plain, ["a"]) != hash_rows(plain.rename_columns(["z", "b", "c"]), ["z"]))[:2].all()
    assert hash_rows(plain.slice(0, 0), ["a", "b"]).tolist() == []
    code = (
        "import pyarrow as pa; from tidemill.ingest.hashing import hash_rows\n"
        "t = pa.table({'a': [1, 2, None], 'b': ['x', None, 'z'], 'c': [0.5, -0.0, 2.0**60]})\n"
        "print(*hash_rows(t, ['b', 'a', 'c']))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(h) for h in hashes]


def test_the_hashes_are_those_of_the_first_release():
    """A change of these values moves rows between the splits of every problem: it needs a major version."""
    golden = pa.table({"a": [1, -1], "b": ["x", ""], "c": [0.1, 1e300]})
    assert hash_rows(golden, ["a", "b", "c"]).tolist() == GOLDEN


GOLDEN = [4253449227226819091, 11536438034974047602]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=300), st.floats(0.05, 0.95))
def test_a_threshold_is_as_near_to_its_share_as_any(values, share):
    array = np.array(values, np.uint64)
    (threshold,) = Sketch.of(array).thresholds([share])
    reached = abs((array < threshold).sum() - share * len(array))
    assert all(reached <= abs((array < v).sum() - share * len(array)) + 1e-9 for v in array)


def test_a_sketch_stays_small_and_its_thresholds_near(monkeypatch):
    monkeypatch.setattr("tidemill.ingest.splits._SKETCH_SIZE", 1000)
    values = np.random.default_rng(0).integers(0, 2**64, 50_000, dtype=np.uint64)
    sketch = Sketch.merge(Sketch.of(part) for part in np.split(values, 10))
    assert len(sketch.values) <= 1000
    assert sketch.counts.sum() == 50_000
    assert [(values < t).mean() for t in sketch.thresholds((0.8, 0.9))] == pytest.approx([0.8, 0.9], abs=2e-3)


def test_a_unit_takes_its_most_frequent_class_first_place_or_latest_time():
    units = np.array([7, 7, 7, 9, 9, 4], np.uint64)
    measures = np.array([5, 3, 5, 2, 8, 1], np.uint64)

    def agreed(method: str) -> dict[int, int]:
        rule = SplitRule(SplitConfig(method=method), () if method == "random" else ("g",), "t", "y")
        unit, measure, rows, differed = rule.agree(units, measures)
        assert rows.tolist() == [1, 3, 2]
        assert differed.tolist() == [False, True, True]
        return dict(zip(unit.tolist(), measure.tolist(), strict=True))

    assert agreed("random") == {4: 1, 7: 3, 9: 2}
    assert agreed("temporal") == {4: 1, 7: 5, 9: 8}
    assert agreed("stratified") == {4: 1, 7: 5, 9: 2}


def test_an_override_reaches_only_its_unit():
    rule = SplitRule(SplitConfig(method="temporal"), ("g",), "t", "y")
    part = PlanPart.of(rule, np.array([1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], np.uint64), np.arange(11, dtype=np.uint64))
    plan: SplitPlan = part.plan(rule)
    assert plan.units.tolist() == [1]
    assert plan.measures.tolist() == [1]
    assigned = plan.assign(rule, np.array([1, 2, 9, 10], np.uint64), np.array([0, 2, 9, 10], np.uint64))
    assert assigned.tolist() == [0, 0, 1, 2]
