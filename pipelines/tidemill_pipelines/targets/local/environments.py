"""The interpreters of the environments, as ``make setup`` lays them out.

``control`` is ``.venv`` beside the project, the others are ``.venvs/<name>``. ``TIDEMILL_ENVIRONMENTS`` names
another directory that holds all of them, by name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidemill.errors import PlatformError, TidemillError, UserError
from tidemill.stage import RECORD_VARIABLE

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

    A module that works inside a ``tidemill.stage.Stage`` has its error raised here again as it was.

    Raises:
        TidemillError: with the message and exit code of the module, if it failed.
    """
    command = [str(interpreter(name)), "-P", "-m", module, *arguments]
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory) / "record.json"
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", RECORD_VARIABLE: str(record)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            raise _error(module, done, record)
    return json.loads(done.stdout)


def _error(module: str, done: subprocess.CompletedProcess[str], record: Path) -> TidemillError:
    kind: type[TidemillError] = {4: UserError, 5: PlatformError}.get(done.returncode, TidemillError)
    error = json.loads(record.read_text())["error"] if record.is_file() else None
    if error:
        return kind(error["where"], error["expected"], error["got"], error["remedy"])
    lines = done.stderr.strip().splitlines()
    return kind(module, lines[-1] if lines else f"ended with exit code {done.returncode} and said nothing")
