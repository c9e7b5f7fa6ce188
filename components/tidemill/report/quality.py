"""The model: how it learnt, its metrics against what it has to beat, and its curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tidemill.report import charts, titles
from tidemill.report.charts import Rule, Series
from tidemill.report.documents import Confusion, Difference, Estimate, Evaluation, History, Rival, SliceMetrics
from tidemill.report.evidence import Evidence
from tidemill.report.formats import count, number

# What people ask for first, in this order, as far as the task has it.
TELLING = ("auc", "accuracy", "r2", "rmse", "mae", "pr_auc", "f1", "log_loss")
SHOWN_CLASSES = 12
_UNIT = (0.0, 1.0)


@dataclass(frozen=True)
class Figure:
    """A chart with its caption and the key to its lines: (class of the swatch, name)."""

    title: str
    chart: Markup
    caption: str = ""
    key: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class LearningView:
    """The section on training."""

    figures: Sequence[Figure]
    history: History


@dataclass(frozen=True)
class MetricRow:
    """One metric over the whole test split, and the rivals' on the same rows."""

    name: str
    estimate: Estimate
    baseline: Difference | None
    champion: Difference | None


@dataclass(frozen=True)
class ConfusionRow:
    """The rows of one class: how many the model gave each class, with the share of the actual class."""

    name: str
    cells: Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class QualityView:
    """The section on the metrics."""

    examples: float
    confidence: float
    rows: Sequence[MetricRow]
    baseline: Rival | None
    champion: Rival | None
    figures: Sequence[Figure]
    confusion: Sequence[ConfusionRow]
    left_out_classes: int


def learning(evidence: Evidence) -> LearningView | None:
    """Returns None without a learning curve."""
    history = evidence.history
    if history is None or not history.epochs:
        return None
    names = {name for epoch in history.epochs for name in (*epoch.train, *epoch.eval)}
    ordered = sorted(names, key=lambda name: (name != "loss", titles.metric_order(name)))
    figures = [figure for name in ordered if (figure := _curve(history, name))]
    return LearningView(figures, history) if figures else None


def _curve(history: History, name: str) -> Figure | None:
    train = [(float(e.epoch), v) for e in history.epochs if (v := e.train.get(name)) is not None]
    other = [(float(e.epoch), v) for e in history.epochs if (v := e.eval.get(name)) is not None]
    series, key = [], []
    if train:
        series.append(Series("train", charts.thinned(train)))
        key.append(("t1", "train"))
    if other:
        series.append(Series("eval", charts.thinned(other), 2, "dashed"))
        key.append(("t2 c-dashed", "eval"))
    if not series:
        return None
    title = titles.metric(name)
    ends = ", ".join(f"{s.name} ends at {number(s.points[-1][1])}" for s in series)
    marks = [Rule(history.kept_epoch, "kept")] if history.kept_epoch and len(history.epochs) > 1 else []
    chart = charts.lines(f"{title} by epoch: {ends}", series, x_label="epoch", y_label="", marks=marks)
    return Figure(title, chart, key=key)


def view(evidence: Evidence) -> QualityView | None:
    """Returns None without metrics."""
    evaluation = evidence.metrics
    whole = evaluation.whole if evaluation else None
    if evaluation is None or whole is None:
        return None
    baseline, champion = _overall(evaluation.baseline), _overall(evaluation.champion)
    rows = [
        MetricRow(name, estimate, baseline.get(name), champion.get(name))
        for name, estimate in sorted(whole.values.items(), key=lambda item: titles.metric_order(item[0]))
        if estimate.value is not None and not name.endswith("example_count")
    ]
    confusion = evaluation.confusion
    return QualityView(
        examples=whole.count,
        confidence=evaluation.confidence,
        rows=rows,
        baseline=evaluation.baseline if baseline else None,
        champion=evaluation.champion,
        figures=[f for f in (_roc(evaluation, whole), _pr(evaluation, whole), _reliability(evaluation)) if f],
        confusion=_confusion(confusion) if confusion else [],
        left_out_classes=max(len(confusion.classes) - SHOWN_CLASSES, 0) if confusion else 0,
    )


def _overall(rival: Rival | None) -> dict[str, Difference]:
    return next((m.values for m in rival.metrics if not m.slice), {}) if rival else {}


def _confusion(confusion: Confusion) -> list[ConfusionRow]:
    """The first classes only, where there are many; shares are of all rows of the actual class."""
    rows = []
    for name, counts in list(zip(confusion.classes, confusion.matrix, strict=False))[:SHOWN_CLASSES]:
        total = sum(counts)
        rows.append(ConfusionRow(name, [(n, n / total if total else None) for n in counts[:SHOWN_CLASSES]]))
    return rows


def _area(whole: SliceMetrics, name: str) -> str:
    estimate = whole.values.get(name)
    return number(estimate.value) if estimate and estimate.value is not None else "unknown"


def _roc(evaluation: Evaluation, whole: SliceMetrics) -> Figure | None:
    if evaluation.roc is None:
        return None
    points = list(zip(evaluation.roc.fpr, evaluation.roc.tpr, strict=False))
    area = _area(whole, "auc")
    chart = charts.lines(
        f"ROC curve; the area under it is {area}",
        [Series("model", charts.thinned(points))],
        x_label="false positive rate",
        y_label="true positive rate",
        x_domain=_UNIT,
        y_domain=_UNIT,
        diagonal=True,
    )
    return Figure("ROC", chart, f"Area {area}. The dotted diagonal is chance.")


def _pr(evaluation: Evaluation, whole: SliceMetrics) -> Figure | None:
    if evaluation.pr is None:
        return None
    points = list(zip(evaluation.pr.recall, evaluation.pr.precision, strict=False))
    area = _area(whole, "pr_auc")
    base = whole.values.get("mean_label")
    chart = charts.lines(
        f"Precision-recall curve; the area under it is {area}",
        [Series("model", charts.thinned(points))],
        x_label="recall",
        y_label="precision",
        x_domain=_UNIT,
        y_domain=_UNIT,
        rules=[Rule(base.value, "chance", 0)] if base and base.value is not None else (),
    )
    return Figure("Precision and recall", chart, f"Area {area}.")


def _reliability(evaluation: Evaluation) -> Figure | None:
    """Bins of predictions against what was observed; for regression in the label's own unit."""
    known = evaluation.calibration.bins if evaluation.calibration else ()
    bins = [
        (b.mean_prediction, b.mean_label, b)
        for b in known
        if b.mean_prediction is not None and b.mean_label is not None and b.weight > 0
    ]
    if not bins:
        return None
    whiskers = [
        (p, b.label_low, b.label_high) for p, _, b in bins if b.label_low is not None and b.label_high is not None
    ]
    shares = evaluation.task != "regression"
    extent = _UNIT if shares else charts.domain([v for p, y, _ in bins for v in (p, y)])
    worst_p, worst_y, worst = max(bins, key=lambda b: abs(b[0] - b[1]))
    chart = charts.lines(
        f"Reliability diagram of {len(bins)} bins; furthest from the diagonal: predicted {number(worst_p)}, "
        f"observed {number(worst_y)}, {count(worst.weight)} rows",
        [Series("bins", [(p, y) for p, y, _ in bins], 1, "dots", whiskers)],
        x_label="mean prediction",
        y_label="observed rate" if shares else "mean label",
        x_domain=extent,
        y_domain=extent,
        diagonal=True,
    )
    spread = "; whiskers are 95\u202f% Wilson intervals" if whiskers else ""
    return Figure("Calibration", chart, f"Each dot is a bin of predictions{spread}. On the diagonal they come true.")
