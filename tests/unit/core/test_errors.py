"""Errors say where, what was expected, what was got and what to do; their branch is their exit code."""

from __future__ import annotations

import errno
import pickle

import pytest

from tidemill.errors import (
    DataError,
    GateRefused,
    Interrupted,
    PlatformError,
    ProblemError,
    TidemillError,
    UsageError,
    UserCodeError,
    UserError,
    classify,
)


def test_a_message_has_three_parts_and_a_remedy():
    error = DataError("trips.csv", "expected the column tips", "18 others", "name it in label.column")
    assert str(error) == "trips.csv: expected the column tips (got 18 others)\n  → name it in label.column"
    assert str(DataError("trips.csv", "is empty")) == "trips.csv: is empty"
    assert (error.where, error.expected, error.got, error.remedy) == (
        "trips.csv",
        "expected the column tips",
        "18 others",
        "name it in label.column",
    )


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (TidemillError, 1),
        (Interrupted, 130),
        (GateRefused, 3),
        (UserError, 4),
        (ProblemError, 4),
        (UserCodeError, 4),
        (DataError, 4),
        (UsageError, 4),
        (PlatformError, 5),
    ],
)
def test_exit_codes_tell_whose_fault_it_is_and_only_the_platforms_is_retried(kind, exit_code):
    assert kind.exit_code == exit_code
    assert kind.retryable == (kind is PlatformError)
    assert issubclass(kind, TidemillError)


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "part-0"), 5, "part-0.*\n.*free space"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 5, "runs.*\n.*right to it"),
        (OSError(errno.EROFS, "Read-only file system", "runs"), 5, "right to it"),
        (MemoryError(), 5, "train: ran out of memory"),
        (KeyboardInterrupt(), 130, "train: was interrupted"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 1, "unforeseen error.*FileNotFoundError"),
        (KeyError("absent"), 1, "KeyError: 'absent'"),
    ],
)
def test_an_error_of_the_system_is_told_apart_from_a_defect(error, exit_code, said):
    told = classify("train", error)
    assert told.exit_code == exit_code
    with pytest.raises(TidemillError, match=said):
        raise told


def test_an_error_of_the_tree_stays_itself():
    error = DataError("trips.csv", "is empty")
    assert classify("ingest", error) is error


def test_an_error_crosses_a_process_boundary_whole() -> None:
    error = pickle.loads(pickle.dumps(PlatformError("disk", "is full", "0 bytes", "free some")))
    assert type(error) is PlatformError
    assert (error.where, error.expected, error.got, error.remedy) == ("disk", "is full", "0 bytes", "free some")
