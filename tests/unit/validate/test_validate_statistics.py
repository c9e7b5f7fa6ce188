"""Statistics equal numpy's and TFDV's own, whatever the batches, the slices and the number of processes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf.json_format import MessageToDict
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx_bsl.arrow import table_util

from tidemill.beam import pipeline_options
from tidemill.errors import PlatformError
from tidemill.validate import statistics as module
from tidemill.validate.statistics import Description, Statistics, describe, stats_options

SENSITIVE = (("sex",), ("race",), ("sex", "race"))
BY_VALUE = ("term",)


def description(examples: Any, **options: Any) -> Description:
    manifest = examples.manifest
    return describe(examples.directory, manifest.rows, manifest.columns, **{"categorical": BY_VALUE, **options})


def features(statistics: Statistics) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    return {feature.path.step[0]: feature for feature in statistics.datasets[0].features}


def by_beam(table: pa.Table, options: tfdv.StatsOptions, directory: Path) -> Statistics:
    """What TFDV's public Beam transform makes of a table."""
    batches = [table_util.CanonicalizeRecordBatch(batch) for batch in table.combine_chunks().to_batches()]
    target = str(directory / "stats.pb")
    with beam.Pipeline(options=pipeline_options()) as pipeline:
        _ = (
            pipeline
            | beam.Create(batches, reshuffle=False)
            | tfdv.GenerateStatistics(options)
            | tfdv.WriteStatisticsToBinaryFile(target)
        )
    return Statistics.FromString(Path(target).read_bytes())


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Returns every value of JSON by its path."""
    if isinstance(value, dict):
        return {k: v for name, inner in value.items() for k, v in leaves(inner, f"{path}.{name}").items()}
    if isinstance(value, list):
        return {k: v for i, inner in enumerate(value) for k, v in leaves(inner, f"{path}.{i}").items()}
    return {path: value}


def same(ours: Statistics, theirs: Statistics) -> None:
    """Asserts equality feature by feature: sums in another order may differ in their last digits, nothing else."""
    assert ours.datasets[0].num_examples == theirs.datasets[0].num_examples
    assert features(ours).keys() == features(theirs).keys()
    for name, feature in features(theirs).items():
        expected, found = (leaves(MessageToDict(f)) for f in (feature, features(ours)[name]))
        numbers = {path: value for path, value in expected.items() if isinstance(value, float)}
        assert {path: found.get(path) for path in numbers} == pytest.approx(numbers, rel=1e-12), name
        rest = expected.keys() - numbers.keys()
        assert {path: found.get(path) for path in rest} == {path: expected[path] for path in rest}, name
        assert found.keys() == expected.keys(), name


def test_the_whole_equals_tfdvs_beam_transform(examples: Any, tmp_path: Path) -> None:
    table = pa.table(dict(examples.splits["train"]))
    same(description(examples).splits["train"].whole, by_beam(table, stats_options(BY_VALUE), tmp_path))


def test_the_whole_equals_tfdvs_dataframe_function(examples: Any) -> None:
    found = description(examples)
    for split, columns in examples.splits.items():
        frame = pa.table(dict(columns)).to_pandas()
        same(found.splits[split].whole, tfdv.generate_statistics_from_dataframe(frame, stats_options(BY_VALUE)))


def test_a_slice_equals_tfdvs_beam_transform_of_its_rows(examples: Any, tmp_path: Path) -> None:
    table = pa.table(dict(examples.splits["train"]))
    rows = table.filter(pc.and_(pc.equal(table["sex"], "F"), pc.equal(table["race"], "b")))
    slices = description(examples, sensitive=SENSITIVE).splits["train"].slices
    options = stats_options(BY_VALUE, for_slices=True)
    same(slices[("sex", "F"), ("race", "b")], by_beam(rows, options, tmp_path))


def test_the_whole_counts_as_numpy_does_when_it_is_put_together_from_cells(
    examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 64 rows and a buffer of 200 make the accumulators flush and merge hundreds of times."""
    monkeypatch.setattr(module, "BATCH_ROWS", 64)
    monkeypatch.setattr(module, "_BUFFER_ROWS", 200)
    found = description(examples, sensitive=SENSITIVE)
    for split, columns in examples.splits.items():
        ours = features(found.splits[split].whole)
        for name in ("age", "income"):
            values = columns[name].drop_null().to_numpy()
            stats = ours[name].num_stats
            assert stats.common_stats.num_non_missing == len(values)
            assert stats.common_stats.num_missing == columns[name].null_count
            assert (stats.min, stats.max, stats.num_zeros) == (values.min(), values.max(), (values == 0).sum())
            assert stats.mean == pytest.approx(values.mean(), rel=1e-9)
            assert stats.std_dev == pytest.approx(values.std(), rel=1e-9)
            # TFDV's quantiles may be off by one hundredth in rank.
            assert np.mean(values < stats.median) <= 0.52
            assert np.mean(values <= stats.median) >= 0.48
        for name in ("city", "term", "repaid", "loan_id"):
            values = Counter(str(value) for value in columns[name].to_pylist() if value is not None)
            stats = ours[name].string_stats
            assert stats.unique == len(values)
            assert {b.label: b.sample_count for b in stats.rank_histogram.buckets} == values


def test_slices_hold_exactly_the_rows_with_their_values(examples: Any) -> None:
    found = description(examples, sensitive=SENSITIVE)
    for split, columns in examples.splits.items():
        rows = Counter(zip(columns["sex"].to_pylist(), columns["race"].to_pylist(), strict=True))
        expected = {
            **{(("sex", s),): sum(n for (sex, _), n in rows.items() if sex == s) for s in "FM"},
            **{(("race", r),): sum(n for (_, race), n in rows.items() if race == r) for r in "abc"},
            **{(("sex", s), ("race", r)): rows[s, r] for s in "FM" for r in "abc"},
        }
        slices = found.splits[split].slices
        assert {key: sliced.datasets[0].num_examples for key, sliced in slices.items()} == expected


def test_two_processes_give_the_bytes_that_one_gives(examples: Any) -> None:
    one, two = (description(examples, sensitive=SENSITIVE, processes=n) for n in (1, 2))
    for split in ("train", "eval", "test"):
        assert one.splits[split].whole.SerializeToString() == two.splits[split].whole.SerializeToString()
        assert list(one.splits[split].slices) == list(two.splits[split].slices)
        for key, sliced in one.splits[split].slices.items():
            assert sliced.SerializeToString() == two.splits[split].slices[key].SerializeToString()


def test_many_distinct_values_give_the_same_statistics_each_time(make_examples: Any) -> None:
    """TFDV's sketch of top values chooses among ties by chance once there are more than it holds."""
    rng = np.random.default_rng(1)
    names = pa.array([f"n{i}" for i in rng.zipf(1.3, 60_000) % 20_000])
    codes = pa.array([f"c{i}" for i in rng.integers(0, 20_000, 60_000)])
    examples = make_examples({key: {"name": names, "code": codes} for key in ("train", "eval", "test")})
    once, again = (description(examples, categorical=()).splits["train"].whole for _ in range(2))
    assert once.SerializeToString() == again.SerializeToString()
    ranking = once.datasets[0].features[0].string_stats.rank_histogram.buckets
    counts = Counter(names.to_pylist())
    assert 50 < len(ranking) < len(counts)
    assert [bucket.label for bucket in ranking[:10]] == [name for name, _ in counts.most_common(10)]


def test_a_split_without_rows_is_described_as_such(make_examples: Any) -> None:
    columns = {"age": pa.array([1, 2, 3])}
    examples = make_examples({"train": columns, "eval": {"age": pa.array([], pa.int64())}, "test": columns})
    empty = description(examples, categorical=()).splits["eval"].whole.datasets
    assert [dataset.num_examples for dataset in empty] == [0]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_truncated_file_is_named(make_examples: Any, processes: int) -> None:
    columns = {name: pa.array(range(1000)) for name in ("age", "height")}
    examples = make_examples(dict.fromkeys(("train", "eval", "test"), columns))
    part = examples.directory / "eval" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-50])
    with pytest.raises(PlatformError, match=r"eval/part-00000\.parquet: cannot be read as Parquet"):
        description(examples, categorical=(), processes=processes)


def test_files_that_lack_rows_of_the_manifest_are_refused(make_examples: Any) -> None:
    examples = make_examples({split: {"age": pa.array(range(1000))} for split in ("train", "eval", "test")})
    (examples.directory / "test" / "part-00001.parquet").unlink()
    with pytest.raises(PlatformError, match=r"test: expected the 1000 rows of the manifest \(got 500\)"):
        description(examples, categorical=())


@pytest.mark.parametrize("codec", ["zstd", "snappy"])
def test_parquet_of_the_ingest_environment_can_be_read(examples: Any, tmp_path: Path, codec: str) -> None:
    """Ingest writes with pyarrow 25, this environment reads with pyarrow 10."""
    python = Path(sys.prefix).parent / "tensorflow" / "bin" / "python"
    if not python.exists():
        pytest.skip("the tensorflow environment is not installed beside this one")
    rewrite = (
        "import pathlib, sys, pyarrow.parquet as pq\n"
        "source, target, codec = sys.argv[1:]\n"
        "for part in pathlib.Path(source).glob('*/*.parquet'):\n"
        "    to = pathlib.Path(target) / part.relative_to(source)\n"
        "    to.parent.mkdir(parents=True, exist_ok=True)\n"
        "    pq.write_table(pq.read_table(part, partitioning=None), to, compression=codec)\n"
    )
    subprocess.run([python, "-c", rewrite, examples.directory, tmp_path, codec], check=True)
    created_by = pq.ParquetFile(tmp_path / "train" / "part-00000.parquet").metadata.created_by
    assert created_by != pq.ParquetFile(examples.directory / "train" / "part-00000.parquet").metadata.created_by
    manifest = examples.manifest
    theirs = describe(tmp_path, manifest.rows, manifest.columns, categorical=BY_VALUE)
    assert theirs.splits["train"].whole == description(examples).splits["train"].whole
