"""The data: how many rows, what is wrong with them, and how each column is distributed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tidemill.report import charts
from tidemill.report.documents import (
    Anomaly,
    Distance,
    FeatureStatistics,
    Histogram,
    LabelStatistics,
    SliceStatistics,
    Statistics,
)
from tidemill.report.evidence import Evidence
from tidemill.report.titles import split_order

SHOWN_FEATURES = 60
SHOWN_SLICES = 20
SHOWN_CLASSES = 12
_BARS = 12
_TELLING_SHARE = 0.05  # of rows in the shown values; below it a column is more like an identifier


@dataclass(frozen=True)
class FeatureRow:
    """One column: the training split's figures, and the eval split's distribution over them."""

    name: str
    type: str
    read: bool
    train: FeatureStatistics
    missing: Mapping[str, float | None]
    picture: Markup
    flags: Sequence[str]


@dataclass(frozen=True)
class SliceRow:
    """One sensitive slice of the training split; ``rate`` is the positive label's share of it, or the label's mean."""

    slice: Mapping[str, str]
    rows: int
    rate: float | None


@dataclass(frozen=True)
class LabelRow:
    """One class of the label and its share of each split."""

    name: str
    shares: Mapping[str, float | None]


@dataclass(frozen=True)
class DataView:
    """The section on the data; what isn't known is empty.

    Attributes:
        rows: by split, train first.
        reasons: why rows were quarantined.
        judged: whether anomalies were looked for.
        compared: whether there was a released run to measure drift from.
        rates: whether the label is a class, so that its rate is a share.
    """

    rows: Mapping[str, int]
    total: int
    duplicates: int | None
    quarantined: int | None
    reasons: Mapping[str, int]
    judged: bool
    compared: bool
    schema: str
    anomalies: Sequence[Anomaly]
    skew: Sequence[Distance]
    drift: Sequence[Distance]
    label: str
    positive: str
    classes: Sequence[LabelRow]
    rates: bool
    features: Sequence[FeatureRow]
    more_features: Sequence[FeatureRow]
    slices: Sequence[SliceRow]
    more_slices: Sequence[SliceRow]


def view(evidence: Evidence) -> DataView | None:
    """Returns None if neither the examples nor their statistics are there."""
    examples, anomalies = evidence.examples, evidence.anomalies
    if examples is None and evidence.statistics is None and anomalies is None:
        return None
    statistics = evidence.statistics or Statistics()
    rows = examples.rows if examples else {name: split.rows for name, split in statistics.splits.items()}
    rows = {name: rows[name] for name in sorted(rows, key=split_order)}
    found = anomalies.anomalies if anomalies else ()
    features = _features(statistics, found, list(rows))
    labels = {name: statistics.splits[name].label for name in rows if name in statistics.splits}
    rates = not any(label.mean is not None for label in labels.values())
    slices = _slices(statistics)
    return DataView(
        rows=rows,
        total=sum(rows.values()),
        duplicates=examples.duplicates if examples else None,
        quarantined=examples.quarantined if examples else None,
        reasons=_reasons(evidence),
        judged=anomalies is not None,
        compared=bool(anomalies and anomalies.drift),
        schema=statistics.schema_source,
        anomalies=sorted(found, key=lambda a: (not a.blocking, a.column)),
        skew=_by_distance(anomalies.skew) if anomalies else [],
        drift=_by_distance(anomalies.drift) if anomalies else [],
        label=statistics.label.column,
        positive=statistics.label.classes[1] if len(statistics.label.classes) == 2 else "",
        classes=_classes(labels),
        rates=rates,
        features=features[:SHOWN_FEATURES],
        more_features=features[SHOWN_FEATURES:],
        slices=slices[:SHOWN_SLICES],
        more_slices=slices[SHOWN_SLICES:],
    )


def _reasons(evidence: Evidence) -> dict[str, int]:
    ingest = evidence.task("ingest")
    reasons: Any = ingest.summary.get("reasons") if ingest else None
    known = reasons.items() if isinstance(reasons, Mapping) else ()
    return {str(reason): rows for reason, rows in known if isinstance(rows, int)}


def _by_distance(distances: Sequence[Distance]) -> list[Distance]:
    """What exceeds its limit first, then what is nearest to it."""
    measured = [d for d in distances if d.value is not None]
    return sorted(measured, key=lambda d: (not d.exceeded, -(d.value or 0) / (d.bound or 1), d.column))


def _classes(labels: Mapping[str, LabelStatistics]) -> list[LabelRow]:
    names = dict.fromkeys(name for label in labels.values() for name in label.shares)
    if not names:
        means = {split: label.mean for split, label in labels.items()}
        return [LabelRow("mean", means)] if any(mean is not None for mean in means.values()) else []
    rows = [LabelRow(name, {split: label.shares.get(name) for split, label in labels.items()}) for name in names]
    rows.sort(key=lambda row: -max(share or 0 for share in row.shares.values()))
    return rows[:SHOWN_CLASSES]


def _slices(statistics: Statistics) -> list[SliceRow]:
    train = statistics.splits.get("train")
    slices: Sequence[SliceStatistics] = train.slices if train else ()
    rows = [SliceRow(s.slice, s.rows, s.label.positive_rate if s.label.mean is None else s.label.mean) for s in slices]
    return sorted(rows, key=lambda row: (-row.rows, sorted(row.slice.items())))


def _features(statistics: Statistics, anomalies: Sequence[Anomaly], splits: Sequence[str]) -> list[FeatureRow]:
    """Columns with anomalies first, then those that the model reads, then the rest."""
    flags: dict[str, list[str]] = {}
    for anomaly in anomalies:
        if anomaly.type not in flags.setdefault(anomaly.column, []):
            flags[anomaly.column].append(anomaly.type)
    known = {name: split.features for name, split in statistics.splits.items()}
    train = known.get("train") or next(iter(known.values()), {})
    rows = []
    for name, feature in train.items():
        column = statistics.columns.get(name)
        rows.append(
            FeatureRow(
                name=name,
                type=column.type if column else "",
                read=column.read if column else True,
                train=feature,
                missing={s: known[s][name].missing_share for s in splits if name in known.get(s, {})},
                picture=_picture(feature, known.get("eval", {}).get(name)),
                flags=flags.get(name, []),
            )
        )
    return sorted(rows, key=lambda row: (not row.flags, not row.read, row.name))


def _picture(train: FeatureStatistics, other: FeatureStatistics | None) -> Markup:
    """The distribution in training, and over it the one in eval: by value for a category, else by equal widths."""
    if train.histogram.counts:
        over = rebinned(other.histogram, train.histogram.edges) if other else []
        return charts.spark(_shares(train.histogram.counts), _shares(over))
    shares = [n / max(train.count, 1) for _, n in train.top[:_BARS]]
    if sum(shares) < _TELLING_SHARE:
        return Markup("")
    counts = dict(other.top) if other else {}
    values = [value for value, _ in train.top[:_BARS]]
    # A value that isn't among the other split's most frequent has an unknown share there, not none.
    complete = other is not None and (other.unique or 0) <= len(other.top)
    if other is None or not (complete or all(value in counts for value in values)):
        return charts.spark(shares)
    return charts.spark(shares, [counts.get(value, 0) / max(other.count, 1) for value in values])


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [count / total for count in counts] if total else []


def rebinned(histogram: Histogram, edges: Sequence[float]) -> list[float]:
    """Returns a histogram's counts over other edges, its rows spread evenly within its bins; outside is left out."""
    counts = [0.0] * (len(edges) - 1)
    for low, high, count in zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False):
        for i, (start, end) in enumerate(itertools.pairwise(edges)):
            if low == high:
                inside = 1.0 if start <= low < end or (i == len(counts) - 1 and low == end) else 0.0
            else:
                inside = max(min(high, end) - max(low, start), 0.0) / (high - low)
            counts[i] += count * inside
    return counts
