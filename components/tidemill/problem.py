"""What is to be learnt: ``problem.yaml``, validated.

Everything else follows from it. It is strict: an unknown key is an error, and all the errors of a file are
reported at once, each with its path and line.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, model_validator

from tidemill.compression import Compression
from tidemill.errors import ProblemError
from tidemill.features import Feature, Image, Strict, source_columns
from tidemill.gates import Gates, QualityLimit
from tidemill.metrics import METRICS, comparable_metrics
from tidemill.strict_yaml import validated
from tidemill.training import Training
from tidemill.tuning import Tuning, tuning_faults
from tidemill.windows import Windows, lagged, lagged_feature

Task = Literal["binary_classification", "multiclass_classification", "regression"]
Split = Literal["train", "eval", "test"]
SPLITS: tuple[Split, ...] = ("train", "eval", "test")


class Label(Strict):
    """The column to predict, or an expression over the columns that yields it."""

    column: str | None = None
    expression: str | None = Field(
        default=None, description="Over the columns, as in pandas.DataFrame.eval: `tips > 0.2 * fare`."
    )
    name: str = Field(default="label", description="The column that an expression's value is stored in.")
    positive: str | None = Field(default=None, description="The value that counts as positive (binary only).")
    uses: tuple[str, ...] = Field(default=(), description="Columns that the expression reads.")
    leaks: tuple[str, ...] | None = Field(
        default=None,
        description="Those of `uses` that are known only with the label, so never features; all by default.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Label:
        if (self.column is None) == (self.expression is None):
            raise ValueError("needs exactly one of `column` and `expression`")
        if self.expression is not None and not self.uses:
            raise ValueError("an `expression` needs `uses`: the columns that it reads")
        if unread := set(self.leaks or ()) - set(self.uses):
            raise ValueError(f"`leaks` names {', '.join(sorted(unread))}, which `uses` does not")
        return self

    @property
    def output(self) -> str:
        """The column of the ingested examples that holds the label."""
        return self.column or self.name


class SplitConfig(Strict):
    """How rows are divided. ``hash`` and ``stratified`` are stable under reordering and growth of the data."""

    method: Literal["hash", "random", "temporal", "stratified"] = "hash"
    key: str | None = Field(default=None, description="Column that is hashed; the whole row by default.")
    train: float = Field(default=0.8, gt=0, lt=1)
    eval: float = Field(default=0.1, gt=0, lt=1)
    test: float = Field(default=0.1, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _whole(self) -> SplitConfig:
        if abs(self.train + self.eval + self.test - 1) > 1e-9:
            raise ValueError(f"train + eval + test must be 1, not {self.train + self.eval + self.test:g}")
        return self


class Ingest(Strict):
    """How the source is read."""

    source: str | None = Field(
        default=None, description="The table, unless a run names another; relative to this file."
    )
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: str = "utf-8"
    null_values: tuple[str, ...] = ("",)
    types: Mapping[str, Literal["int64", "float64", "string"]] = Field(
        default={}, description="Types that are not to be inferred."
    )


class UserCode(Strict):
    """User functions as ``module:function``; the modules lie beside problem.yaml."""

    preprocessing: str | None = Field(default=None, pattern=r"^\w+(\.\w+)*:\w+$")
    model: str | None = Field(default=None, pattern=r"^\w+(\.\w+)*:\w+$")
    search_space: str | None = Field(
        default=None,
        pattern=r"^\w+(\.\w+)*:\w+$",
        description="For `tuning`: takes an optuna trial, returns values by dotted path below `training`.",
    )


def _slice_key(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


SliceKey = Annotated[tuple[str, ...], BeforeValidator(_slice_key, json_schema_input_type=str | tuple[str, ...])]
"""The columns that a slice is cut by; a single one may be written without brackets."""


class Problem(Strict):
    """A prediction problem on a table."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    task: Task
    label: Label
    features: Mapping[str, Feature] = Field(min_length=1)
    weight: str | None = Field(default=None, description="Example weight column.")
    time: str | None = Field(default=None, description="Event time column: epoch seconds or ISO 8601.")
    group: tuple[str, ...] = Field(default=(), description="Rows that agree in these never straddle splits.")
    windows: Windows | None = Field(default=None, description="Lets rows see those of their group before them.")
    sensitive: tuple[SliceKey, ...] = ()
    split: SplitConfig = SplitConfig()
    ingest: Ingest = Ingest()
    training: Training = Training()
    tuning: Tuning | None = Field(default=None, description="What the pipeline `tuning` searches.")
    threshold: float = Field(default=0.5, gt=0, lt=1, description="Probability from which the answer is positive.")
    user_code: UserCode = UserCode()
    gates: Gates = Gates()
    compression: Compression | None = Field(default=None, description="Smaller forms of the model, and their limits.")
    baseline: Literal["majority", "prior", "mean"] | None = Field(
        default=None, description="The rule to beat: majority or prior (classification), mean (regression)."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Problem:
        faults = [*self._label_faults(), *self._column_faults(), *self._window_faults(), *self._gate_faults()]
        faults += self._tuning_faults()
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _label_faults(self) -> list[str]:
        faults = []
        if self.task == "binary_classification" and self.label.column and self.label.positive is None:
            faults.append("label.positive is needed for binary_classification")
        if self.task != "binary_classification" and self.label.positive is not None:
            faults.append(f"label.positive has no meaning for {self.task}")
        made_of = self.label.uses if self.label.leaks is None else self.label.leaks
        ahead = self.windows is not None and self.windows.horizon > 0
        if ahead and self.label.leaks is None:
            made_of = ()  # what a later label is made of is known now
        leaks = {*made_of, self.label.output} & set(self._source_columns)
        if leaks:
            remedy = ""
            if ahead and self.label.column in leaks:
                name = self.label.column
                remedy = f"; to predict {name} from its past, write `label: {{expression: {name}, uses: [{name}]}}`"
            faults.append(f"features must not read {', '.join(sorted(leaks))}: the label is made of it{remedy}")
        return faults

    def _window_faults(self) -> list[str]:
        if self.windows is None:
            return []
        faults = []
        if self.time is None or not self.group:
            lacking = [name for name, value in (("time", self.time), ("group", self.group)) if not value]
            faults.append(f"windows needs {' and '.join(f'`{name}`' for name in lacking)}")
        if unknown := sorted(set(self.windows.features or ()) - set(self.features)):
            faults.append(f"windows.features names {', '.join(unknown)}, which `features` does not")
        if self.windows.straddle and self.split.method != "temporal":
            faults.append("windows.straddle needs split.method temporal")
        taken = {lagged(name, i) for name in self.windowed for i in self.windows.lags} & set(self.features)
        if taken:
            faults.append(f"features must not be named {', '.join(sorted(taken))}: windows names its own so")
        return faults

    def _column_faults(self) -> list[str]:
        faults = []
        if self.weight in self.raw_columns:
            faults.append(f"weight column {self.weight} must not be a feature")
        if self.split.method == "temporal" and self.time is None:
            faults.append("split.method temporal needs `time`")
        if self.split.method == "stratified" and self.task == "regression":
            faults.append("split.method stratified needs a classification task")
        if self.baseline is not None and (self.baseline == "mean") != (self.task == "regression"):
            faults.append(f"baseline {self.baseline} does not fit task {self.task}")
        if self.task == "regression":
            of_classes = ("class_weights", "focal_gamma", "resample")
            given = [name for name in of_classes if getattr(self.training, name) is not None]
            faults += [f"training.{name} has no meaning for regression" for name in given]
        return faults

    def _gate_faults(self) -> list[str]:
        known = {tuple(sorted(key)) for key in self.sensitive}
        faults = [
            f"gates.fairness.{i}.over {list(limit.over)} is not an entry of `sensitive`"
            for i, limit in enumerate(self.gates.fairness)
            if limit.over is not None and tuple(sorted(limit.over)) not in known
        ]
        if self.gates.fairness and not self.sensitive:
            faults.append("gates.fairness needs `sensitive`")
        if self.gates.fairness and self.task != "binary_classification":
            faults.append("gates.fairness needs binary_classification")
        for i, limit in enumerate(self.gates.quality):
            faults += [f"gates.quality.{i}: {fault}" for fault in self._undecidable(limit)]
        if self.compression is not None:
            searched = self.tuning is not None and "resample" in self.tuning.space
            resampled = searched or self.training.resample is not None
            faults += self.compression.faults(self.task, self.sensitive, resampled)
        return faults

    def _tuning_faults(self) -> list[str]:
        code = self.user_code.search_space is not None
        if self.tuning is None:
            return ["user_code.search_space needs `tuning`"] if code else []
        return list(
            tuning_faults(
                self.tuning, by_code=code, task=self.task, sensitive=self.sensitive, time=self.time, group=self.group
            )
        )

    def _undecidable(self, limit: QualityLimit) -> list[str]:
        """Returns why a limit could never be decided, however good the model is."""
        if limit.metric not in METRICS[self.task]:
            return [f"{self.task} has no {limit.metric}, only {', '.join(METRICS[self.task])}"]
        faults = []
        compared = limit.max_worse_than_champion is not None or limit.min_better_than_baseline is not None
        if compared and METRICS[self.task][limit.metric].better == "neither":
            faults.append(f"{limit.metric} has no better or worse; set `min` or `max`")
        if limit.slices == "sensitive" and not self.sensitive:
            faults.append("`slices: sensitive` needs `sensitive`")
        if limit.min_better_than_baseline is not None:
            if self.baseline is None:
                faults.append("`min_better_than_baseline` needs `baseline`")
            elif limit.metric not in (comparable := comparable_metrics(self.baseline, self.task)):
                faults.append(f"the rule `{self.baseline}` has no {limit.metric}, only {', '.join(comparable)}")
        return faults

    @property
    def _source_columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c for name, feature in self.features.items() for c in source_columns(name, feature)))

    @property
    def windowed(self) -> tuple[str, ...]:
        """The features whose past the model sees."""
        if self.windows is None:
            return ()
        chosen = self.windows.features
        # Pictures of the rows before would be copied into every row: their past is seen only where that is asked for.
        return tuple(
            name
            for name, feature in self.features.items()
            if (name in chosen if chosen is not None else not isinstance(feature, Image))
        )

    @cached_property
    def read_features(self) -> Mapping[str, Feature]:
        """The features as the model reads them: after each whose past it sees, the same of the rows before."""
        features: dict[str, Feature] = {}
        for name, feature in self.features.items():
            features[name] = feature
            if self.windows is not None and name in self.windowed:
                features |= {lagged(name, i): lagged_feature(name, feature, i) for i in self.windows.lags}
        return features

    @property
    def raw_columns(self) -> tuple[str, ...]:
        """The raw columns that the features read, in the order of the problem, each once."""
        columns = [c for name, feature in self.read_features.items() for c in source_columns(name, feature)]
        return tuple(dict.fromkeys(columns))

    @property
    def windowed_columns(self) -> tuple[str, ...]:
        """The source columns whose past the model sees, each once."""
        return tuple(dict.fromkeys(c for name in self.windowed for c in source_columns(name, self.features[name])))

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """All source columns that a training run needs, each once."""
        label = (self.label.column,) if self.label.column else self.label.uses
        others = [self.weight, self.time, self.split.key, *self.group, *(c for key in self.sensitive for c in key)]
        return tuple(dict.fromkeys([*self._source_columns, *label, *(c for c in others if c)]))


def load_problem(path: Path, overrides: Mapping[str, str] | None = None) -> Problem:
    """Reads and validates a problem.

    Args:
        path: problem.yaml, or the directory that holds it.
        overrides: YAML values by dotted path, such as ``{"training.max_epochs": "3"}``.

    Raises:
        ProblemError: naming every fault with its path and line.
    """
    path = path / "problem.yaml" if path.is_dir() else path
    if not path.is_file():
        raise ProblemError(str(path), "no such file", remedy="`tidemill init` writes a first one from your data")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ProblemError(str(path), "is not UTF-8", str(error)) from error
    return parse_problem(text, str(path), overrides)


def parse_problem(text: str, where: str, overrides: Mapping[str, str] | None = None) -> Problem:
    """Validates the text of a problem.yaml; see :func:`load_problem`."""
    expected = "expected a mapping with name, task, label and features"
    return validated(Problem, text, where, ProblemError, expected, overrides)


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of problem.yaml, for editors that complete and check while one types."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Problem.model_json_schema(),
        "title": "tidemill problem.yaml",
    }


def dump_problem(problem: Problem, leave_out: Mapping[str, Any] | None = None) -> str:
    """Returns the canonical YAML of a problem: what it says, without comments or defaults.

    Args:
        leave_out: fields that are not to be written, in pydantic's notation for ``exclude``.
    """
    value = problem.model_dump(mode="json", exclude_unset=True, exclude=dict(leave_out or {}))
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
