"""Curves from counts by bin against the same curves from the scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.evaluate import curves


def histogram(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    index = labels.astype(int) * curves.BINS + curves.bin_index(scores)
    return np.bincount(index, weights, 2 * curves.BINS).reshape(2, -1)


def mann_whitney(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    """The weighted share of (positive, negative) pairs that are in order, ties counting half."""
    positive, negative = labels == 1, labels == 0
    pairs = np.sign(scores[positive][:, None] - scores[negative][None, :]) / 2 + 0.5
    both = weights[positive][:, None] * weights[negative][None, :]
    return float((pairs * both).sum() / both.sum())


def sample(seed: int, rows: int, on_grid: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    scores = generator.beta(2, 3, rows)
    if on_grid:  # one value per interval between thresholds, away from its bounds
        scores = (np.floor(scores * 300) + 0.5) / 300
    labels = (generator.random(rows) < scores).astype(float)
    return labels, scores, generator.gamma(2.0, 0.5, rows)


@pytest.mark.parametrize("seed", range(3))
def test_auc_is_exact_for_scores_that_no_interval_between_thresholds_mixes(seed: int) -> None:
    labels, scores, weights = sample(seed, 1500, on_grid=True)
    assert float(curves.auc(histogram(labels, scores, weights))) == pytest.approx(
        mann_whitney(labels, scores, weights), abs=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(10, 400))
def test_auc_of_any_scores_is_within_its_stated_resolution(seed: int, rows: int) -> None:
    labels, scores, weights = sample(seed, rows, on_grid=False)
    labels[:2] = [0, 1]
    counted = histogram(labels, scores, weights)
    error = abs(float(curves.auc(counted)) - mann_whitney(labels, scores, weights))
    assert error <= float(curves.auc_resolution(counted)) + 1e-12


def test_auc_resolution_is_of_the_order_of_the_bin_width() -> None:
    labels, scores, weights = sample(0, 100_000, on_grid=False)
    assert 0 < float(curves.auc_resolution(histogram(labels, scores, weights))) < 1e-4


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_auc_of_one_class_is_not_defined(label: float) -> None:
    counted = histogram(np.full(5, label), np.linspace(0, 1, 5), np.ones(5))
    assert np.isnan(curves.auc(counted))


def test_pr_auc_interpolates_positives_between_thresholds() -> None:
    """Two positives above one negative above one positive: 2/3 + the integral of Davis & Goadrich."""
    counted = histogram(np.asarray([1.0, 1, 0, 1]), np.asarray([0.9, 0.8, 0.4, 0.2]), np.ones(4))
    assert float(curves.pr_auc(counted)) == pytest.approx(2 / 3 + (1 - 1 * np.log(4 / 3)) / 3)


def test_scores_of_0_and_1_are_counted() -> None:
    counted = histogram(np.asarray([0.0, 1.0]), np.asarray([0.0, 1.0]), np.ones(2))
    assert counted.sum() == 2
    assert float(curves.auc(counted)) == 1.0


def test_the_bins_for_replicates_keep_rare_events_apart() -> None:
    scores = np.asarray([1e-5, 1e-4, 1e-3, 1e-2, 0.5, 0.99, 0.9999])
    assert len(set(curves.coarse_bin_index(scores).tolist())) == len(scores)
    assert curves.coarse_bin_index(np.asarray([0.0, 1.0])).tolist() == [0, curves.COARSE_BINS - 1]
