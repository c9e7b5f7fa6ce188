"""How well one column alone predicts the label: what finds leaks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tidemill.ingest.hashing import mix

_MOST_BINS, _FEWEST_BINS, _ROWS_PER_BIN = 256, 20, 40
_MOST_CLASSES = 20


def predictability(column: pa.Array, target: pa.Array) -> float:
    """Returns how well ``column`` alone predicts ``target`` on rows that it wasn't fitted on.

    The mean target per value (numbers: per quantile; missing is a value) of one half of the rows predicts
    the other half, and the other way round.

    Returns:
        0 for no better than chance, 1 for always right: 2 AUC - 1 for two classes, the share of the errors of the
        most frequent class that are avoided for up to 20 classes or text, R squared for other numbers.
    """
    known = np.flatnonzero(target.is_valid().to_numpy(zero_copy_only=False))
    codes = _codes(column)[known]
    target = target.take(pa.array(known))
    first = mix(np.arange(len(known))) % np.uint64(2) == 0
    if first.all() or not first.any():
        return 0.0
    halves = ((first, ~first), (~first, first))
    classes = target.dictionary_encode()
    labels = classes.indices.to_numpy(zero_copy_only=False)
    if len(classes.dictionary) == 2:
        return float(np.mean([_ranking(codes, labels, *half) for half in halves]))
    if len(classes.dictionary) <= _MOST_CLASSES or pa.types.is_string(target.type):
        return float(np.mean([_classifying(codes, labels, *half) for half in halves]))
    numbers = target.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return float(np.mean([_regressing(codes, numbers, *half) for half in halves]))


def _codes(column: pa.Array) -> np.ndarray:
    """Numbers the values, or the quantiles of numbers so many that their own means would be noise; 0 is missing."""
    bins = max(_FEWEST_BINS, min(_MOST_BINS, len(column) // _ROWS_PER_BIN))
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    encoded = column.dictionary_encode()
    if pa.types.is_string(column.type) or len(encoded.dictionary) <= bins:
        return np.where(valid, encoded.indices.fill_null(0).to_numpy(zero_copy_only=False) + 1, 0)
    numbers = column.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False)
    edges = np.unique(np.quantile(numbers[valid], np.linspace(0, 1, bins + 1)[1:-1]))
    return np.where(valid, np.searchsorted(edges, numbers, side="right") + 1, 0)


def _means(codes: np.ndarray, numbers: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Returns each row's prediction: the mean of the fitted rows with its code, else of all fitted rows."""
    size = int(codes.max()) + 1
    sums = np.bincount(codes[fitted], numbers[fitted], size)
    counts = np.bincount(codes[fitted], minlength=size)
    overall = numbers[fitted].mean()
    return np.where(counts > 0, sums / np.maximum(counts, 1), overall)[codes]


def _ranking(codes: np.ndarray, labels: np.ndarray, fitted: np.ndarray, held: np.ndarray) -> float:
    scores, truth = _means(codes, labels.astype(float), fitted)[held], labels[held]
    _, ranks = np.unique(scores, return_inverse=True)
    size = int(ranks.max()) + 1
    positives, negatives = (np.bincount(ranks[truth == value], minlength=size) for value in (1, 0))
    pairs = positives.sum() * negatives.sum()
    if not pairs:
        return 0.0
    below = np.cumsum(negatives) - negatives
    auc = float((positives * (below + negatives / 2)).sum() / pairs)
    return max(0.0, 2 * auc - 1)


def _classifying(codes: np.ndarray, labels: np.ndarray, fitted: np.ndarray, held: np.ndarray) -> float:
    classes = int(labels.max()) + 1
    pairs, counts = np.unique(codes[fitted].astype(np.int64) * classes + labels[fitted], return_counts=True)
    order = np.argsort(counts, kind="stable")  # so that the most frequent class of a code is written last
    commonest = int(np.bincount(labels[fitted]).argmax())
    guess = np.full(int(codes.max()) + 1, commonest)
    guess[pairs[order] // classes] = pairs[order] % classes
    wrong = float((guess[codes[held]] != labels[held]).mean())
    chance = float((labels[held] != commonest).mean())
    return max(0.0, 1 - wrong / chance) if chance else 0.0


def _regressing(codes: np.ndarray, numbers: np.ndarray, fitted: np.ndarray, held: np.ndarray) -> float:
    residuals = numbers[held] - _means(codes, numbers, fitted)[held]
    spread = float(((numbers[held] - numbers[held].mean()) ** 2).sum())
    return max(0.0, 1 - float((residuals**2).sum()) / spread) if spread else 0.0
