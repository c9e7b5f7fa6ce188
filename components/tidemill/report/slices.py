"""The slices: who the model is better or worse for, and the gaps between groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tidemill.report import charts
from tidemill.report.documents import Check, Estimate, Evaluation, Fairness, SliceMetrics
from tidemill.report.evidence import Evidence
from tidemill.report.quality import TELLING, overall

SHOWN = 25


@dataclass(frozen=True)
class SliceRow:
    """One slice in the table of one metric."""

    slice: Mapping[str, str]
    count: float
    estimate: Estimate
    picture: Markup
    failed: bool


@dataclass(frozen=True)
class SliceTable:
    """One metric over all slices: failing slices first, then the largest."""

    metric: str
    overall: Estimate | None
    rows: Sequence[SliceRow]
    more: Sequence[SliceRow]


@dataclass(frozen=True)
class FairnessCard:
    """One gap or ratio with the groups that it is between."""

    metric: str
    over: Sequence[str]
    value: float | None
    check: Check | None
    rate: str
    rows: Sequence[SliceRow]


@dataclass(frozen=True)
class SlicesView:
    """The section on slices and fairness."""

    tables: Sequence[SliceTable]
    fairness: Sequence[FairnessCard]
    number_of_slices: int


def view(evidence: Evidence) -> SlicesView | None:
    """Returns None if the test split was not sliced."""
    evaluation = evidence.metrics
    if evaluation is None:
        return None
    checks = evidence.blessing.decision.checks if evidence.blessing else ()
    sliced = [m for m in evaluation.metrics if m.slice]
    tables = [_table(evaluation, sliced, name, checks) for name in _metrics(sliced, checks)] if sliced else []
    fairness = [_card(f, checks) for f in evaluation.fairness]
    if not tables and not fairness:
        return None
    return SlicesView(tables, fairness, len(sliced))


def _metrics(sliced: Sequence[SliceMetrics], checks: Sequence[Check]) -> list[str]:
    """The metrics with a limit on slices, and the most telling one of the task."""
    there = {name for m in sliced for name, e in m.values.items() if e.value is not None}
    limited = [c.name for c in checks if c.slice and c.name in there]
    telling = next((name for name in TELLING if name in there), None)
    names = dict.fromkeys([*limited, *([telling] if telling else sorted(there)[:1])])
    return list(names)


def _table(evaluation: Evaluation, sliced: Sequence[SliceMetrics], metric: str, checks: Sequence[Check]) -> SliceTable:
    whole = overall(evaluation)
    reference = whole.values.get(metric) if whole else None
    held = [c for c in checks if c.name == metric]
    failing = {tuple(sorted(c.slice.items())) for c in held if not c.passed}
    limits = sorted({c.limit for c in held if c.slice and c.limit is not None})
    known = [(m, m.values[metric]) for m in sliced if metric in m.values]
    extent = _extent([e for _, e in known] + ([reference] if reference else []), limits)
    rows = []
    for m, estimate in known:
        failed = tuple(sorted(m.slice.items())) in failing
        at = reference.value if reference else None
        rows.append(SliceRow(m.slice, m.count, estimate, _whisker(estimate, extent, at, limits, failed), failed))
    rows.sort(key=lambda row: (not row.failed, -row.count, sorted(row.slice.items())))
    return SliceTable(metric, reference, rows[:SHOWN], rows[SHOWN:])


def _card(fairness: Fairness, checks: Sequence[Check]) -> FairnessCard:
    check = next(
        (c for c in checks if c.name == fairness.metric and (not c.slice or set(c.slice) == set(fairness.over))), None
    )
    estimates = [Estimate(value=g.value, low=g.low, high=g.high) for g in fairness.groups]
    extent = _extent(estimates, ())
    rows = [
        SliceRow(g.slice, g.count, e, _whisker(e, extent, None, (), False), False)
        for g, e in zip(fairness.groups, estimates, strict=True)
    ]
    return FairnessCard(
        fairness.metric, fairness.over, fairness.value, check, "rate", sorted(rows, key=lambda r: -r.count)
    )


def _extent(estimates: Sequence[Estimate], limits: Sequence[float]) -> tuple[float, float]:
    ends = [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]
    return charts.domain([*ends, *limits])


def _whisker(
    estimate: Estimate, extent: tuple[float, float], at: float | None, limits: Sequence[float], failed: bool
) -> Markup:
    if estimate.value is None:
        return Markup("")
    return charts.whisker(
        estimate.value, estimate.low, estimate.high, extent, reference=at, limits=limits, failed=failed
    )
