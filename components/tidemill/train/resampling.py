"""Training on fewer rows of the larger classes, chosen anew in every epoch.

How many rows of a class a row group gives is the same in all epochs, and which is a function of seed, epoch and row
group alone: so an epoch has a known number of steps, a position in it can be found again, and workers agree on it.
What a model then answers is corrected by the shares; see :class:`tidemill.train.losses.Probabilities`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidemill.errors import ProblemError

_WHERE = "training.resample"


def kept_shares(resample: float | None, counts: Sequence[int], classes: Sequence[str]) -> tuple[float, ...]:
    """Returns the share of the rows that are trained on by class, so that the smallest class has its share of them.

    The larger classes are cut to one size, those that are smaller than that stay whole.

    Args:
        resample: the smallest class's share, as the problem asks; None keeps all, which is told by an empty tuple.
        counts: rows by class.
        classes: their names.

    Raises:
        ProblemError: if the share is more than leaving out rows can give, or there already.
    """
    if resample is None:
        return ()
    if not classes:
        raise ProblemError(_WHERE, "has no meaning for regression")
    present = np.sort([count for count in counts if count])
    smallest, share = present[0], present[0] / present.sum()
    if not share < resample <= 1 / len(present):
        name = classes[list(counts).index(smallest)]
        raise ProblemError(
            _WHERE,
            f"must be more than the {share:.3g} that {name} has of the rows, and at most {1 / len(present):.3g}, which "
            f"makes all {len(present)} classes equal",
            f"{resample:g}",
        )
    # With the i smallest classes whole, the others share what is left of the rows that there are to be.
    total = smallest / resample
    sizes = [(total - present[:i].sum()) / (len(present) - i) for i in range(len(present))]
    size = next(size for i, size in enumerate(sizes) if size <= present[i])
    return tuple(min(count, round(size)) / count if count else 1.0 for count in counts)


def kept_rows(shares: Sequence[float], counts: np.ndarray) -> np.ndarray:
    """Returns the rows of each class that each row group gives to an epoch: int64 [groups, classes].

    Over all groups they are ``shares`` of the rows, rounded once.

    Args:
        counts: rows: int64 [groups, classes].
    """
    upto = np.rint(np.cumsum(counts, axis=0) * np.asarray(shares))
    return np.diff(upto, axis=0, prepend=0).astype(np.int64)


def chosen(labels: np.ndarray, kept: Sequence[int], seed: Sequence[int]) -> np.ndarray:
    """Returns the rows of a row group that are trained on, in their order.

    Args:
        labels: class index by row.
        kept: rows by class.
        seed: of the choice.
    """
    generator = np.random.default_rng(seed)
    rows = [generator.permutation(np.flatnonzero(labels == i))[:count] for i, count in enumerate(kept)]
    return np.sort(np.concatenate(rows))
