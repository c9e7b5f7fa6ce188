"""The pipelines by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from tidemill.errors import UsageError

PIPELINES: Final[Mapping[str, str]] = {"training": "tidemill_pipelines.training:training"}


def load_pipeline(name: str) -> Any:
    """Returns a pipeline function that KFP's compiler takes.

    Raises:
        UsageError: if there is no pipeline of that name.
    """
    if name not in PIPELINES:
        raise UsageError(f"pipeline {name}", f"expected one of {', '.join(PIPELINES)}")
    module, _, function = PIPELINES[name].partition(":")
    return getattr(importlib.import_module(module), function)
