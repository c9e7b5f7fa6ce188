"""The pipelines by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill_pipelines.choices import Choices, Rounds
from tidemill_pipelines.release import Release, local_release

PIPELINES: Final[Mapping[str, str]] = {
    "training": "tidemill_pipelines.training:training_pipeline",
    "tuning": "tidemill_pipelines.tuning:tuning_pipeline",
}

_DEFAULT: Final = Choices(tuning=Rounds(count=2, parallel=2, cross_validated=True, fair=True))


def load_pipeline(name: str, release: Release | None = None, choices: Choices | None = None) -> Any:
    """Returns a pipeline that KFP's compiler takes.

    Args:
        release: where models are registered and answer; on this machine by default.
        choices: the optional parts; by default none but what the pipeline is about.

    Raises:
        UsageError: if there is no pipeline of that name, or it needs what the problem doesn't have.
    """
    if name not in PIPELINES:
        raise UsageError(f"pipeline {name}", f"expected one of {', '.join(PIPELINES)}")
    module, _, function = PIPELINES[name].partition(":")
    return getattr(importlib.import_module(module), function)(release or local_release(), choices or _DEFAULT)
