"""The hyperparameters artefact: what a tuning found, laid over the ``training`` of a problem."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tidemill.bundle import Bundle
from tidemill.errors import ProblemError
from tidemill.files import write_json
from tidemill.training import Training

HYPERPARAMETERS_FILE: Final = "hyperparameters.json"
"""One JSON object: value by dotted path below ``training``, such as ``{"optimizer.kind": "lion"}``."""


def write_hyperparameters(directory: Path, values: Mapping[str, Any]) -> None:
    """Writes the artefact's file."""
    write_json(directory / HYPERPARAMETERS_FILE, dict(values))


def read_hyperparameters(directory: Path) -> dict[str, Any]:
    """Returns the values by dotted path."""
    values: dict[str, Any] = json.loads((directory / HYPERPARAMETERS_FILE).read_text(encoding="utf-8"))
    return values


def overlaid(training: Training, values: Mapping[str, Any]) -> Training:
    """Returns the settings with ``values`` in place of their own.

    Raises:
        ProblemError: naming every value that the settings can't take.
    """
    settings = training.model_dump(mode="json", exclude_unset=True)
    for path, value in values.items():
        *parents, last = path.split(".")
        place = settings
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ProblemError("hyperparameters", f"{path} must lie in settings", f"{parent} is {place!r}")
        place[last] = value
    try:
        return Training.model_validate(settings)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, f['loc'])) or 'training'}: {f['msg']}" for f in error.errors(include_url=False))
        raise ProblemError("hyperparameters", "training must be able to take them", "; ".join(faults)) from error


def tuned(bundle: Bundle, hyperparameters: Path | None) -> Bundle:
    """Returns the bundle with the hyperparameters of an artefact in its problem; as it is without one.

    Raises:
        ProblemError: if the problem's training can't take them.
    """
    if hyperparameters is None:
        return bundle
    training = overlaid(bundle.problem.training, read_hyperparameters(hyperparameters))
    return replace(bundle, problem=bundle.problem.model_copy(update={"training": training}))
