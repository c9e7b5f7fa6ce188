"""The slices: who the model is better or worse for, and how far groups lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tidemill.report import charts, titles
from tidemill.report.documents import Check, Disparity, Estimate, Evaluation, Fairness, FairnessGroup, SliceMetrics
from tidemill.report.evidence import Evidence
from tidemill.report.quality import TELLING

SHOWN = 25
SHOWN_GROUPS = 12
_RATES = ("selection_rate", "tpr", "fpr", "ppv")  # the false negative rate only mirrors the true positive rate
_STATES = ("bad", "warn", "")


@dataclass(frozen=True)
class SliceRow:
    """One slice in the table of one metric; ``state`` is bad if a limit is missed, warn if that didn't decide."""

    slice: Mapping[str, str]
    count: float
    estimate: Estimate
    picture: Markup
    state: str


@dataclass(frozen=True)
class SliceTable:
    """One metric over all slices: those that miss a limit first, then the largest."""

    metric: str
    overall: Estimate | None
    limits: Sequence[float]
    rows: Sequence[SliceRow]
    more: Sequence[SliceRow]


@dataclass(frozen=True)
class DisparityRow:
    """One gap or ratio, and the check on it if the problem limits it."""

    name: str
    disparity: Disparity
    check: Check | None


@dataclass(frozen=True)
class RateCell:
    """One rate of one group."""

    estimate: Estimate
    picture: Markup


@dataclass(frozen=True)
class GroupRow:
    """One group with its rates, in the order of the table's columns."""

    slice: Mapping[str, str]
    count: float
    small: bool
    rates: Sequence[RateCell]


@dataclass(frozen=True)
class FairnessView:
    """One sensitive key."""

    over: Sequence[str]
    min_examples: int | None
    disparities: Sequence[DisparityRow]
    rates: Sequence[str]
    groups: Sequence[GroupRow]
    more: Sequence[GroupRow]


@dataclass(frozen=True)
class SlicesView:
    """The section on slices and fairness."""

    tables: Sequence[SliceTable]
    fairness: Sequence[FairnessView]
    number_of_slices: int


def view(evidence: Evidence) -> SlicesView | None:
    """Returns None if the test split was not sliced."""
    evaluation = evidence.metrics
    if evaluation is None:
        return None
    checks = evidence.blessing.decision.checks if evidence.blessing else ()
    sliced = [m for m in evaluation.metrics if m.slice]
    tables = [_table(evaluation, sliced, name, checks) for name in _metrics(sliced, checks)]
    fairness = [_fairness(f, checks) for f in evaluation.fairness if f.groups]
    return SlicesView(tables, fairness, len(sliced)) if tables or fairness else None


def _metrics(sliced: Sequence[SliceMetrics], checks: Sequence[Check]) -> list[str]:
    """The metrics with a limit on slices, and the most telling one of the task."""
    there = {name for m in sliced for name, e in m.values.items() if e.value is not None}
    limited = sorted({_base(c) for c in checks if c.slice} & there, key=titles.metric_order)
    telling = [name for name in TELLING if name in there]
    return list(dict.fromkeys([*limited, *telling[:1]]))


def _base(check: Check) -> str:
    return check.name.partition(".")[0]


def _table(evaluation: Evaluation, sliced: Sequence[SliceMetrics], metric: str, checks: Sequence[Check]) -> SliceTable:
    whole = evaluation.whole
    reference = whole.values.get(metric) if whole else None
    held = [c for c in checks if _base(c) == metric and c.slice]
    states = {_key(c.slice): _STATES[not c.blocking] for c in held if not c.passed}
    limits = sorted({c.limit for c in held if c.limit is not None and c.name == metric})
    known = [(m, m.values[metric]) for m in sliced if metric in m.values]
    extent = _extent([e for _, e in known] + ([reference] if reference else []), limits)
    at = reference.value if reference else None
    rows = [
        SliceRow(
            m.slice,
            m.count,
            e,
            _whisker(e, extent, at, limits, states.get(_key(m.slice), "")),
            states.get(_key(m.slice), ""),
        )
        for m, e in known
    ]
    rows.sort(key=lambda row: (_STATES.index(row.state), -row.count, _key(row.slice)))
    return SliceTable(metric, reference, limits, rows[:SHOWN], rows[SHOWN:])


def _key(slice_: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(slice_.items()))


def _fairness(fairness: Fairness, checks: Sequence[Check]) -> FairnessView:
    over = ",".join(sorted(fairness.over))
    held = {c.name: c for c in checks}
    disparities = [
        DisparityRow(name, disparity, held.get(f"{name}[{over}]"))
        for name, disparity in sorted(fairness.metrics.items())
    ]
    disparities.sort(key=lambda row: row.check is None)
    shown = [name for name in _RATES if any(name in group.rates for group in fairness.groups)]
    # A group too small to decide lends the scale its values, not its wide intervals.
    scaled = [g.rates if not g.small else _values(g) for g in fairness.groups]
    extents = {name: _extent([rates[name] for rates in scaled if name in rates], ()) for name in shown}
    groups = sorted(fairness.groups, key=lambda g: (-g.count, _key(g.slice)))
    rows = [_group(group, extents) for group in groups]
    return FairnessView(
        fairness.over, fairness.min_examples, disparities, shown, rows[:SHOWN_GROUPS], rows[SHOWN_GROUPS:]
    )


def _values(group: FairnessGroup) -> dict[str, Estimate]:
    return {name: Estimate(value=rate.value) for name, rate in group.rates.items()}


def _group(group: FairnessGroup, extents: Mapping[str, tuple[float, float]]) -> GroupRow:
    cells = []
    for name, extent in extents.items():
        estimate = group.rates.get(name, Estimate())
        cells.append(RateCell(estimate, _whisker(estimate, extent, None, (), "", 150)))
    return GroupRow(group.slice, group.count, group.small, cells)


def _extent(estimates: Sequence[Estimate], limits: Sequence[float]) -> tuple[float, float]:
    ends = [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]
    return charts.domain([*ends, *limits])


def _whisker(
    estimate: Estimate,
    extent: tuple[float, float],
    reference: float | None,
    limits: Sequence[float],
    state: str,
    width: float = 260,
) -> Markup:
    if estimate.value is None:
        return Markup("")
    return charts.whisker(
        estimate.value,
        estimate.low,
        estimate.high,
        extent,
        reference=reference,
        limits=limits,
        state=state,
        width=width,
    )
