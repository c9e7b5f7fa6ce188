"""The one exception tree of tidemill, and the exit code that each branch maps to.

::

    TidemillError                        1   a defect of tidemill itself
    ├── Interrupted                    130   Ctrl-C: nobody's fault
    ├── GateRefused                      3   a gate of the problem said no: not a failure of anything
    ├── UserError                        4   the user's fault: retrying changes nothing
    │   ├── ProblemError                     problem.yaml, or a value given with --set
    │   ├── UserCodeError                    the user's preprocessing or model code
    │   ├── DataError                        the table: unreadable, empty, without its label …
    │   └── UsageError                       a command that cannot mean anything
    └── PlatformError                    5   the machine's or the backend's fault: may be retried
        └── Preempted                        the machine is wanted back: what was done is saved

Exit code 2 is the shell convention for a mistyped command line.
"""

from __future__ import annotations

import errno

# What a full disk, a lack of handles or rights, or a failing device is called; anything else is a defect of ours.
_SHORT = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


class TidemillError(Exception):
    """An error told in three parts and a remedy.

    Args:
        where: the file, field, stage or address at fault.
        expected: what should have been there.
        got: what was there instead.
        remedy: what to do about it, when that is known.
    """

    exit_code = 1
    retryable = False

    def __init__(self, where: str, expected: str, got: str | None = None, remedy: str | None = None) -> None:
        self.where, self.expected, self.got, self.remedy = where, expected, got, remedy
        got_text = f" (got {got})" if got is not None else ""
        remedy_text = f"\n  → {remedy}" if remedy else ""
        super().__init__(f"{where}: {expected}{got_text}{remedy_text}")

    def __reduce__(self) -> tuple[type[TidemillError], tuple[str, str, str | None, str | None]]:
        """Lets the error cross a process boundary whole; an exception is otherwise rebuilt from its message."""
        return type(self), (self.where, self.expected, self.got, self.remedy)


class Interrupted(TidemillError):
    """Somebody pressed Ctrl-C; 130 is the shell convention for that."""

    exit_code = 130


class GateRefused(TidemillError):
    """A gate that the problem set was not passed; the run ends here, and rightly so."""

    exit_code = 3


class UserError(TidemillError):
    """Only the user can mend this."""

    exit_code = 4


class ProblemError(UserError):
    """problem.yaml, or an override of it, is not valid."""


class UserCodeError(UserError):
    """The user's preprocessing or model code could not be loaded, or raised."""


class DataError(UserError):
    """The data cannot be used as the problem describes it."""


class UsageError(UserError):
    """A command was given something that does not exist or does not fit."""


class PlatformError(TidemillError):
    """The machine, the disk or a backend failed; the same call may succeed later."""

    exit_code = 5
    retryable = True


class Preempted(PlatformError):
    """This process was told to end before its work was done; a retry goes on where it stopped."""


def classify(where: str, error: BaseException) -> TidemillError:
    """Returns ``error`` as one of the tree, so that it has an exit code.

    Args:
        where: what was at work; an error of the system names its own file.
    """
    if isinstance(error, TidemillError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(where, "was interrupted")
    if isinstance(error, MemoryError):
        return PlatformError(where, "ran out of memory", str(error) or None, "give the stage more memory")
    if isinstance(error, OSError) and error.errno in _SHORT:
        return PlatformError(
            error.filename or where, "the system refused", str(error), "free space or handles; run again"
        )
    if isinstance(error, OSError) and error.errno in _FORBIDDEN:
        return PlatformError(
            error.filename or where, "the system refused", str(error), "give this user the right to it"
        )
    return TidemillError(where, "must end without an unforeseen error", f"{type(error).__name__}: {error}")
