"""The rounds of a tuning: what to try next, what one trial comes to, and what was found in the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tidemill.bundle import Bundle, open_bundle
from tidemill.errors import UserError
from tidemill.files import replaced_directory
from tidemill.hyperparameters import write_hyperparameters
from tidemill.tune.conclusion import Conclusion, concluded
from tidemill.tune.halving import judged, told
from tidemill.tune.objectives import Objectives
from tidemill.tune.study import CHECKPOINTS, Result, Study, Trial
from tidemill.tuning import Tuning

IDLE: Final = "idle"
_LONGEST = 9_000  # characters of a pipeline's parameter, of which Vertex AI takes 10,000


@dataclass(frozen=True)
class SuggestReport:
    """What a round begins with.

    Attributes:
        round: from 1.
        new: configurations that begin.
        continued: trials that go on.
        pruned: trials that ended after the round before.
        failed: trials that failed in the round before.
        spent_s: seconds of training so far.
        stopped: why no more configurations begin; empty while they do.
        items: what the trials of the round are given.
    """

    round: int
    new: int
    continued: int
    pruned: int
    failed: int
    spent_s: float
    stopped: str
    items: tuple[str, ...]


def suggest(
    bundle: str | Path,
    before: str | Path | None,
    results: Sequence[str | Path],
    study: str | Path,
    continued: str | Path,
) -> SuggestReport:
    """Takes the results of the round before, ends what is not worth going on with, and says what the next round tries.

    Args:
        bundle: the problem.
        before: the study of the round before; None in the first.
        results: what the trials of the round before put out.
        study: directory that the study is written to.
        continued: directory for the checkpoints of the trials that go on.

    Raises:
        UserCodeError: if the problem's search space is code that fails.
        UserError: if a round is too large for the parameter of a pipeline.
    """
    from tidemill.tune.sampling import ask
    from tidemill.tune.space import space_of

    opened = open_bundle(Path(bundle))
    tuning, rungs, objectives = _settings(opened)
    known, trials = _taken(before, results, tuning, rungs, objectives)
    stopped = _stopped(tuning, opened.problem.training.max_epochs, trials, known)
    if stopped.startswith("budget"):
        trials = _out_of_budget(trials)
    going = [t for t in trials if t.state == "running"]
    new: list[Trial] = []
    if not stopped:
        cohort = tuning.cohorts(opened.problem.training.max_epochs)[known.round]
        own = [] if trials else [Trial(0, 0, 0, {})]
        asked = ask(tuning, space_of(opened), objectives, [*trials, *own], known.round, cohort.size - len(own))
        new = [replace(trial, cohort=known.round, bracket=cohort.bracket) for trial in (*own, *asked)]
        if not new:
            stopped = "the search space has no more configurations"
    items = tuple(_item(trial, tuning, opened, rungs) for trial in (*going, *new)) or (json.dumps({"key": IDLE}),)
    if len(json.dumps(items)) > _LONGEST:
        remedy = "lower tuning.trials_per_round"
        raise UserError(f"round {known.round + 1}", "is too large for a pipeline's parameter", remedy=remedy)
    _keep(going, results, Path(continued))
    with replaced_directory(Path(study)) as partial:
        Study((*trials, *new), known.round + 1, stopped).write(partial)
    for trial in new:
        print(f"tune: trial {trial.number}: {_told(trial)}", flush=True)
    ended = [t for t in trials if t.results and t.results[-1].number in _numbers(results)]
    return SuggestReport(
        round=known.round + 1,
        new=len(new),
        continued=len(going),
        pruned=sum(trial.state == "pruned" for trial in ended),
        failed=sum(trial.state == "failed" for trial in ended),
        spent_s=known.seconds,
        stopped=stopped,
        items=items,
    )


def conclude(
    bundle: str | Path,
    before: str | Path,
    results: Sequence[str | Path],
    hyperparameters: str | Path,
    tuning: str | Path,
) -> Conclusion:
    """Chooses the best trial, and writes its hyperparameters and what all trials came to.

    Raises:
        UserError: if every trial has failed.
    """
    opened = open_bundle(Path(bundle))
    settings, rungs, objectives = _settings(opened)
    known, trials = _taken(before, results, settings, rungs, objectives)
    trials = _out_of_budget(trials)
    conclusion, document = concluded(opened, replace(known, trials=tuple(trials)), objectives)
    with replaced_directory(Path(hyperparameters)) as partial:
        write_hyperparameters(partial, conclusion.hyperparameters)
    with replaced_directory(Path(tuning)) as partial:
        document.write(partial)
    return conclusion


def _settings(bundle: Bundle) -> tuple[Tuning, tuple[int, ...], Objectives]:
    tuning = bundle.problem.tuning
    if tuning is None:
        raise UserError("problem.yaml", "needs `tuning` for this pipeline")
    return tuning, tuning.pruning.rungs(bundle.problem.training.max_epochs), Objectives.of(tuning)


def _taken(
    before: str | Path | None,
    results: Sequence[str | Path],
    tuning: Tuning,
    rungs: tuple[int, ...],
    objectives: Objectives,
) -> tuple[Study, list[Trial]]:
    """Returns the study of the round before, its spent time brought up to date, and the trials as they stand now."""
    known = Study.read(Path(before)) if before is not None else Study()
    found = [result for path in results if (result := Result.read(Path(path)))]
    trials = judged(told(known.trials, found, objectives), objectives, tuning.pruning, rungs)
    for old, trial in zip(known.trials, trials, strict=True):
        if trial.state != old.state:
            print(f"tune: trial {trial.number} {trial.state}{': ' * bool(trial.reason)}{trial.reason}", flush=True)
    return replace(known, trials=tuple(trials)), trials


def _out_of_budget(trials: Sequence[Trial]) -> list[Trial]:
    return [t.ended("pruned", "the budget was used up") if t.state == "running" else t for t in trials]


def _numbers(results: Sequence[str | Path]) -> set[int]:
    return {result.number for path in results if (result := Result.read(Path(path)))}


def _stopped(tuning: Tuning, max_epochs: int, trials: Sequence[Trial], known: Study) -> str:
    open_ended = not known.stopped or any(trial.state == "running" for trial in trials)
    if open_ended and known.seconds >= tuning.budget.seconds:
        return f"budget: {known.seconds:.0f} of {tuning.budget.seconds:.0f} s of training are used up"
    if known.stopped:
        return known.stopped
    if len(trials) >= tuning.budget.trials or known.round >= len(tuning.cohorts(max_epochs)):
        return f"all {len(trials)} trials have begun"
    return ""


def _item(trial: Trial, tuning: Tuning, bundle: Bundle, rungs: tuple[int, ...]) -> str:
    """Returns what a trial's task is given: all that its result depends on, so that it is reused by that."""
    rung = trial.bracket + len(trial.results)
    fairness = tuning.fairness
    item: dict[str, Any] = {
        "key": f"trial-{trial.number}",
        "number": trial.number,
        "rung": rung,
        "resumed": bool(trial.results),
        "epochs": rungs[rung] if rung < len(rungs) - 1 else None,
        "hyperparameters": dict(trial.hyperparameters),
    }
    if fairness is not None:
        over = fairness.over or bundle.problem.sensitive[0]
        item["fairness"] = {"metric": fairness.metric, "over": list(over), "min_examples": fairness.min_examples}
    return json.dumps(item, sort_keys=True)


def _keep(going: Sequence[Trial], results: Sequence[str | Path], continued: Path) -> None:
    """Hands on the checkpoints of the trials that go on; those of the others end with their tasks."""
    with replaced_directory(continued) as partial:
        numbers = {trial.number for trial in going}
        for path in results:
            result = Result.read(Path(path))
            if result is not None and result.number in numbers:
                shutil.copytree(Path(path) / CHECKPOINTS, partial / f"trial-{result.number}")


def _told(trial: Trial) -> str:
    return json.dumps(dict(trial.hyperparameters)) if trial.hyperparameters else "the problem's own settings"
