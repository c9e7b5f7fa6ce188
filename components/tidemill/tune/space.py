"""From a search space to what Optuna can draw from: a function of one of its trials, as user code gives it too."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import optuna

from tidemill.bundle import Bundle
from tidemill.errors import TidemillError, UserCodeError
from tidemill.tuning import Parameter, plain_space

Space = Callable[[optuna.Trial], dict[str, Any]]
"""Draws a configuration: value by dotted path below ``training``."""


def space_of(bundle: Bundle) -> Space:
    """Returns the search space of the problem, or of its code."""
    reference = bundle.problem.user_code.search_space
    if reference is not None:
        return _blamed(reference, bundle.user_function(reference))
    assert bundle.problem.tuning is not None
    parameters = plain_space(bundle.problem.tuning)

    def draw(trial: optuna.Trial) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for parameter in parameters:
            if all(path in values and values[path] == wanted for path, wanted in parameter.when):
                values[parameter.path] = _drawn(trial, parameter)
        return values

    return draw


def _drawn(trial: optuna.Trial, parameter: Parameter) -> Any:
    if parameter.kind == "categorical":
        # Optuna takes scalars alone; layers are a list.
        texts = {json.dumps(choice): choice for choice in parameter.choices}
        return texts[trial.suggest_categorical(parameter.path, list(texts))]
    if parameter.kind == "int":
        low, high, step = int(parameter.low), int(parameter.high), int(parameter.step or 1)
        return trial.suggest_int(parameter.path, low, high, step=step, log=parameter.log)
    return trial.suggest_float(parameter.path, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def _blamed(reference: str, function: Callable[..., Any]) -> Space:
    def draw(trial: optuna.Trial) -> dict[str, Any]:
        try:
            values = function(trial)
        except TidemillError:
            raise
        except Exception as error:
            raise UserCodeError(
                reference, "raised while it drew a trial", f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            raise UserCodeError(
                reference,
                "must return a dict from dotted paths below `training` to values",
                type(values).__name__,
                'such as {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)}',
            )
        try:
            return dict(json.loads(json.dumps(dict(values))))
        except (TypeError, ValueError) as error:
            raise UserCodeError(reference, "must return values that JSON can hold", str(error)) from error

    return draw
