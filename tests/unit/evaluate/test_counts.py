"""Counts add up: over batches in any order, over the slices of a key, over bootstrap draws."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.evaluate.binary import BinaryCells, binary_metrics
from tidemill.evaluate.counts import REPLICATES, CountRows, Counts, Scored, Sums, draws
from tidemill.evaluate.metrics import estimate

SIZES = (1, 3)


def batch(seed: int, rows: int) -> Scored:
    generator = np.random.default_rng(seed)
    probability = generator.random(rows).astype(np.float32)
    labels = (generator.random(rows) < probability).astype(float)
    codes = [np.zeros(rows, np.int64), generator.integers(0, 3, rows)]
    return Scored(seed * 1000, labels, generator.gamma(2.0, 0.5, rows), codes, {"candidate": probability})


COMBINER = CountRows({"candidate": BinaryCells(0.5)}, SIZES)


def summed(*batches: Scored) -> Sums:
    accumulator = COMBINER.create_accumulator()
    for one in batches:
        accumulator = COMBINER.add_input(accumulator, one)
    return accumulator


def counted(*batches: Scored) -> Counts:
    return COMBINER.extract_output(summed(*batches))


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), order=st.randoms())
def test_merging_does_not_depend_on_the_order(sizes: list[int], order: random.Random) -> None:
    batches = [batch(i, rows) for i, rows in enumerate(sizes)]
    shuffled = list(batches)
    order.shuffle(shuffled)
    whole = counted(*batches)
    # Workers get a part each, and their sums are brought together in any order too.
    workers = [summed(*shuffled[::2]), summed(*shuffled[1::2])]
    merged = COMBINER.extract_output(COMBINER.merge_accumulators(workers))
    assert set(whole) == set(merged)
    for name, array in whole.items():
        np.testing.assert_array_equal(merged[name], array)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 200))
def test_the_slices_of_a_key_add_up_to_the_whole(seed: int, rows: int) -> None:
    for name, array in counted(batch(seed, rows)).items():
        np.testing.assert_allclose(array[1:].sum(0), array[0], rtol=1e-12, atol=1e-12, err_msg=name)


def test_empty_counts_are_zero() -> None:
    one = counted(batch(1, 5))
    merged = COMBINER.extract_output(COMBINER.merge_accumulators([Sums(), summed(batch(1, 5)), Sums()]))
    assert all((merged[name] == array).all() for name, array in one.items())


def test_an_infinite_sum_stays_infinite() -> None:
    sums = Sums()
    for value in (1.0, np.inf, 2.0):
        sums.add("x", np.array([value, 1.0]))
    np.testing.assert_array_equal(sums.counts()["x"], [np.inf, 3.0])


def test_a_row_has_the_same_draws_whenever_it_is_counted() -> None:
    assert (draws(4096, 100) == draws(4096, 100)).all()
    assert (draws(0, 100) != draws(4096, 100)).any()
    assert draws(0, 20_000).mean() == pytest.approx(1.0, abs=0.01)


def test_replicates_vary_as_much_as_theory_says() -> None:
    """The bootstrap's standard deviation of a mean is close to s / sqrt(n), weights of 1."""
    rows = 4000
    one = batch(7, rows)
    one = Scored(0, one.labels, np.ones(rows), one.codes, one.outputs)
    counts = counted(one)
    point, resampled = binary_metrics(counts, "candidate")
    squared = (one.outputs["candidate"].astype(float) - one.labels) ** 2
    assert float(point.values["brier"][0]) == pytest.approx(squared.mean())
    assert resampled.values["brier"].shape == (REPLICATES, 4)
    spread = resampled.values["brier"][:, 0].std(ddof=1)
    assert spread == pytest.approx(squared.std() / np.sqrt(rows), rel=0.4)
    found = estimate("binary_classification", point, resampled)
    assert found.low["auc"][0] < found.values["auc"][0] < found.high["auc"][0]
    # The replicates' bins are coarser than TFMA's, and must not be so coarse as to move the metric.
    assert resampled.values["auc"][:, 0].mean() == pytest.approx(float(point.values["auc"][0]), abs=0.01)


def test_a_perfect_score_on_few_rows_has_no_interval_rather_than_one_without_width() -> None:
    probability = np.asarray([0.1, 0.2, 0.8, 0.9], np.float32)
    codes = [np.zeros(4, np.int64), np.zeros(4, np.int64)]
    labels = np.asarray([0.0, 0, 1, 1])
    counts = counted(Scored(0, labels, np.ones(4), codes, {"candidate": probability}))
    found = estimate("binary_classification", *binary_metrics(counts, "candidate"))
    assert found.values["auc"][0] == 1
    assert np.isnan([found.low["auc"][0], found.high["auc"][0]]).all()
    assert found.low["accuracy"][0] < 1


def test_an_answer_that_is_not_a_number_makes_its_slices_undefined_and_no_others() -> None:
    one = batch(3, 300)
    spoilt = one.outputs["candidate"].copy()
    spoilt[np.flatnonzero(one.codes[1] == 2)[0]] = np.nan
    values = binary_metrics(counted(Scored(0, one.labels, one.weights, one.codes, {"candidate": spoilt})), "candidate")
    for name in ("auc", "accuracy", "log_loss"):
        assert np.isnan(values[0].values[name]).tolist() == [True, False, False, True]
    assert values[0].values["example_count"][0] == 300
