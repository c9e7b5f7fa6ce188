"""``tuning:`` of problem.yaml: which hyperparameters are searched, how, and for how long."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from tidemill.features import Strict
from tidemill.metrics import METRICS
from tidemill.training import Training

Direction = Literal["minimize", "maximize"]
FoldMethod = Literal["auto", "k_fold", "stratified", "grouped", "time_series"]
FairnessMetric = Literal[
    "demographic_parity_gap", "equal_opportunity_gap", "equalized_odds_gap", "predictive_parity_gap"
]


class Dimension(Strict):
    """The values of one hyperparameter: a range (`low`, `high`) or `choices`."""

    low: float | None = None
    high: float | None = None
    log: bool = Field(default=False, description="Whether the logarithm is searched: for rates and sizes.")
    step: float | None = Field(default=None, gt=0, description="Distance between values; not with `log`.")
    choices: tuple[Any, ...] | None = Field(default=None, min_length=1)
    when: Mapping[str, Any] = Field(
        default={}, description="Values that other paths of the space, named before, must have for this one to count."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        ranged = self.low is not None and self.high is not None
        if ranged == (self.choices is not None) or (self.low is None) != (self.high is None):
            raise ValueError("needs either `low` and `high`, or `choices`")
        if self.choices is not None and (self.log or self.step is not None):
            raise ValueError("`log` and `step` are for a range, not for `choices`")
        if self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError("`low` must be less than `high`")
            if self.log and self.low <= 0:
                raise ValueError("`low` must be greater than 0 with `log`")
            if self.log and self.step is not None:
                raise ValueError("give `log` or `step`, not both")
        return self


class Fairness(Strict):
    """The second thing to minimise: how far groups lie apart, on the rows that trials are judged by."""

    metric: FairnessMetric = "equal_opportunity_gap"
    over: tuple[str, ...] | None = Field(
        default=None, description="The entry of `sensitive` whose groups are compared; its first by default."
    )
    max: float | None = Field(
        default=None, ge=0, le=1, description="Chosen is the best trial within it; the nearest to ideal without."
    )
    min_examples: int = Field(default=30, ge=1, description="Smaller groups are left out.")


class Budget(Strict):
    """When to stop: after what is met first, no trial begins or goes on."""

    trials: int = Field(default=20, ge=1, description="Configurations to try.")
    hours: float | None = Field(default=None, gt=0, description="Of training, all trials together.")
    cost: float | None = Field(default=None, gt=0, description="In the unit of `hourly_rate`.")
    hourly_rate: float | None = Field(default=None, gt=0, description="What an hour of a trial's training costs.")

    @model_validator(mode="after")
    def _priced(self) -> Budget:
        if self.cost is not None and self.hourly_rate is None:
            raise ValueError("`cost` needs `hourly_rate`")
        return self

    @property
    def seconds(self) -> float:
        """The seconds of training that may be spent; infinite without a limit."""
        limits = [self.hours * 3600] if self.hours is not None else []
        if self.cost is not None and self.hourly_rate is not None:
            limits.append(self.cost / self.hourly_rate * 3600)
        return min(limits, default=math.inf)


class Pruning(Strict):
    """Successive halving: all trials are trained a little, the best of them longer.

    Sources: Jamieson & Talwalkar 2016 (halving); Li et al. 2018, "Hyperband", algorithm 1.
    """

    kind: Literal["none", "halving", "hyperband"] = Field(
        default="none", description="hyperband: halving whose cohorts begin in turn with 1, 3, 9 … times min_epochs."
    )
    min_epochs: int = Field(default=1, ge=1, description="Epochs after which a trial is first judged.")
    factor: int = Field(default=3, ge=2, description="One of so many goes on, for so many times as long.")

    def rungs(self, max_epochs: int) -> tuple[int, ...]:
        """Returns the epochs after which trials are judged, ascending; the last is the whole training."""
        if self.kind == "none":
            return (max_epochs,)
        below, epochs = [], self.min_epochs
        while epochs < max_epochs:
            below.append(epochs)
            epochs *= self.factor
        return (*below, max_epochs)


class CrossValidation(Strict):
    """Trials are judged by the mean over folds of the training split instead of by the eval split."""

    folds: int = Field(default=5, ge=2, le=20)
    method: FoldMethod = Field(
        default="auto",
        description="auto: grouped with `group` unless splits are temporal, else time_series with `time`, else "
        "stratified for classes.",
    )


class Tuning(Strict):
    """A search for hyperparameters."""

    space: Mapping[str, Dimension] = Field(default={}, description="By dotted path below `training`.")
    objective: str = Field(
        default="loss", description="What counts, as in the learning curves of the eval split: loss, auc, mae …"
    )
    direction: Direction | None = Field(default=None, description="Known for the metrics that tidemill knows.")
    fairness: Fairness | None = None
    sampler: Literal["tpe", "random"] = "tpe"
    startup_trials: int = Field(default=8, ge=1, description="Trials drawn at random before the sampler learns.")
    budget: Budget = Budget()
    trials_per_round: int = Field(default=4, ge=1, le=20, description="Suggested together, knowing all rounds before.")
    parallel: int = Field(default=2, ge=1, description="Trials trained at the same time.")
    pruning: Pruning = Pruning()
    cross_validation: CrossValidation | None = None
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sound(self) -> Tuning:
        faults = [fault for path, dimension in self.space.items() for fault in _dimension_faults(path, dimension)]
        known: set[str] = set()
        for path, dimension in self.space.items():
            if unknown := sorted(set(dimension.when) - known):
                faults.append(f"space.{path}.when names {', '.join(unknown)}, which the space has not named before")
            known.add(path)
        for path in self.space:
            if self.objective in _MADE_OF.get(path, ()):
                told = f"{self.objective} is made of it, so it can't judge between its values; take another objective"
                faults.append(f"space.{path}: {told}")
        if self.objective not in _DIRECTIONS and self.direction is None:
            faults.append(f"direction is needed for {self.objective}: minimize or maximize")
        if self.pruning.kind != "none" and (fixed := sorted({"max_epochs", "max_steps"} & set(self.space))):
            faults.append(f"space must not have {', '.join(fixed)} with pruning, which sets how long a trial trains")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def better(self) -> Direction:
        """Which values of the objective are better."""
        return self.direction or _DIRECTIONS[self.objective]

    def cohorts(self, max_epochs: int) -> tuple[Cohort, ...]:
        """Returns the trials that begin in each round, as long as the budget lasts.

        With hyperband a cohort that begins on a higher rung is smaller, so that all cost about the same.
        """
        rungs, left = len(self.pruning.rungs(max_epochs)), self.budget.trials
        cohorts: list[Cohort] = []
        while left > 0:
            bracket = len(cohorts) % rungs if self.pruning.kind == "hyperband" else 0
            share = rungs / (rungs - bracket) / self.pruning.factor**bracket
            size = min(left, max(1, math.ceil(self.trials_per_round * share)))
            cohorts.append(Cohort(size, bracket))
            left -= size
        return tuple(cohorts)

    def rounds(self, max_epochs: int) -> int:
        """Returns the number of rounds in which all trials can end: each is judged once in a round."""
        rungs = len(self.pruning.rungs(max_epochs))
        return max(i + rungs - cohort.bracket for i, cohort in enumerate(self.cohorts(max_epochs)))


@dataclass(frozen=True)
class Cohort:
    """Trials that begin together: how many, and the index of their first rung."""

    size: int
    bracket: int


_DIRECTIONS: dict[str, Direction] = {
    "loss": "minimize",
    **{
        name: "maximize" if metric.better == "higher" else "minimize"
        for metrics in METRICS.values()
        for name, metric in metrics.items()
        if metric.better in ("higher", "lower")
    },
}


_MADE_OF = {"l2": ("loss",), "class_weights": ("loss", "accuracy")}
"""Objectives that a hyperparameter is part of: the penalty is in the loss, and classes weigh in eval rows too."""


def tuning_faults(
    tuning: Tuning,
    *,
    by_code: bool,
    task: str,
    sensitive: tuple[tuple[str, ...], ...],
    time: str | None,
    group: tuple[str, ...],
) -> Iterator[str]:
    """Yields what is wrong with a tuning in the problem that has it."""
    if by_code == bool(tuning.space):
        yield "tuning needs either `tuning.space` or `user_code.search_space`"
    fairness = tuning.fairness
    if fairness is not None:
        if task != "binary_classification":
            yield "tuning.fairness needs binary_classification"
        if not sensitive:
            yield "tuning.fairness needs `sensitive`"
        elif fairness.over is not None and sorted(fairness.over) not in [sorted(key) for key in sensitive]:
            yield f"tuning.fairness.over {list(fairness.over)} is not an entry of `sensitive`"
    if tuning.cross_validation is not None:
        method = tuning.cross_validation.method
        if method == "stratified" and task == "regression":
            yield "tuning.cross_validation.method stratified needs a classification task"
        if method == "grouped" and not group:
            yield "tuning.cross_validation.method grouped needs `group`"
        if method == "time_series" and time is None:
            yield "tuning.cross_validation.method time_series needs `time`"
        if method in ("k_fold", "stratified") and group:
            yield f"tuning.cross_validation.method {method} would let groups straddle folds; take grouped"


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter in plain terms, for samplers of others: a managed service's, say.

    Attributes:
        path: dotted, below ``training``.
        kind: ``categorical`` values are ``choices``; ``float`` and ``int`` lie in ``[low, high]``.
        choices: as problem.yaml has them.
        when: values that other paths must have.
    """

    path: str
    kind: Literal["float", "int", "categorical"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()
    when: tuple[tuple[str, Any], ...] = ()


def plain_space(tuning: Tuning) -> tuple[Parameter, ...]:
    """Returns the search space of problem.yaml in plain terms, in its order."""
    return tuple(_parameter(path, dimension) for path, dimension in tuning.space.items())


def _parameter(path: str, dimension: Dimension) -> Parameter:
    when = tuple(dimension.when.items())
    if dimension.choices is not None:
        return Parameter(path, "categorical", choices=dimension.choices, when=when)
    assert dimension.low is not None
    assert dimension.high is not None
    kind = _numeric_kind(path)
    assert kind is not None
    return Parameter(path, kind, dimension.low, dimension.high, dimension.log, dimension.step, when=when)


def _field(path: str) -> FieldInfo | None:
    model: type[BaseModel] | None = Training
    found: FieldInfo | None = None
    for key in path.split("."):
        if model is None or key not in model.model_fields:
            return None
        found = model.model_fields[key]
        model = (
            found.annotation if isinstance(found.annotation, type) and issubclass(found.annotation, BaseModel) else None
        )
    return found


def _numeric_kind(path: str) -> Literal["float", "int"] | None:
    """Returns what numbers the field takes, or None if it takes others."""
    field = _field(path)
    assert field is not None
    annotation = field.annotation
    members = set(get_args(annotation)) if get_origin(annotation) in (Union, types.UnionType) else {annotation}
    members.discard(type(None))
    return "float" if members == {float} else "int" if members == {int} else None


def _dimension_faults(path: str, dimension: Dimension) -> Iterator[str]:
    field = _field(path)
    if field is None:
        yield f"space.{path} is no field of `training`"
        return
    if path == "seed":
        yield "space.seed: the seed is nothing to tune; trials that differ by luck alone teach nothing"
    if dimension.choices is None:
        kind = _numeric_kind(path)
        if kind is None:
            yield f"space.{path} takes no numbers from a range: give `choices`"
            return
        ends = [v for v in (dimension.low, dimension.high, dimension.step) if v is not None]
        if kind == "int" and not all(float(value).is_integer() for value in ends):
            yield f"space.{path} takes whole numbers"
            return
        values: list[Any] = [int(v) if kind == "int" else v for v in ends[:2]]
    else:
        values = list(dimension.choices)
    for value in values:
        if told := _refusal(path, value):
            yield f"space.{path} can't be {value!r}: {told}"


def _refusal(path: str, value: Any) -> str | None:
    """Returns why a field of ``training`` doesn't take a value, or None if it does."""
    keys = tuple(path.split("."))
    nested: Any = value
    for key in reversed(keys):
        nested = {key: nested}
    try:
        Training.model_validate(nested)
    except ValidationError as error:
        # What a value alone doesn't go with is for the trial that has it: other paths may bring what it needs.
        own = [fault for fault in error.errors(include_url=False) if fault["loc"][: len(keys)] == keys]
        return str(own[0]["msg"]) if own else None
    return None
