"""The Beam transforms, each alone under TestPipeline."""

from __future__ import annotations

import datetime
import decimal
import itertools

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing import test_pipeline as beam_testing
from apache_beam.testing.util import assert_that, equal_to

from tidemill.beam_failures import carried, delivered
from tidemill.errors import DataError, GateRefused
from tidemill.ingest.bigquery import ReadTable, StageRows
from tidemill.ingest.delimited import Dialect
from tidemill.ingest.division import CountDuplicates, KeyBatches, PlanSplits, ReadBatches, WriteParts
from tidemill.ingest.labels import LabelRule
from tidemill.ingest.readers import Batch, Origin, shards_of
from tidemill.ingest.scan import ProfileTable
from tidemill.ingest.sources import SourceFile, list_files
from tidemill.ingest.splits import SplitPlan, SplitRule
from tidemill.problem import Label, SplitConfig

LABEL = LabelRule(Label(column="y", positive="1"), "binary_classification")


def pipeline() -> beam.Pipeline:
    return beam_testing.TestPipeline("FnApiRunner")


def rule(method: str, unit: tuple[str, ...] = ()) -> SplitRule:
    return SplitRule(SplitConfig(method=method), unit, "x", "y")


def batch(values: list[int], number: int = 0) -> Batch:
    table = pa.table({"x": values, "y": [v % 2 for v in values]})
    return Batch(0, number, number * 1000, table, (Origin("t.csv", range(2, 2 + len(values))),), ())


def test_profiles_of_files_are_merged_in_order(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,1\n2,\nbroken\n")
    (tmp_path / "b.csv").write_text("x,y\n1.5,a\n")
    files = list_files(str(tmp_path))
    with pipeline() as p:
        profiles = p | beam.Create(list(enumerate(files))) | ProfileTable(Dialect())
        seen = profiles | beam.Map(lambda t: (t.columns(), t.rows, t.faults.total))
        assert_that(seen, equal_to([({"x": "float64", "y": "string"}, {"a.csv": 2, "b.csv": 1}, 1)]))


def test_batches_know_their_place_and_origin(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    (tmp_path / "b.csv").write_text("x\n\n3\n")
    shards = shards_of(list_files(str(tmp_path)), {"a.csv": 2, "b.csv": 1})
    with pipeline() as p:
        batches = p | beam.Create(shards) | ReadBatches(Dialect(), {"x": "int64"})
        seen = batches | beam.Map(lambda b: (b.table["x"].to_pylist(), b.position, b.locate(1), b.locate(2)))
        assert_that(seen, equal_to([([1, 2, 3], 0, ("a.csv", 3), ("b.csv", 3))]))
    with pytest.raises(IndexError):
        batch([1]).locate(1)


def test_small_files_share_a_shard_and_large_ones_do_not():
    files = [SourceFile(n, n, size) for n, size in (("a.csv", 10), ("b.csv", 10), ("c.csv", 1 << 30), ("d.csv", 1))]
    shards = shards_of(files, {"a.csv": 1, "b.csv": 2, "c.csv": 3, "d.csv": 4})
    assert [[f.name for f in shard.files] for shard in shards] == [["a.csv", "b.csv"], ["c.csv"], ["d.csv"]]
    assert [shard.position for shard in shards] == [0, 3, 6]


def test_copies_are_counted_over_all_batches():
    with pipeline() as p:
        keyed = p | beam.Create([batch([1, 2, 2, 3]), batch([3, 4, 1], 1)]) | KeyBatches(LABEL, rule("hash"))
        assert_that(keyed | CountDuplicates(), equal_to([3]))


@pytest.mark.parametrize("method", ["random", "temporal", "stratified"])
@pytest.mark.parametrize("unit", [(), ("x",)])
def test_a_plan_is_the_same_however_rows_are_batched(method, unit):
    plans = []
    for cuts in ([0, 200], [0, 50, 130, 200]):
        batches = []
        for start, end in itertools.pairwise(cuts):
            part = batch(list(range(start, end)))
            batches.append(Batch(0, len(batches), start, part.table, part.origins, ()))
        with pipeline() as p:
            keyed = p | beam.Create(batches) | KeyBatches(LABEL, rule(method, unit))
            plan = keyed | PlanSplits(rule(method, unit))
            _ = plan | beam.Map(_keep)
        plans.append(_KEPT.pop())
    assert np.array_equal(plans[0].thresholds, plans[1].thresholds)
    assert np.array_equal(plans[0].strata, plans[1].strata)


_KEPT: list[SplitPlan] = []


def _keep(plan: SplitPlan) -> None:
    _KEPT.append(plan)


def test_parts_are_named_by_batch_and_hold_its_rows(tmp_path):
    plan = SplitPlan.by_hash(rule("hash"))
    with pipeline() as p:
        keyed = p | beam.Create([batch(list(range(100))), batch(list(range(100, 130)), 1)])
        written = keyed | KeyBatches(LABEL, rule("hash")) | WriteParts(plan, rule("hash"), LABEL, str(tmp_path))
        assert_that(written | beam.Map(lambda s: sum(s.rows.values())), equal_to([130]))
    assert {p.name for p in (tmp_path / "train").iterdir()} == {"part-00000-00000.parquet", "part-00000-00001.parquet"}


def test_rows_of_bigquery_become_parquet_that_ingest_reads(ingest, tmp_path):
    """The read itself needs Google's service; what is made of its rows doesn't."""
    staged = tmp_path / "staged"
    staged.mkdir()
    rows = [
        {"x": i, "day": datetime.date(2024, 1, 1), "price": decimal.Decimal("1.5"), "void": None, "y": bool(i % 2)}
        for i in range(100)
    ]
    with pipeline() as p:
        _ = p | beam.Create(rows) | StageRows(str(staged))
    result = ingest(staged, label={"column": "y", "positive": "true"})
    assert result.report.columns == {"x": "int64", "day": "string", "price": "float64", "void": "string", "y": "int64"}
    assert sorted(result.table["x"].to_pylist()) == list(range(100))


def test_a_bigquery_source_is_read_by_the_storage_api(monkeypatch):
    asked = {}

    class Recorded(beam.PTransform):
        Method = beam.io.ReadFromBigQuery.Method

        def __init__(self, **arguments):
            super().__init__()
            asked.update(arguments)

        def expand(self, begin):
            return begin | beam.Create([{"x": 1}])

    monkeypatch.setattr(beam.io, "ReadFromBigQuery", Recorded)
    with pipeline() as p:
        assert_that(p | ReadTable("bq://project.dataset.table"), equal_to([{"x": 1}]))
    assert asked == {"table": "project:dataset.table", "method": Recorded.Method.DIRECT_READ}


def test_a_run_on_bigquery_goes_through_the_staged_rows(bundle_of, monkeypatch, tmp_path):
    from tidemill.ingest.run import run

    class Rows(beam.PTransform):
        def __init__(self, source):
            super().__init__()

        def expand(self, begin):
            return begin | beam.Create([{"x": i, "y": i % 2} for i in range(100)])

    monkeypatch.setattr("tidemill.ingest.run.ReadTable", Rows)
    report = run(bundle_of(), "bq://p.d.t", "name:1", tmp_path / "examples")
    assert sum(report.rows.values()) == 100
    assert report.source["uri"] == "bq://p.d.t"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [(DataError, ("a", "b\n'c'", "d", None)), (GateRefused, ("x", "y")), (OSError, (28, "full", "f"))],
)
def test_errors_come_back_from_a_worker_as_they_were(kind, fields):
    def fail(_):
        with carried():
            raise kind(*fields)

    with pytest.raises(kind) as failure, delivered(), pipeline() as p:
        _ = p | beam.Create([1]) | beam.Map(fail)
    assert str(failure.value) == str(kind(*fields))


def test_staged_files_are_named_by_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with pipeline() as p:
            _ = p | beam.Create([{"x": 1}]) | StageRows(str(tmp_path / name))
    assert [p.name for p in (tmp_path / "a").iterdir()] == [p.name for p in (tmp_path / "b").iterdir()]
    (file,) = (tmp_path / "a").iterdir()
    assert pq.read_table(file).to_pylist() == [{"x": 1}]
