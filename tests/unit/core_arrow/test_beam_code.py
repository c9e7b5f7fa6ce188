"""User modules travel inside what Beam pickles, to processes that know tidemill alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("apache_beam", reason="the environment has no Beam")

from apache_beam.internal import cloudpickle_pickler, pickler

from tidemill.beam_code import user_code_on_workers
from tidemill.bundle import open_bundle, pack
from tidemill.problem import parse_problem

PROBLEM = """
name: toy
task: regression
label: {column: y}
features: {x: numeric}
user_code: {preprocessing: "doubling:preprocessing_fn"}
"""
DOUBLING = """
from factors import two


def preprocessing_fn(x):
    return two() * x
"""
WORKER = """
import sys
from apache_beam.internal import pickler
print(pickler.loads(sys.stdin.buffer.read(), use_zlib=sys.argv[1] == "zlib")(21))
"""


@pytest.fixture
def bundle(tmp_path: Path):
    (tmp_path / "doubling.py").write_text(DOUBLING)
    (tmp_path / "factors.py").write_text("def two():\n    return 2\n")
    return open_bundle(pack(parse_problem(PROBLEM, "problem.yaml"), tmp_path, tmp_path / "bundles"))


def called_elsewhere(pickled: bytes, directory: Path, compression: str) -> subprocess.CompletedProcess[bytes]:
    """Unpickles a function and calls it with 21 in a process of another directory with its own place for bundles."""
    command = [sys.executable, "-W", "ignore", "-c", WORKER, compression]
    environment = {"TMPDIR": str(directory), "HOME": str(directory)}
    return subprocess.run(command, input=pickled, cwd=directory, env=environment, capture_output=True)


@pytest.mark.parametrize("compression", ["zlib", "bz2"])
def test_a_process_that_has_no_user_modules_unpickles_a_function_of_theirs(bundle, tmp_path, compression):
    function = bundle.user_function("doubling:preprocessing_fn")
    with user_code_on_workers(bundle.archive.read_bytes()):
        pickled = pickler.dumps(function, use_zlib=compression == "zlib")
    (tmp_path / "worker").mkdir()
    assert called_elsewhere(pickled, tmp_path / "worker", compression).stdout == b"42\n"


def test_without_them_it_fails_as_beam_alone_does(bundle, tmp_path):
    pickled = pickler.dumps(bundle.user_function("doubling:preprocessing_fn"))
    (tmp_path / "worker").mkdir()
    assert b"No module named 'doubling'" in called_elsewhere(pickled, tmp_path / "worker", "bz2").stderr


def test_beam_pickles_as_ever_afterwards_and_where_there_is_no_user_code(bundle):
    plain = cloudpickle_pickler.dumps
    with user_code_on_workers(None):
        assert cloudpickle_pickler.dumps is plain

    def fail() -> None:
        with user_code_on_workers(bundle.archive.read_bytes()):
            assert cloudpickle_pickler.dumps is not plain
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert cloudpickle_pickler.dumps is plain
