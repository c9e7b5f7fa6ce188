"""Whole runs of the command on a few thousand invented loans."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Command

from tidemill_pipelines.targets.local.environments import interpreter


@pytest.fixture(scope="session")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "loans.csv"
    module = "tidemill.synthetic.lending"
    subprocess.run(
        [str(interpreter("tensorflow")), "-m", module, "--rows", "4000", "--output", str(path)],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture(scope="session")
def tidemill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("tidemill"))
    yield command
    command("endpoint", "down", "lending")


@pytest.fixture(scope="session")
def released(tidemill: Command, loans: Path) -> Any:
    """The summary of a first run that goes well."""
    return tidemill.run(loans)
