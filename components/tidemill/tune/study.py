"""What a study knows: its trials, in a file that is handed from round to round.

There is no database: the file of a round is made of that of the round before and of what its trials put out, so a run
that was killed goes on from the tasks that ended, and no two runs share anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from tidemill.files import write_json

STUDY_FILE: Final = "study.json"
RESULT_FILE: Final = "result.json"
CHECKPOINTS: Final = "checkpoints"
State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class Result:
    """What one trial came to on one rung.

    Attributes:
        number: of the trial.
        rung: index of the rung.
        epochs: that were taken in all, the most of all folds.
        metrics: of the eval rows by name, ``loss`` among them; the mean over the folds where there are some.
        folds: the same by fold; one without cross-validation.
        gap: the fairness metric, if it was asked for.
        seconds: of training and evaluation since the trial began, earlier rungs and all folds together.
        error: why it failed, if it did.
    """

    number: int
    rung: int
    epochs: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    folds: Sequence[Mapping[str, float | None]] = ()
    gap: float | None = None
    seconds: float = 0.0
    error: str | None = None

    def write(self, directory: Path) -> None:
        write_json(directory / RESULT_FILE, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> Result | None:
        """Returns the result that a trial put out; None for a place in a round that had no trial."""
        path = directory / RESULT_FILE
        return cls.of(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Result:
        """Returns the result that JSON holds."""
        return cls(**{**value, "folds": tuple(value["folds"])})


@dataclass(frozen=True)
class Trial:
    """One configuration.

    Attributes:
        number: from 0; trial 0 is the problem's own settings.
        cohort: the round in which it began, from 0.
        bracket: index of its first rung.
        hyperparameters: value by dotted path below ``training``.
        parameters: what the sampler drew, by its own names.
        distributions: what it drew them from, as Optuna writes them.
        results: in the order of the rungs.
        reason: why it was pruned or failed.
    """

    number: int
    cohort: int
    bracket: int
    hyperparameters: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    state: State = "running"
    results: Sequence[Result] = ()
    reason: str = ""

    @property
    def rung(self) -> int:
        """The rung that it is on, or that it ended on."""
        return self.bracket + len(self.results) - 1 if self.results else self.bracket

    @property
    def seconds(self) -> float:
        """Seconds of its training."""
        return self.results[-1].seconds if self.results else 0.0

    def ended(self, state: State, reason: str = "") -> Trial:
        return replace(self, state=state, reason=reason)


@dataclass(frozen=True)
class Study:
    """All trials so far.

    Attributes:
        round: number of rounds that were asked for.
        stopped: why no more configurations begin; empty while they do.
    """

    trials: tuple[Trial, ...] = ()
    round: int = 0
    stopped: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of training, all trials together."""
        return sum(trial.seconds for trial in self.trials)

    def write(self, directory: Path) -> None:
        write_json(directory / STUDY_FILE, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> Study:
        value = json.loads((directory / STUDY_FILE).read_text(encoding="utf-8"))
        trials = (Trial(**{**t, "results": tuple(Result.of(r) for r in t["results"])}) for t in value["trials"])
        return cls(tuple(trials), value["round"], value["stopped"])
