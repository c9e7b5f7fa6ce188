"""The analyzers as Beam transforms, under TestPipeline, against plain Python and numpy."""

from __future__ import annotations

from collections import Counter

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing import test_pipeline
from apache_beam.testing.util import assert_that
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.beam import pipeline_options
from tidemill.transform import vocabularies
from tidemill.transform.analysis import ReadParquet
from tidemill.transform.columns import MISSING_TOKEN
from tidemill.transform.moments import AnalyseMoments, CombineMoments
from tidemill.transform.vocabularies import CountTokens, TokenCounts, VocabularySpec, WriteVocabularies


def strings(*values):
    return np.array([v.encode() for v in values], object)


def test_vocabularies_are_written_by_frequency_then_bytes(tmp_path):
    specs = [VocabularySpec("first.txt", 10), VocabularySpec("second.txt", 1, min_frequency=2)]
    batches = [
        (strings("b", "a", "b", "", MISSING_TOKEN), strings("x")),
        (strings("c", "two\nlines"), strings("y", "x", "y", "y")),
    ]
    transform = WriteVocabularies(specs)
    transform.base_temp_dir = str(tmp_path / "written")

    def written(name):
        def check(paths):
            assert [str(path) for path in paths] == [f"{tmp_path}/written/{name}"]

        return check

    with test_pipeline.TestPipeline(options=pipeline_options()) as pipeline:
        first, second = pipeline | beam.Create(batches) | transform
        assert_that(first, written("first.txt"), "first")
        assert_that(second, written("second.txt"), "second")
    assert (tmp_path / "written" / "first.txt").read_text() == f"{MISSING_TOKEN}\nb\na\nc\n"
    assert (tmp_path / "written" / "second.txt").read_text() == f"{MISSING_TOKEN}\ny\n"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text("abcé", min_size=1, max_size=2)), max_size=6), st.integers(1, 5), st.integers(0, 6))
def test_counting_in_any_grouping_equals_counting_at_once(batches, max_size, cut):
    combine = CountTokens([VocabularySpec("v", max_size)])
    halves = []
    for half in (batches[:cut], batches[cut:]):
        accumulator = combine.create_accumulator()
        for batch in half:
            accumulator = combine.add_input(accumulator, (strings(*batch),))
        halves.append(combine.compact(accumulator))
    counts = Counter(token.encode() for batch in batches for token in batch)
    expected = [token for token, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:max_size]
    assert combine.extract_output(combine.merge_accumulators(halves)) == [expected]


def test_counts_stay_bounded_and_keep_the_frequent(monkeypatch):
    monkeypatch.setattr(vocabularies, "_COMPACT_ROWS", 100)
    monkeypatch.setattr(vocabularies, "_MAX_DISTINCT", 200)
    counts = TokenCounts()
    for batch in range(40):
        counts.add(strings(*[f"rare {batch} {i}" for i in range(50)], "often", "often"))
        assert counts.rows <= 500
    assert counts.vocabulary(VocabularySpec("v", 1)) == [b"often"]
    assert counts.counted[0].to_pylist()[0]["count"] == 80


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(*[st.floats(-1e6, 1e6) | st.just(float("nan"))] * 2), max_size=5), min_size=1, max_size=5
    )
)
def test_moments_in_any_grouping_equal_numpy(batches):
    combine = CombineMoments(2)
    arrays = [np.array(batch, np.float64).reshape(-1, 2) for batch in batches]
    accumulators = [combine.add_input(combine.create_accumulator(), (array,)) for array in arrays]
    backwards = combine.extract_output(combine.merge_accumulators(accumulators[::-1]))
    mean, deviation, lowest, highest = found = combine.extract_output(combine.merge_accumulators(accumulators))
    assert np.array_equal(found, backwards)
    for i, column in enumerate(np.concatenate(arrays).T):
        values = column[~np.isnan(column)]
        if len(values):
            assert mean[i] == pytest.approx(values.mean(), abs=1e-6)
            assert deviation[i] == pytest.approx(values.std(), abs=1e-6, rel=1e-9)
            assert (lowest[i], highest[i]) == (values.min(), values.max())


def test_moments_of_the_largest_numbers_do_not_overflow():
    combine = CombineMoments(2)
    huge = np.array([[1e308, 1e-100], [-1e308, 3e-100]])
    mean, deviation, *_ = combine.extract_output(combine.add_input(combine.create_accumulator(), (huge,)))
    np.testing.assert_allclose(mean, [0, 2e-100])
    np.testing.assert_allclose(deviation, [np.inf, 1e-100])


def test_moments_over_a_pipeline():
    def check(found):
        (moments,) = found
        np.testing.assert_allclose(moments, [[2, 5], [1, 0], [1, 5], [3, 5]])

    with test_pipeline.TestPipeline(options=pipeline_options()) as pipeline:
        batches = [(np.array([[1.0, 5.0]]),), (np.array([[3.0, np.nan]]),)]
        assert_that(pipeline | beam.Create(batches) | AnalyseMoments(2), check)


def test_row_groups_are_read_as_batches_of_lists(tmp_path):
    pq.write_table(pa.table({"b": [1, None, 3], "a": ["x", "y", None]}), tmp_path / "p.parquet", row_group_size=2)

    def check(batches):
        rows = [row for batch in sorted(batches, key=lambda b: -b.num_rows) for row in batch.to_pylist()]
        assert rows == [{"a": [b"x"], "b": [1]}, {"a": [b"y"], "b": []}, {"a": [], "b": [3]}]

    with test_pipeline.TestPipeline(options=pipeline_options()) as pipeline:
        row_groups = [(str(tmp_path / "p.parquet"), i) for i in range(2)]
        assert_that(pipeline | ReadParquet(row_groups, {"a": "string", "b": "int64"}), check)
