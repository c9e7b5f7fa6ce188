"""Rates per group and how far they lie apart.

Definitions, with ``D`` the model's answer at the threshold, ``Y`` the label and ``A`` the group:

* *demographic parity*: ``P(D=1 | A)`` (the selection rate) is the same in all groups (Dwork et al. 2012, "Fairness
  through awareness", statistical parity).
* *equal opportunity*: ``P(D=1 | Y=1, A)`` (TPR) is the same (Hardt, Price & Srebro 2016, definition 2.2).
* *equalized odds*: TPR and ``P(D=1 | Y=0, A)`` (FPR) are both the same (Hardt et al. 2016, definition 2.1).
* *predictive parity*: ``P(Y=1 | D=1, A)`` (PPV) is the same (Chouldechova 2017, definition 2.1).

A gap is the largest rate minus the smallest, a ratio the smallest over the largest; the equalized odds gap is the
larger of the gaps of TPR and FPR. Rates have Wilson intervals; the gap and the ratio of the two extreme groups have
Newcombe's and Donner & Zou's. Those hold for two groups chosen beforehand: with many groups the extremes lie apart by
chance too, and the interval of a gap is then somewhat too sure of itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.evaluate.intervals import Interval, difference, effective_size, ratio, wilson
from tidemill.evaluate.metrics import divide

RATES = ("selection_rate", "tpr", "fpr", "fnr", "ppv")
_METRICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "demographic_parity_gap": ("gap", ("selection_rate",)),
    "demographic_parity_ratio": ("ratio", ("selection_rate",)),
    "equal_opportunity_gap": ("gap", ("tpr",)),
    "equal_opportunity_ratio": ("ratio", ("tpr",)),
    "equalized_odds_gap": ("gap", ("tpr", "fpr")),
    "predictive_parity_gap": ("gap", ("ppv",)),
    "predictive_parity_ratio": ("ratio", ("ppv",)),
}


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval; ``size`` is the effective number of rows that it is a share of."""

    value: float
    low: float
    high: float
    size: float

    @property
    def interval(self) -> Interval:
        return self.low, self.high


@dataclass(frozen=True)
class Group:
    """One group of rows.

    Attributes:
        slice: value by sensitive column.
        count: rows.
        weight: their weight.
        rates: by name of :data:`RATES`; NaN where no row could be counted.
    """

    slice: Mapping[str, str]
    count: int
    weight: float
    rates: Mapping[str, Rate]


@dataclass(frozen=True)
class Disparity:
    """How far two extreme groups lie apart. All NaN, and no groups, when fewer than two groups could be compared."""

    value: float
    low: float
    high: float
    rate: str
    lowest: Mapping[str, str] | None
    highest: Mapping[str, str] | None


def groups(moments: Mapping[str, np.ndarray], slices: Sequence[Mapping[str, str]], members: range) -> list[Group]:
    """Returns the groups of one sensitive key.

    Args:
        moments: sums by name (see ``binary.MOMENTS``), float64 [slices].
        slices: value by column of each slice.
        members: numbers of the slices that are the key's groups.
    """
    m = {name: values[members.start : members.stop] for name, values in moments.items()}
    positive2, selected2 = m["positive_weight2"], m["selected_weight2"]
    positives, negatives, selected = m["tp"] + m["fn"], m["fp"] + m["tn"], m["tp"] + m["fp"]
    shares = {
        "selection_rate": (divide(selected, m["weight"]), effective_size(m["weight"], m["weight2"])),
        "tpr": (divide(m["tp"], positives), effective_size(positives, positive2)),
        "fpr": (divide(m["fp"], negatives), effective_size(negatives, m["weight2"] - positive2)),
        "fnr": (divide(m["fn"], positives), effective_size(positives, positive2)),
        "ppv": (divide(m["tp"], selected), effective_size(selected, selected2)),
    }
    bounds = {name: wilson(share, size) for name, (share, size) in shares.items()}
    return [
        Group(
            slices[number],
            int(m["count"][i]),
            float(m["weight"][i]),
            {
                name: Rate(float(share[i]), float(bounds[name][0][i]), float(bounds[name][1][i]), float(size[i]))
                for name, (share, size) in shares.items()
            },
        )
        for i, number in enumerate(members)
    ]


def disparities(all_groups: Sequence[Group], min_examples: int) -> dict[str, Disparity]:
    """Returns every fairness metric over the groups of at least ``min_examples`` rows in which its rate is defined."""
    large = [group for group in all_groups if group.count >= min_examples]
    return {name: _disparity(large, kind, rates) for name, (kind, rates) in _METRICS.items()}


def _disparity(large: Sequence[Group], kind: str, rates: Sequence[str]) -> Disparity:
    found = [_between(large, kind, rate) for rate in rates]
    # A part that isn't defined must not be hidden by one that is.
    return max(found, key=lambda one: math.inf if math.isnan(one.value) else one.value)


def _between(large: Sequence[Group], kind: str, name: str) -> Disparity:
    defined = [group for group in large if not math.isnan(group.rates[name].value)]
    if len(defined) < 2:
        return Disparity(math.nan, math.nan, math.nan, name, None, None)
    lowest = min(defined, key=lambda group: group.rates[name].value)
    highest = max(defined, key=lambda group: group.rates[name].value)
    small, large_rate = lowest.rates[name], highest.rates[name]
    if kind == "gap":
        value = large_rate.value - small.value
        low, high = difference(large_rate.value, large_rate.interval, small.value, small.interval)
    elif large_rate.value == 0:  # nobody is selected in any group: all are treated alike
        value, low, high = 1.0, 0.0, 1.0
    else:
        value = small.value / large_rate.value
        low, high = ratio(small.value, small.interval, large_rate.value, large_rate.interval)
    return Disparity(value, max(low, 0.0), min(high, 1.0), name, lowest.slice, highest.slice)
