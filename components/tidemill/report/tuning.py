"""The tuning: what was searched and how, what was found, how trials compare, and which hyperparameters mattered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.report import charts, titles
from tidemill.report.charts import Rule, Series
from tidemill.report.coordinates import Axis, Line, coordinates
from tidemill.report.documents import SearchTrial, Tuning
from tidemill.report.evidence import Evidence
from tidemill.report.formats import duration, number, plural
from tidemill.report.quality import Figure

SHOWN_TRIALS = 12
_AXES = 8
_STATES = {"complete": "trained to the end", "pruned": "ended early", "failed": "failed", "running": "not judged"}


@dataclass(frozen=True)
class Setting:
    """One hyperparameter of the chosen trial; ``importance`` is its share, None where that isn't known."""

    path: str
    value: str
    own: str
    importance: float | None


@dataclass(frozen=True)
class TrialRow:
    """One trial for the table."""

    number: int
    chosen: bool
    state: str
    value: float | None
    gap: float | None
    epochs: int
    seconds: float
    settings: Sequence[tuple[str, str]]
    reason: str


@dataclass(frozen=True)
class TuningView:
    """The section on the tuning.

    Attributes:
        how: what was searched and how, in one sentence.
        gain: by how much the chosen trial is better than the problem's own settings; None where these weren't judged.
        parallel: the chart over all hyperparameters; None for fewer than two trials that have a value.
    """

    tuning: Tuning
    how: str
    gain: float | None
    settings: Sequence[Setting]
    figures: Sequence[Figure]
    parallel: Figure | None
    trials: Sequence[TrialRow]
    more: Sequence[TrialRow]


def view(evidence: Evidence) -> TuningView | None:
    """Returns None for a run that tuned nothing."""
    tuning = evidence.tuning
    if tuning is None:
        return None
    trials = sorted(tuning.all, key=lambda trial: _order(tuning, trial))
    rows = [_row(tuning, trial) for trial in trials]
    own = tuning.own_value
    gain = None if own is None else (tuning.value - own) * (1 if tuning.maximize else -1)
    figures = [figure for figure in (_history(tuning), _tradeoff(tuning)) if figure]
    return TuningView(
        tuning=tuning,
        how=_how(tuning),
        gain=gain,
        settings=_settings(tuning),
        figures=figures,
        parallel=_parallel(tuning),
        trials=rows[:SHOWN_TRIALS],
        more=rows[SHOWN_TRIALS:],
    )


def _order(tuning: Tuning, trial: SearchTrial) -> tuple[bool, bool, int, float, int]:
    value = trial.value if trial.value is not None else 0.0
    return (
        trial.number != tuning.best,
        trial.value is None,
        -trial.rung,
        -value if tuning.maximize else value,
        trial.number,
    )


def _how(tuning: Tuning) -> str:
    sampler = {"tpe": "TPE", "random": "random search"}.get(tuning.sampler, tuning.sampler)
    parts = [f"{plural(len(tuning.all), 'trial')} by {sampler}"]
    if len(tuning.rungs) > 1:
        epochs = ", ".join(map(str, tuning.rungs))
        parts.append(f"judged after {epochs} epochs, where one in {tuning.pruning.factor} went on")
    if tuning.cross_validation is not None:
        parts.append(f"each the mean of {tuning.cross_validation.folds} folds of the training split")
    if tuning.fairness is not None:
        parts.append(f"with {titles.metric(tuning.fairness.metric).lower()} as the second thing to make small")
    spent = f"{duration(tuning.train_s)} of training"
    if tuning.cost is not None:
        spent += f", {number(tuning.cost)} in money"
    return f"{'; '.join(parts)}. {spent}; seed {tuning.seed}. The search ended because {tuning.stopped}."


def _settings(tuning: Tuning) -> list[Setting]:
    chosen = next((trial for trial in tuning.all if trial.number == tuning.best), None)
    own = next((trial for trial in tuning.all if not trial.hyperparameters), None)
    if chosen is None:
        return []
    settings = [
        Setting(path, _text(value), _text(own.settings.get(path)) if own else "", tuning.importance.get(path))
        for path, value in chosen.settings.items()
    ]
    return sorted(settings, key=lambda s: -(s.importance or 0))


def _row(tuning: Tuning, trial: SearchTrial) -> TrialRow:
    return TrialRow(
        trial.number,
        trial.number == tuning.best,
        _STATES.get(trial.state, trial.state),
        trial.value,
        trial.gap,
        trial.epochs,
        trial.seconds,
        [(path.rpartition(".")[2], _text(value)) for path, value in trial.hyperparameters.items()],
        trial.reason,
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return "–" if value is None else str(value) if isinstance(value, str) else json.dumps(value)


def _judged(tuning: Tuning) -> list[tuple[SearchTrial, float]]:
    return [(trial, trial.value) for trial in tuning.all if trial.value is not None]


def _history(tuning: Tuning) -> Figure | None:
    """The trials in their order, and the best so far of those that were trained longest."""
    judged = _judged(tuning)
    if len(judged) < 2:
        return None
    furthest = max(trial.rung for trial, _ in judged)
    best: list[tuple[float, float]] = []
    for trial, value in judged:
        if trial.rung == furthest:
            so_far = best[-1][1] if best else value
            best.append((float(trial.number), max(so_far, value) if tuning.maximize else min(so_far, value)))
    whole = [(float(t.number), v) for t, v in judged if t.rung == furthest]
    early = [(float(t.number), v) for t, v in judged if t.rung < furthest]
    series = [
        Series("ended early", early, 2, "dots"),
        Series("trained longest", whole, 1, "dots"),
        Series("best", best),
    ]
    title = titles.metric(tuning.objective)
    rules = [Rule(tuning.own_value, "own settings", 0)] if tuning.own_value is not None else []
    chart = charts.lines(
        f"{title} of {len(judged)} trials in their order; the best is trial {tuning.best} with {number(tuning.value)}",
        [s for s in series if s.points],
        x_label="trial",
        y_label="",
        rules=rules,
    )
    caption = "Dots are trials, the line the best so far." + (" Orange dots ended early." if early else "")
    return Figure(f"{title} by trial", chart, caption)


def _tradeoff(tuning: Tuning) -> Figure | None:
    points = [
        (trial, trial.value, trial.gap) for trial in tuning.all if trial.value is not None and trial.gap is not None
    ]
    if len(points) < 2 or tuning.fairness is None:
        return None
    front = sorted((gap, value) for trial, value, gap in points if trial.number in tuning.front)
    chosen = [(gap, value) for trial, value, gap in points if trial.number == tuning.best]
    others = [(gap, value) for trial, value, gap in points if trial.number != tuning.best]
    series = [
        Series("front", front, 0, "dashed"),
        Series("others", others, 2, "dots"),
        Series("chosen", chosen, 1, "dots"),
    ]
    limit = tuning.fairness.max
    gap_title = titles.metric(tuning.fairness.metric)
    chart = charts.lines(
        f"{titles.metric(tuning.objective)} against {gap_title} of {len(points)} trials",
        [s for s in series if s.points],
        x_label=gap_title.lower(),
        y_label="",
        x_domain=charts.domain([*(gap for _, _, gap in points), *([] if limit is None else [limit])]),
        marks=[Rule(limit, "limit", 4)] if limit is not None else [],
    )
    caption = "Blue is the trial that was taken. Nothing is better in both than what is on the line."
    return Figure("Quality against fairness", chart, caption)


def _parallel(tuning: Tuning) -> Figure | None:
    judged = _judged(tuning)
    paths = list(dict.fromkeys(path for trial, _ in judged for path in trial.settings))
    if len(judged) < 2 or not paths:
        return None
    shown = sorted(paths, key=lambda path: -tuning.importance.get(path, 0.0))[:_AXES]
    ranked = sorted(judged, key=lambda item: -item[1] if tuning.maximize else item[1])
    place = {trial.number: i / max(len(ranked) - 1, 1) for i, (trial, _) in enumerate(ranked)}
    axes = [Axis(path, _values(judged, path), path in tuning.log) for path in shown]
    axes.append(Axis(tuning.objective, [value for _, value in judged], False))
    lines = [
        Line(
            f"trial {trial.number}: {tuning.objective} {number(value)}",
            {**_shown(trial.settings, shown), tuning.objective: value},
            place[trial.number],
            trial.number == tuning.best,
            trial.state == "pruned",
        )
        for trial, value in judged
    ]
    left_out = f" {plural(len(paths) - _AXES, 'hyperparameter')} of the least importance left out." * (
        len(paths) > _AXES
    )
    return Figure(
        "Trials by their hyperparameters",
        coordinates(f"Parallel coordinates of {len(judged)} trials over {', '.join(shown)}", axes, lines),
        f"A line is a trial, the orange one was taken; the darker the better, dashed ended early.{left_out}",
    )


def _values(judged: Sequence[tuple[SearchTrial, float]], path: str) -> list[Any]:
    return [value for trial, _ in judged if (value := trial.settings.get(path)) is not None]


def _shown(settings: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    return {path: settings[path] for path in paths if path in settings}
