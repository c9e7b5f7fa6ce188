"""What a study came to: the best trial, how it compares to the problem's own settings, and what mattered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import optuna

from tidemill.bundle import Bundle
from tidemill.errors import UserError
from tidemill.files import write_json
from tidemill.tune.objectives import Objectives
from tidemill.tune.study import Study, Trial

TUNING_FILE: Final = "tuning.json"
_ENOUGH = 4  # trials, below which nothing can be said of what mattered


@dataclass(frozen=True)
class Conclusion:
    """What was found.

    Attributes:
        best: number of the trial that was chosen.
        hyperparameters: its values by dotted path below ``training``.
        objective: name of the metric.
        value: of the chosen trial.
        own_value: of the problem's own settings, when they were last judged; None if they failed.
        own_epochs: that they had been trained then.
        gap: fairness gap of the chosen trial, if it was asked for.
        trials: number of trials by state.
        rounds: that had a trial.
        train_s: seconds of training, all trials together.
        cost: the same in money, if a rate was given.
        stopped: why the search ended.
    """

    best: int
    hyperparameters: Mapping[str, Any]
    objective: str
    value: float
    own_value: float | None
    own_epochs: int
    gap: float | None
    trials: Mapping[str, int]
    rounds: int
    train_s: float
    cost: float | None
    stopped: str


@dataclass(frozen=True)
class TuningDocument:
    """The tuning artefact: the conclusion, all trials, and the importance of each hyperparameter."""

    content: Mapping[str, Any]

    def write(self, directory: Path) -> None:
        write_json(directory / TUNING_FILE, dict(self.content))


def concluded(bundle: Bundle, study: Study, objectives: Objectives) -> tuple[Conclusion, TuningDocument]:
    """Returns the conclusion and its document.

    Raises:
        UserError: if every trial has failed.
    """
    tuning = bundle.problem.tuning
    assert tuning is not None
    sound = [trial for trial in study.trials if trial.state != "failed" and trial.results]
    if not sound:
        reasons = Counter(trial.reason.splitlines()[0] for trial in study.trials if trial.reason)
        told = "; ".join(f"{reason} ({times} times)" for reason, times in reasons.most_common(3))
        raise UserError("tuning", "needs a trial that can be trained; all have failed", told or None)
    best = objectives.best(sound)
    value, *gap = objectives.values(best.results[-1])
    own = next((t for t in sound if not t.hyperparameters), None)
    rate = tuning.budget.hourly_rate
    conclusion = Conclusion(
        best=best.number,
        hyperparameters=dict(best.hyperparameters),
        objective=objectives.metric,
        value=value,
        own_value=objectives.values(own.results[-1])[0] if own else None,
        own_epochs=own.results[-1].epochs if own else 0,
        gap=gap[0] if gap else None,
        trials=dict(Counter(trial.state for trial in study.trials)),
        rounds=study.round,
        train_s=study.seconds,
        cost=None if rate is None else study.seconds / 3600 * rate,
        stopped=study.stopped or "every round has ended",
    )
    content = {
        **asdict(conclusion),
        "maximize": objectives.maximize,
        "fairness": tuning.fairness.model_dump(mode="json") if tuning.fairness else None,
        "sampler": tuning.sampler,
        "seed": tuning.seed,
        "pruning": tuning.pruning.model_dump(mode="json"),
        "rungs": list(tuning.pruning.rungs(bundle.problem.training.max_epochs)),
        "cross_validation": tuning.cross_validation.model_dump(mode="json") if tuning.cross_validation else None,
        "front": sorted(t.number for t in objectives.front([t for t in sound if t.rung == best.rung]))
        if objectives.fair
        else [],
        "importance": importance(sound, objectives),
        "log": sorted({name for trial in study.trials for name, text in trial.distributions.items() if _log(text)}),
        "all": [_row(trial, objectives, _settings(bundle, study, trial)) for trial in study.trials],
    }
    return conclusion, TuningDocument(content)


def _log(distribution: str) -> bool:
    """Tells whether a distribution, as Optuna writes it, is over logarithms."""
    return bool(json.loads(distribution)["attributes"].get("log"))


def _settings(bundle: Bundle, study: Study, trial: Trial) -> dict[str, Any]:
    """Returns what a trial was trained with of all that was searched: the problem's own where it says nothing."""
    own = bundle.problem.training.model_dump(mode="json")
    settings = {}
    for path in dict.fromkeys(path for other in study.trials for path in other.hyperparameters):
        value: Any = own
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        settings[path] = trial.hyperparameters.get(path, value)
    return settings


def _row(trial: Trial, objectives: Objectives, settings: Mapping[str, Any]) -> dict[str, Any]:
    last = trial.results[-1] if trial.results and trial.state != "failed" else None
    values = objectives.values(last) if last else ()
    return {
        "number": trial.number,
        "state": trial.state,
        "reason": trial.reason,
        "hyperparameters": dict(trial.hyperparameters),
        "settings": dict(settings),
        "rung": trial.rung,
        "epochs": last.epochs if last else 0,
        "value": values[0] if values else None,
        "gap": values[1] if len(values) > 1 else None,
        "folds": [fold.get(objectives.metric) for fold in last.folds] if last else [],
        "seconds": trial.seconds,
        "curve": [
            {"epochs": r.epochs, "value": objectives.values(r)[0]} for r in trial.results if objectives.fault(r) is None
        ],
    }


def importance(trials: Sequence[Trial], objectives: Objectives) -> dict[str, float]:
    """Returns each hyperparameter's share in what made good trials good, largest first; empty for too few trials.

    Trials are compared on the rung that most of them were judged on. Definition: Watanabe, Bansal & Hutter 2023,
    "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary subspaces".
    """
    reached = Counter(result.rung for trial in trials for result in trial.results if trial.distributions)
    if not reached:
        return {}
    rung = min(reached, key=lambda r: (-reached[r], r))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=objectives.directions[0])
    for trial in trials:
        result = next((r for r in trial.results if r.rung == rung), None)
        if trial.distributions and result is not None:
            study.add_trial(
                optuna.trial.create_trial(
                    params=dict(trial.parameters),
                    distributions={
                        n: optuna.distributions.json_to_distribution(d) for n, d in trial.distributions.items()
                    },
                    value=objectives.values(result)[0],
                )
            )
    values = {trial.values[0] for trial in study.trials}
    if len(study.trials) < _ENOUGH or len(values) < 2:
        return {}
    shares = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    return {name: float(share) for name, share in shares.items()}
