"""The data: how many rows, what is wrong with them, and how each feature is distributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tidemill.report import charts
from tidemill.report.documents import Anomaly, Distance, FeatureStatistics, SliceStatistics, Statistics
from tidemill.report.evidence import Evidence

SHOWN_FEATURES = 60
SHOWN_SLICES = 20


@dataclass(frozen=True)
class FeatureRow:
    """One feature: the training split's figures, and the eval split's distribution over them."""

    name: str
    train: FeatureStatistics
    missing: Mapping[str, float]
    picture: Markup
    flags: Sequence[str]
    top: str


@dataclass(frozen=True)
class DataView:
    """The section on the data; what isn't known is empty."""

    rows: Mapping[str, int]
    total: int
    duplicates: int | None
    quarantined: int | None
    reasons: Mapping[str, int]
    judged: bool
    anomalies: Sequence[Anomaly]
    skew: Sequence[Distance]
    drift: Sequence[Distance]
    features: Sequence[FeatureRow]
    more_features: Sequence[FeatureRow]
    slices: Sequence[SliceStatistics]
    more_slices: Sequence[SliceStatistics]


def view(evidence: Evidence) -> DataView | None:
    """Returns None if neither the examples nor their statistics are there."""
    examples, statistics, anomalies = evidence.examples, evidence.statistics, evidence.anomalies
    if examples is None and statistics is None and anomalies is None:
        return None
    rows = examples.rows if examples else {n: s.rows for n, s in statistics.splits.items()} if statistics else {}
    found = anomalies.anomalies if anomalies else ()
    features = _features(statistics, found) if statistics else []
    slices = sorted(statistics.slices, key=lambda s: -s.rows) if statistics else []
    return DataView(
        rows=rows,
        total=sum(rows.values()),
        duplicates=examples.duplicates if examples else None,
        quarantined=examples.quarantined if examples else None,
        reasons=_reasons(evidence),
        judged=anomalies is not None,
        anomalies=sorted(found, key=lambda a: (not a.blocking, a.column)),
        skew=_by_distance(anomalies.skew) if anomalies else [],
        drift=_by_distance(anomalies.drift) if anomalies else [],
        features=features[:SHOWN_FEATURES],
        more_features=features[SHOWN_FEATURES:],
        slices=slices[:SHOWN_SLICES],
        more_slices=slices[SHOWN_SLICES:],
    )


def _reasons(evidence: Evidence) -> dict[str, int]:
    """Why rows were quarantined, as ingest counted it."""
    ingest = evidence.task("ingest")
    reasons: Any = ingest.summary.get("quarantine_reasons") if ingest else None
    return {str(k): int(v) for k, v in reasons.items()} if isinstance(reasons, Mapping) else {}


def _by_distance(distances: Sequence[Distance]) -> list[Distance]:
    return sorted(distances, key=lambda d: -d.value)


def _features(statistics: Statistics, anomalies: Sequence[Anomaly]) -> list[FeatureRow]:
    """Features with anomalies first, then in the statistics' order."""
    flags: dict[str, list[str]] = {}
    for anomaly in anomalies:
        flags.setdefault(anomaly.column, []).append(anomaly.type)
    splits = {name: split.features for name, split in statistics.splits.items()}
    train = splits.get("train") or next(iter(splits.values()), {})
    rows = [
        FeatureRow(
            name=name,
            train=feature,
            missing={split: features[name].missing for split, features in splits.items() if name in features},
            picture=_picture(feature, splits.get("eval", {}).get(name)),
            flags=flags.get(name, []),
            top=feature.top_values[0].value if feature.top_values else "",
        )
        for name, feature in train.items()
    ]
    return sorted(rows, key=lambda row: not row.flags)


def _picture(train: FeatureStatistics, other: FeatureStatistics | None) -> Markup:
    if train.histogram:
        bins = train.histogram
        shares = _shares([b.count for b in bins])
        return charts.spark(shares, _rebinned(other, [b.low for b in bins] + [bins[-1].high]) if other else ())
    if train.top_values:
        values = [v.value for v in train.top_values[:12]]
        counts = {v.value: v.count for v in other.top_values} if other else {}
        return charts.spark(
            [v.count / max(train.count, 1) for v in train.top_values[:12]],
            [counts.get(v, 0) / max(other.count, 1) for v in values] if other else (),
        )
    return Markup("")


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [c / total if total else 0.0 for c in counts]


def _rebinned(feature: FeatureStatistics, edges: Sequence[float]) -> list[float]:
    """Shares of another split's histogram over the edges of the training split's, spread evenly within its bins."""
    counts = [0.0] * (len(edges) - 1)
    for b in feature.histogram:
        for i in range(len(counts)):
            low, high = max(b.low, edges[i]), min(b.high, edges[i + 1])
            if high > low:
                counts[i] += b.count * (high - low) / (b.high - b.low)
            elif (
                b.low == b.high
                and edges[i] <= b.low
                and (b.low < edges[i + 1] or i == len(counts) - 1 == b.low - b.low + i)
            ):
                counts[i] += b.count
    return _shares(counts)
