"""A tuning as Vertex AI's study: its search space, its objective, and what its trials came to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill.tuning import Parameter, Tuning, plain_space

_MOST_VALUES: Final = 1000
_WHERE: Final = "tuning"


def study_spec(tuning: Tuning) -> dict[str, Any]:
    """Returns the StudySpec of a tuning.

    Choices are categories named by their JSON: a category is text, and `[64, 32]` or `null` must come back as they are.

    Raises:
        UsageError: naming all that a HyperparameterTuningJob can't do.
    """
    space = plain_space(tuning)
    if faults := [*_faults(tuning), *_space_faults(space)]:
        remedy = "tune by the pipeline's own tasks: leave `training.managed_tuning` out"
        raise UsageError(_WHERE, "; ".join(faults), remedy=remedy)
    return {
        "metrics": [{"metric_id": tuning.objective, "goal": tuning.better.upper()}],
        "parameters": [_parameter(one, space) for one in space if not one.when],
        "algorithm": "RANDOM_SEARCH" if tuning.sampler == "random" else "ALGORITHM_UNSPECIFIED",
        # A trial reports once, of the weights that it would keep.
        "measurement_selection_type": "LAST_MEASUREMENT",
    }


def hyperparameters(trial: Any, tuning: Tuning) -> dict[str, Any]:
    """Returns the values of a trial by dotted path below ``training``."""
    kinds = {one.path: one.kind for one in plain_space(tuning)}
    found = {}
    for parameter in trial.parameters:
        kind, value = kinds[parameter.parameter_id], parameter.value
        found[parameter.parameter_id] = (
            json.loads(value) if kind == "categorical" else int(value) if kind == "int" else float(value)
        )
    return found


def drawn(values: Mapping[str, Any], tuning: Tuning) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns what a trial drew and what from, as `tidemill.tune.study` has it: by Optuna's names and in its JSON."""
    parameters, distributions = {}, {}
    for one in plain_space(tuning):
        if one.path in values:
            value = values[one.path]
            parameters[one.path] = json.dumps(value) if one.kind == "categorical" else value
            distributions[one.path] = json.dumps(_distribution(one))
    return parameters, distributions


def _distribution(one: Parameter) -> dict[str, Any]:
    if one.kind == "categorical":
        choices = [json.dumps(choice) for choice in one.choices]
        return {"name": "CategoricalDistribution", "attributes": {"choices": choices}}
    # Optuna warns of a range that isn't a whole number of steps.
    high = one.high if one.step is None else _steps(one)[-1]
    if one.kind == "int":
        attributes = {"low": int(one.low), "high": int(high), "log": one.log, "step": int(one.step or 1)}
        return {"name": "IntDistribution", "attributes": attributes}
    return {"name": "FloatDistribution", "attributes": {"low": one.low, "high": high, "log": one.log, "step": one.step}}


def _steps(one: Parameter) -> list[float]:
    assert one.step is not None
    count = int((one.high - one.low) / one.step + 1e-9) + 1
    return [one.low + i * one.step for i in range(count)]


def _faults(tuning: Tuning) -> Iterable[str]:
    if not tuning.space:
        yield "a search space by code can't be told to Vertex AI: give `tuning.space`"
    if tuning.pruning.kind != "none":
        yield f"Vertex AI has no {tuning.pruning.kind}: leave `pruning` out"
    if tuning.fairness is not None:
        yield "a job has one objective: leave `fairness` out"
    if tuning.budget.seconds != float("inf"):
        yield "a job's budget is its number of trials: leave `hours` and `cost` out"


def _space_faults(space: Iterable[Parameter]) -> Iterable[str]:
    """Source: ParameterSpec and ConditionalParameterSpec of google/cloud/aiplatform/v1/study.proto"""
    known = {one.path: one for one in space}
    for one in space:
        if len(one.when) > 1:
            yield f"space.{one.path}.when: a parameter may hang on one other, not on {len(one.when)}"
        if any(_kind(known[path]) == "double" for path, _ in one.when):
            yield f"space.{one.path}.when: can't hang on a value out of a continuous range"
        if one.step is not None and (one.high - one.low) / one.step >= _MOST_VALUES:
            yield f"space.{one.path} has more than {_MOST_VALUES} values: raise its `step`"


def _kind(one: Parameter) -> str:
    if one.kind == "categorical":
        return "categorical"
    if one.step is not None and not (one.kind == "int" and one.step == 1):
        return "discrete"
    return "integer" if one.kind == "int" else "double"


def _parameter(one: Parameter, space: Iterable[Parameter]) -> dict[str, Any]:
    kind = _kind(one)
    spec: dict[str, Any] = {"parameter_id": one.path, f"{kind}_value_spec": _values(one, kind)}
    if kind != "categorical":
        spec["scale_type"] = "UNIT_LOG_SCALE" if one.log else "UNIT_LINEAR_SCALE"
    if below := [other for other in space if one.path in dict(other.when)]:
        spec["conditional_parameter_specs"] = [
            {**_condition(kind, dict(other.when)[one.path]), "parameter_spec": _parameter(other, space)}
            for other in below
        ]
    return spec


def _values(one: Parameter, kind: str) -> dict[str, Any]:
    if kind == "categorical":
        return {"values": [json.dumps(choice) for choice in one.choices]}
    if kind == "discrete":
        return {"values": _steps(one)}
    number = int if kind == "integer" else float
    return {"min_value": number(one.low), "max_value": number(one.high)}


def _condition(kind: str, value: Any) -> Mapping[str, Any]:
    if kind == "categorical":
        return {"parent_categorical_values": {"values": [json.dumps(value)]}}
    if kind == "integer":
        return {"parent_int_values": {"values": [int(value)]}}
    return {"parent_discrete_values": {"values": [float(value)]}}
