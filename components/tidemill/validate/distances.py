"""Skew and drift: how far a distribution has moved, and how far chance alone would move it.

What is compared: the columns that the model reads, and the label. Not text, dates, images and columns with
more than ``MAX_COMPARED_VALUES`` distinct values, whose distance says more about the sample than about the data.

=========  ==========================================================================================
category   L-infinity: the largest difference of any value's share
quantity   Jensen-Shannon divergence in bits, over the bins that the training split's quantiles cut
any        missing share: its absolute difference
=========  ==========================================================================================

TFDV's comparators measure the first two. Its histograms are brought to common bins before: left to itself it takes
the rows in a bin for evenly spread, and then two samples of one distribution are far apart whenever that is heavy in
its tails (equal-width bins: 0.67 for samples of 40,000 and 5,000 Pareto values) or lies on a lattice (quantile bins:
0.15 for a taxi's trip times in whole minutes).

A distance fails when it is above the limit **plus** what two samples of these sizes from one and the same
distribution differ by, up to three standard deviations: small splits are compared leniently, not falsely accused.

- A share p estimated from n and m rows differs with standard deviation sqrt(p(1-p)(1/n+1/m)); for L-infinity p = 1/2
  is taken, the worst case.
- The divergence of two samples over K bins is about (1/n + 1/m)/(8 ln 2) times a chi-squared variable of K-1 degrees
  of freedom (the second-order expansion of the divergence around equality), of mean K-1 and variance 2(K-1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from tidemill.validate.columns import Role
from tidemill.validate.statistics import QUANTILES

Kind = Literal["skew", "drift"]
Measure = Literal["l_infinity", "jensen_shannon", "missing_share"]
MAX_COMPARED_VALUES = 1000
_DEVIATIONS = 3.0
_ENVIRONMENT = "COMPARED"
_TYPES = {
    statistics_pb2.FeatureNameStatistics.INT: schema_pb2.INT,
    statistics_pb2.FeatureNameStatistics.FLOAT: schema_pb2.FLOAT,
    statistics_pb2.FeatureNameStatistics.STRING: schema_pb2.BYTES,
}


@dataclass(frozen=True)
class Distance:
    """One column, compared between two sets of rows.

    Attributes:
        value: the distance, or None if the column could not be compared; ``reason`` then says why.
        limit: what the problem or the curated schema allows.
        allowance: what chance adds at most, for this many rows.
        rows: rows with a value (for missing_share: all rows) on either side.
        where: the value that moved most, where the measure tells.
    """

    column: str
    measure: Measure
    value: float | None
    limit: float
    allowance: float = 0.0
    rows: tuple[int, int] = (0, 0)
    where: str = ""
    reason: str = ""

    @property
    def exceeded(self) -> bool:
        return self.value is not None and self.value > self.limit + self.allowance


def compare(
    kind: Kind,
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    other: statistics_pb2.DatasetFeatureStatisticsList,
    roles: Mapping[str, Role],
    read: frozenset[str],
    limit: float,
    curated: schema_pb2.Schema | None = None,
) -> list[Distance]:
    """Compares the columns ``read`` of two statistics, which hold one dataset each.

    Args:
        kind: whose comparators of the curated schema override ``limit``.
        statistics: of the training split.
        other: of the eval split (skew), or of the training split of the last released run (drift).
        roles: what each column is read as.
        read: the columns to compare.
        limit: the largest distance allowed.
        curated: a schema whose comparators, where it has any, set a column's own limit.

    Returns:
        Distances by column and measure, in the order of the columns' names.
    """
    ours = {feature.path.step[0]: feature for feature in statistics.datasets[0].features}
    theirs = {feature.path.step[0]: feature for feature in other.datasets[0].features}
    limits = _own_limits(kind, curated)
    distances = []
    wanted: list[Distance] = []
    for column in sorted(read & set(ours)):
        if column not in theirs:
            measure: Measure = "l_infinity" if roles[column] == "category" else "jensen_shannon"
            distances.append(Distance(column, measure, None, limit, reason="the other side does not have it"))
            continue
        distances.append(_missing(column, statistics, other, ours[column], theirs[column], limit))
        if roles[column] != "other":
            distance = _planned(column, roles[column], ours[column], theirs[column], limits.get(column, limit))
            (distances if distance.reason else wanted).append(distance)
    measured = _measure(kind, ours, theirs, wanted)
    return sorted([*distances, *measured], key=lambda distance: (distance.column, distance.measure))


def _own_limits(kind: Kind, curated: schema_pb2.Schema | None) -> dict[str, float]:
    limits = {}
    for feature in curated.feature if curated else ():
        comparator = feature.skew_comparator if kind == "skew" else feature.drift_comparator
        for field in ("infinity_norm", "jensen_shannon_divergence"):
            if comparator.HasField(field):
                limits[feature.name] = getattr(comparator, field).threshold
    return limits


def _planned(
    column: str,
    role: Role,
    ours: statistics_pb2.FeatureNameStatistics,
    theirs: statistics_pb2.FeatureNameStatistics,
    limit: float,
) -> Distance:
    """Returns the distance still to be measured, or with the reason why it can't be."""
    measure: Measure = "l_infinity" if role == "category" else "jensen_shannon"
    if ours.WhichOneof("stats") != theirs.WhichOneof("stats"):
        return Distance(column, measure, None, limit, reason="its type or its use changed")
    n, m = _present(ours), _present(theirs)
    if not n or not m:
        return Distance(column, measure, None, limit, rows=(n, m), reason="it has no value on one side")
    unique = max(ours.string_stats.unique, theirs.string_stats.unique)
    if unique > MAX_COMPARED_VALUES:
        reason = f"{unique} distinct values are too many to compare their shares"
        return Distance(column, measure, None, limit, rows=(n, m), reason=reason)
    if role == "category":
        allowance = _DEVIATIONS * 0.5 * math.sqrt(1 / n + 1 / m)
    else:
        spread = QUANTILES - 1 + _DEVIATIONS * math.sqrt(2 * (QUANTILES - 1))
        allowance = spread * (1 / n + 1 / m) / (8 * math.log(2))
    return Distance(column, measure, None, limit, allowance, (n, m))


def _present(feature: statistics_pb2.FeatureNameStatistics) -> int:
    return int(_common(feature).num_non_missing)


def _common(feature: statistics_pb2.FeatureNameStatistics) -> statistics_pb2.CommonStatistics:
    return getattr(feature, feature.WhichOneof("stats")).common_stats  # type: ignore[no-any-return]


def _missing(
    column: str,
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    other: statistics_pb2.DatasetFeatureStatisticsList,
    ours: statistics_pb2.FeatureNameStatistics,
    theirs: statistics_pb2.FeatureNameStatistics,
    limit: float,
) -> Distance:
    n, m = statistics.datasets[0].num_examples, other.datasets[0].num_examples
    missing = (n - _present(ours), m - _present(theirs))
    pooled = sum(missing) / (n + m)
    allowance = _DEVIATIONS * math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return Distance(column, "missing_share", abs(missing[0] / n - missing[1] / m), limit, allowance, (n, m))


def _measure(
    kind: Kind,
    ours: Mapping[str, statistics_pb2.FeatureNameStatistics],
    theirs: Mapping[str, statistics_pb2.FeatureNameStatistics],
    wanted: list[Distance],
) -> list[Distance]:
    """Lets TFDV measure; the thresholds it gets are 0, so that it names the value that moved most."""
    schema = schema_pb2.Schema(default_environment=[_ENVIRONMENT])
    sides = [statistics_pb2.DatasetFeatureStatisticsList() for _ in range(2)]
    for distance in wanted:
        pair = (ours[distance.column], theirs[distance.column])
        # TFDV passes over the comparators of a feature without a type.
        feature = schema.feature.add(name=distance.column, type=_TYPES[pair[0].type])
        comparator = feature.skew_comparator if kind == "skew" else feature.drift_comparator
        if distance.measure == "l_infinity":
            feature.int_domain.is_categorical = feature.type == schema_pb2.INT
            comparator.infinity_norm.threshold = 0.0
        else:
            pair = _in_common_bins(*pair)
            comparator.jensen_shannon_divergence.threshold = 0.0
            comparator.jensen_shannon_divergence.source.type = schema_pb2.HistogramSelection.STANDARD
        for side, compared in zip(sides, pair, strict=True):
            (side.datasets or [side.datasets.add()])[0].features.append(compared)
    if not wanted:
        return []
    for side, rows in zip(sides, (ours, theirs), strict=True):
        side.datasets[0].num_examples = max(_present(feature) for feature in rows.values())
    other = {"serving_statistics" if kind == "skew" else "previous_statistics": sides[1]}
    found = tfdv.validate_statistics(sides[0], schema, _ENVIRONMENT, **other)
    measurements = {
        info.path.step[0]: info.skew_measurements if kind == "skew" else info.drift_measurements
        for info in found.drift_skew_info
    }
    return [
        replace(
            distance,
            value=measurements[distance.column][0].value,
            where=_most_moved(found.anomaly_info.get(distance.column)),
        )
        for distance in wanted
    ]


def _in_common_bins(
    ours: statistics_pb2.FeatureNameStatistics, theirs: statistics_pb2.FeatureNameStatistics
) -> tuple[statistics_pb2.FeatureNameStatistics, statistics_pb2.FeatureNameStatistics]:
    """Returns copies with histograms over the same bins: those that the quantiles of ``ours`` cut, open at the ends.

    A bin takes its upper edge in, so that a value that many rows have falls into one bin on both sides. Bins are
    numbered 0, 1, …: only their shares matter to the divergence.
    """
    highs = [bucket.high_value for bucket in _quantiles(ours)][:-1]
    edges = np.array(sorted({high for high in highs if math.isfinite(high)}))
    copies = []
    for feature in (ours, theirs):
        below = [_rows_up_to(edge, feature) for edge in edges]
        total = sum(bucket.sample_count for bucket in _quantiles(feature))
        copy = statistics_pb2.FeatureNameStatistics()
        copy.CopyFrom(feature)
        del copy.num_stats.histograms[:]
        histogram = copy.num_stats.histograms.add(type=statistics_pb2.Histogram.STANDARD)
        for i, rows in enumerate(np.diff([0.0, *below, total])):
            histogram.buckets.add(low_value=i, high_value=i + 1, sample_count=max(0.0, rows))
        copies.append(copy)
    return copies[0], copies[1]


def _quantiles(feature: statistics_pb2.FeatureNameStatistics) -> list[statistics_pb2.Histogram.Bucket]:
    histograms = feature.num_stats.histograms
    return [b for h in histograms if h.type == statistics_pb2.Histogram.QUANTILES for b in h.buckets]


def _rows_up_to(edge: float, feature: statistics_pb2.FeatureNameStatistics) -> float:
    """Returns how many rows are at most ``edge``, taking those between two quantiles for evenly spread."""
    rows = 0.0
    for bucket in _quantiles(feature):
        low, high = bucket.low_value, bucket.high_value
        if high <= edge:
            rows += bucket.sample_count
        elif low < edge and math.isfinite(high - low):
            rows += bucket.sample_count * (edge - low) / (high - low)
    return rows


def _most_moved(anomaly: anomalies_pb2.AnomalyInfo | None) -> str:
    marker = "maximum difference is: "
    for reason in anomaly.reason if anomaly else ():
        if marker in reason.description:
            return str(reason.description.partition(marker)[2]).strip()
    return ""
