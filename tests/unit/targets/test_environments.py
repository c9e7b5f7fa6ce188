"""Interpreters are found by environment, and modules in them called with their errors kept whole."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tidemill.errors import PlatformError, TidemillError, UserError
from tidemill_pipelines.targets.local import environments


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Environments of which `control` is this one, with a directory for modules of the test's own."""
    (tmp_path / "control").symlink_to(sys.prefix)
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_missing_environment_says_how_to_make_it(here: Path) -> None:
    with pytest.raises(PlatformError, match="make setup"):
        environments.interpreter("serving")


def test_a_module_answers_with_json(here: Path) -> None:
    (here / "answering.py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    assert environments.call("control", "answering", ["a", "b"]) == ["a", "b"]


def test_modules_where_the_command_is_started_take_nothings_place(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "json.py").write_text("raise AssertionError('this json is the user's')")
    (here / "answering.py").write_text("import json; print(json.dumps(1))")
    monkeypatch.chdir(elsewhere)
    assert environments.call("control", "answering", []) == 1


def test_the_error_of_a_stage_arrives_in_its_parts(here: Path) -> None:
    (here / "failing.py").write_text(
        "from tidemill.stage import Stage\n"
        "from tidemill.errors import DataError\n"
        "with Stage('failing'):\n"
        "    raise DataError('a.csv', 'expected rows', 'none', 'add some')\n"
    )
    with pytest.raises(UserError) as caught:
        environments.call("control", "failing", [])
    error = caught.value
    assert (error.where, error.expected, error.got, error.remedy) == ("a.csv", "expected rows", "none", "add some")


def test_a_module_that_dies_is_told_by_its_last_words(here: Path) -> None:
    (here / "dying.py").write_text("raise ValueError('last words')")
    with pytest.raises(TidemillError, match="last words"):
        environments.call("control", "dying", [])
