"""A forked process answers, fails or dies, and each is told from the others."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tidemill.errors import DataError, PlatformError
from tidemill.validate.forked import Forked


def _refuse(where: str) -> None:
    raise DataError(where, "expected rows", "none", "add some")


def _die(number: int) -> None:
    os.kill(os.getpid(), number)


def test_the_result_comes_from_another_process() -> None:
    doubled, process = Forked(lambda n: (n * 2, os.getpid()), 21).result()
    assert doubled == 42
    assert process != os.getpid()


def test_an_error_arrives_in_its_parts() -> None:
    with pytest.raises(DataError, match="a table: expected rows") as caught:
        Forked(_refuse, "a table").result()
    assert (caught.value.got, caught.value.remedy) == ("none", "add some")


def test_a_killed_process_is_the_platforms_fault() -> None:
    with pytest.raises(PlatformError, match="killed by signal 9"):
        Forked(_die, signal.SIGKILL).result()


def test_a_defect_is_a_defect(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="failed with exit code 1"):
        Forked(lambda n: 1 // n, 0).result()
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_work_that_nobody_waits_for_is_ended() -> None:
    begun = time.monotonic()
    work = Forked(time.sleep, 60)
    work.abandon()
    assert time.monotonic() - begun < 10
