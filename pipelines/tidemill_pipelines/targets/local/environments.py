"""The interpreters of the environments, as ``make setup`` lays them out.

``control`` is ``.venv`` beside the project, the others are ``.venvs/<name>``. ``TIDEMILL_ENVIRONMENTS`` names
another directory that holds all of them, by name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidemill.errors import PlatformError, TidemillError, UserError

ENVIRONMENTS = ("control", "validation", "tensorflow", "serving")
VARIABLE = "TIDEMILL_ENVIRONMENTS"


def interpreter(name: str) -> Path:
    """Returns the Python of an environment.

    Raises:
        PlatformError: if the environment isn't installed.
    """
    if elsewhere := os.environ.get(VARIABLE):
        python = Path(elsewhere) / name / "bin" / "python"
    elif name == "control":
        python = Path(sys.executable)
    else:
        python = Path(sys.prefix).parent / ".venvs" / name / "bin" / "python"
    if not python.exists():
        raise PlatformError(f"environment {name}", f"expected its interpreter at {python}", "none", "run `make setup`")
    return python


def lock_digest() -> str:
    """Returns the sha256 of the uv.lock that the environments were made from, or ``unlocked`` outside a checkout."""
    from tidemill.files import sha256_file

    lock = Path(sys.prefix).parent / "uv.lock"
    return sha256_file(lock) if lock.is_file() else "unlocked"


def call(name: str, module: str, arguments: Sequence[str]) -> Any:
    """Runs ``python -m module arguments…`` in an environment and returns the JSON that it prints.

    Raises:
        TidemillError: with the message and exit code of the module, if it failed.
    """
    command = [str(interpreter(name)), "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    if done.returncode != 0:
        kinds: dict[int, type[TidemillError]] = {4: UserError, 5: PlatformError}
        message = done.stderr.strip().splitlines()
        raise kinds.get(done.returncode, TidemillError)(module, message[-1] if message else "failed without a word")
    return json.loads(done.stdout)
