"""The model: how it learnt, its metrics against what it has to beat, and its curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tidemill.report import charts
from tidemill.report.charts import Series
from tidemill.report.documents import Confusion, Estimate, Evaluation, History, SliceMetrics
from tidemill.report.evidence import Evidence
from tidemill.report.formats import count, number, words


@dataclass(frozen=True)
class Figure:
    """A chart with its caption and the key to its lines: (class of the swatch, name)."""

    title: str
    chart: Markup
    caption: str = ""
    key: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class MetricRow:
    """One metric over the whole test split."""

    name: str
    estimate: Estimate
    baseline: float | None
    champion: float | None


@dataclass(frozen=True)
class LearningView:
    """The section on training."""

    figures: Sequence[Figure]
    history: History


@dataclass(frozen=True)
class QualityView:
    """The section on the metrics."""

    examples: float
    rows: Sequence[MetricRow]
    has_baseline: bool
    has_champion: bool
    figures: Sequence[Figure]
    confusion: Confusion | None
    confusion_rows: Sequence[tuple[str, Sequence[float]]]
    confusion_total: float


def learning(evidence: Evidence) -> LearningView | None:
    """Returns None without a learning curve."""
    history = evidence.history
    if history is None or not history.epochs:
        return None
    names = dict.fromkeys(name for epoch in history.epochs for name in (*epoch.train, *epoch.eval))
    figures = [figure for name in names if (figure := _curve(history, name))]
    return LearningView(figures, history) if figures else None


def _curve(history: History, name: str) -> Figure | None:
    train = [(e.epoch, v) for e in history.epochs if (v := e.train.get(name)) is not None]
    other = [(e.epoch, v) for e in history.epochs if (v := e.eval.get(name)) is not None]
    drawn = [
        (split, points, tone, kind, swatch)
        for split, points, tone, kind, swatch in (
            ("train", train, 1, "line", "t1"),
            ("eval", other, 2, "dashed", "t2 c-dashed"),
        )
        if points
    ]
    if not drawn:
        return None
    ends = ", ".join(f"{split} ends at {number(points[-1][1])}" for split, points, *_ in drawn)
    series = [Series(split, charts.thinned(points), tone, kind) for split, points, tone, kind, _ in drawn]
    marks = [charts.Mark(history.best_epoch, "kept")] if history.best_epoch and len(history.epochs) > 1 else []
    title = words(name)
    chart = charts.lines(f"{title} by epoch: {ends}", series, x_label="epoch", y_label=title, marks=marks)
    return Figure(title[:1].upper() + title[1:], chart, "", [(swatch, split) for split, *_, swatch in drawn])


def overall(evaluation: Evaluation) -> SliceMetrics | None:
    """Returns the metrics over the whole test split."""
    return next((m for m in evaluation.metrics if not m.slice), None)


def view(evidence: Evidence) -> QualityView | None:
    """Returns None without metrics."""
    evaluation = evidence.metrics
    whole = overall(evaluation) if evaluation else None
    if evaluation is None or whole is None:
        return None
    rows = [
        MetricRow(name, estimate, evaluation.baseline.get(name), evaluation.champion.get(name))
        for name, estimate in whole.values.items()
        if estimate.value is not None
    ]
    confusion = evaluation.confusion
    return QualityView(
        examples=whole.count,
        rows=rows,
        has_baseline=any(row.baseline is not None for row in rows),
        has_champion=any(row.champion is not None for row in rows),
        figures=[f for f in (_roc(evaluation, whole), _pr(evaluation, whole), _reliability(evaluation)) if f],
        confusion=confusion,
        confusion_rows=list(zip(confusion.labels, confusion.counts, strict=False)) if confusion else [],
        confusion_total=sum(map(sum, confusion.counts)) if confusion else 0,
    )


# What people ask for first, in this order, as far as the task has it.
TELLING = ("auc", "accuracy", "r2", "rmse", "mae", "pr_auc", "f1", "log_loss")
_UNIT = (0.0, 1.0)


def _value(metrics: SliceMetrics, name: str) -> str:
    estimate = metrics.values.get(name)
    return f"{number(estimate.value)}" if estimate and estimate.value is not None else ""


def _roc(evaluation: Evaluation, whole: SliceMetrics) -> Figure | None:
    if not evaluation.roc:
        return None
    area = _value(whole, "auc")
    chart = charts.lines(
        f"ROC curve, area under it {area or 'unknown'}",
        [Series("model", charts.thinned(evaluation.roc))],
        x_label="false positive rate", y_label="true positive rate",
        x_domain=_UNIT, y_domain=_UNIT, diagonal=True,
    )  # fmt: skip
    return Figure("ROC", chart, f"Area {area}. The dotted diagonal is chance." if area else "")


def _pr(evaluation: Evaluation, whole: SliceMetrics) -> Figure | None:
    if not evaluation.pr:
        return None
    area = _value(whole, "pr_auc")
    base = whole.values.get("mean_label")
    rules = [charts.Rule(base.value, "base rate", 0)] if base and base.value is not None else []
    chart = charts.lines(
        f"Precision-recall curve, area under it {area or 'unknown'}",
        [Series("model", charts.thinned(evaluation.pr))],
        x_label="recall", y_label="precision", x_domain=_UNIT, y_domain=_UNIT, rules=rules,
    )  # fmt: skip
    return Figure("Precision and recall", chart, f"Area {area}." if area else "")


def _reliability(evaluation: Evaluation) -> Figure | None:
    bins = [
        (b.mean_prediction, b.mean_label, b.count)
        for b in evaluation.calibration
        if b.mean_prediction is not None and b.mean_label is not None and b.count > 0
    ]
    if not bins:
        return None
    whiskers = [(p, *_wilson(y, n)) for p, y, n in bins]
    worst = max(bins, key=lambda b: abs(b[0] - b[1]))
    chart = charts.lines(
        f"Reliability diagram of {len(bins)} bins; furthest from the diagonal: predicted {number(worst[0])}, "
        f"observed {number(worst[1])}, {count(worst[2])} rows",
        [Series("bins", [(p, y) for p, y, _ in bins], 1, "dots", whiskers)],
        x_label="mean prediction", y_label="observed rate", x_domain=_UNIT, y_domain=_UNIT, diagonal=True,
    )  # fmt: skip
    return Figure("Calibration", chart, "Each dot is a bin of predictions; whiskers are 95 % Wilson intervals.")


def _wilson(rate: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Definition: Wilson 1927, the score interval of a proportion."""
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (max(rate * (1 - rate), 0) / n + z * z / (4 * n * n)) ** 0.5
    return max(centre - half, 0.0), min(centre + half, 1.0)
