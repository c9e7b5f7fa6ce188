"""Names for people: metrics, rates and checks as they are written in the field, and the order they are shown in."""

from __future__ import annotations

from tidemill.report.formats import words

METRICS = {
    "auc": "AUC",
    "pr_auc": "PR AUC",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "top_3_accuracy": "Top 3 accuracy",
    "micro_precision": "Micro precision",
    "micro_recall": "Micro recall",
    "micro_f1": "Micro F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "mse": "MSE",
    "log_loss": "Log loss",
    "loss": "Loss",
    "brier": "Brier score",
    "calibration": "Calibration ratio",
    "expected_calibration_error": "Expected calibration error",
    "mean_label": "Mean label",
    "mean_prediction": "Mean prediction",
}
"""By name, in the order in which they are shown."""
RATES = {
    "selection_rate": "Selection rate",
    "tpr": "True positive rate",
    "fpr": "False positive rate",
    "ppv": "Precision",
    "fnr": "False negative rate",
}
SPLITS = ("train", "eval", "test")
_LATENCIES = {"p50_ms": "Median latency", "p99_ms": "99th percentile of latency"}
_MEASURES = {"l_infinity": "L-infinity", "jensen_shannon": "Jensen-Shannon"}
_ORDER = {name: place for place, name in enumerate(METRICS)}


def metric(name: str) -> str:
    """Returns a metric's title: ``pr_auc`` → ``PR AUC``, ``recall[setosa]`` → ``Recall of setosa``."""
    base, _, of = name.partition("[")
    title = METRICS.get(base) or RATES.get(base) or _LATENCIES.get(base) or _capitalized(words(base))
    return f"{title} of {of.removesuffix(']')}" if of else title


def measure(name: str) -> str:
    """Returns the title of a distance between distributions."""
    return _MEASURES.get(name, words(name))


def check(name: str) -> str:
    """Returns a check's title: ``auc.better_than_baseline`` → ``AUC, better than baseline``."""
    base, _, aspect = name.partition(".")
    base, _, over = base.partition("[")
    title = f"{metric(base)} over {over.removesuffix(']').replace(',', ' and ')}" if over else metric(base)
    return f"{title}, {words(aspect)}" if aspect else title


def limit(text: str) -> str:
    """Returns a limit with the signs of print: ``>= 0.9`` → ``≥ 0.9``."""
    return text.replace(">=", "≥").replace("<=", "≤")


def metric_order(name: str) -> tuple[int, str]:
    """Sorts metrics as they are shown; unknown ones come last."""
    return _ORDER.get(name.partition("[")[0], len(_ORDER)), name


def split_order(name: str) -> tuple[int, str]:
    """Sorts splits as they are used: train, eval, test."""
    return (SPLITS.index(name) if name in SPLITS else len(SPLITS)), name


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
