"""Curves over thresholds from counts by bin, at TFMA's own 10,000 thresholds.

TFMA counts predictions in 10,000 buckets of [0, 1] and maps the buckets onto the 9,999 intervals between its
thresholds (-1e-7, 1/9999, 2/9999, …, 1 + 1e-7). The same is done here, so that areas under curves agree with TFMA's
to rounding. Against the area over the raw scores, ties within one interval are the only difference: it is at most half
the share of (positive, negative) pairs that share an interval, see :func:`auc_resolution`.
"""

from __future__ import annotations

import numpy as np

THRESHOLDS = 10_000
_EPSILON = 1e-7
_BUCKETS = 10_000
_SPREAD = 12.0  # log odds beyond which replicates don't tell predictions apart
COARSE_BINS = 240


def thresholds() -> np.ndarray:
    """Returns TFMA's thresholds, float64 [10000], ascending from -1e-7 to 1 + 1e-7."""
    inner = np.arange(1, THRESHOLDS - 1) / (THRESHOLDS - 1)
    return np.concatenate([[-_EPSILON], inner, [1 + _EPSILON]])


def _bucket_bins() -> np.ndarray:
    """Returns the interval between thresholds that each bucket falls into, int64 [10002].

    A bucket goes where its left edge lies; the edge buckets (below 0, from 1 on) go to the ends.
    """
    edges = np.arange(-1, _BUCKETS + 1) / _BUCKETS
    edges[0], edges[-1] = -np.inf, np.inf
    bins = np.searchsorted(thresholds() + _EPSILON, edges, side="right") - 1
    return np.clip(bins, 0, THRESHOLDS - 2)


_BUCKET_BINS = _bucket_bins()
BINS = THRESHOLDS - 1


def bin_index(predictions: np.ndarray) -> np.ndarray:
    """Returns the interval between TFMA's thresholds of each prediction, int64 [rows], in [0, 9998]."""
    bucket = (predictions.astype(np.float64) * _BUCKETS + 1).astype(np.int64)
    return _BUCKET_BINS[np.clip(bucket, 0, _BUCKETS + 1)]


def coarse_bin_index(predictions: np.ndarray) -> np.ndarray:
    """Returns one of 240 bins that are even in log odds: they order rare-event scores as well as balanced ones."""
    clipped = np.clip(predictions.astype(np.float64), _EPSILON, 1 - _EPSILON)
    logit = np.log(clipped) - np.log1p(-clipped)
    return np.clip(((logit + _SPREAD) * (COARSE_BINS / (2 * _SPREAD))).astype(np.int64), 0, COARSE_BINS - 1)


def cumulative(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weight of true and of false positives at each threshold.

    Args:
        histogram: weight by label and bin, float [..., 2, bins].

    Returns:
        Two arrays [..., bins + 1]; the last threshold lies above all predictions.
    """
    above = np.flip(np.cumsum(np.flip(histogram, -1), -1), -1)
    above = np.concatenate([above, np.zeros_like(above[..., :1])], -1)
    return above[..., 1, :], above[..., 0, :]


def auc(histogram: np.ndarray) -> np.ndarray:
    """Returns the area under the ROC curve, [...], by the trapezoidal rule; NaN where there is one class only.

    (TFMA answers 0 where there is one class only.)
    """
    tp, fp = cumulative(histogram)
    area = np.sum((fp[..., :-1] - fp[..., 1:]) * (tp[..., :-1] + tp[..., 1:]), -1) / 2
    return _divide(area, tp[..., 0] * fp[..., 0])


def auc_resolution(histogram: np.ndarray) -> np.ndarray:
    """Returns how far :func:`auc` can be from the area over the raw scores: half the share of tied pairs."""
    tied = np.sum(histogram[..., 0, :] * histogram[..., 1, :], -1)
    return _divide(tied / 2, np.prod(histogram.sum(-1), -1))


def pr_auc(histogram: np.ndarray) -> np.ndarray:
    """Returns the area under the precision-recall curve, [...]; NaN where there are no positives.

    Between thresholds true and false positives are interpolated, not their ratio (Davis & Goadrich 2006), as TFMA
    and Keras do.
    """
    tp, fp = cumulative(histogram)
    predicted = tp + fp
    step_tp, step = tp[..., :-1] - tp[..., 1:], predicted[..., :-1] - predicted[..., 1:]
    slope = _divide(step_tp, step)
    intercept = tp[..., 1:] - slope * predicted[..., 1:]
    ratio = np.divide(predicted[..., :-1], predicted[..., 1:], out=np.ones_like(step), where=predicted[..., 1:] > 0)
    return _divide(np.nansum(slope * (step_tp + intercept * np.log(ratio)), -1), tp[..., 0])


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divides where the denominator is positive; elsewhere the result is NaN."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
