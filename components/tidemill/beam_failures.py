"""Carries errors out of Beam workers.

A runner hands on no exception but its text. So the worker writes the error into its message as JSON, and the
driver reads it back: a user's fault keeps its type and exit code on every runner.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from tidemill import errors
from tidemill.errors import TidemillError

_MARK = "tidemill-failure:"
_MARKED = re.compile(re.escape(_MARK) + r"([0-9a-f]+)\.")


class _Carried(RuntimeError):
    """An error of which only the text will arrive."""


@contextmanager
def carried() -> Iterator[None]:
    """Makes errors of the block readable by :func:`delivered`."""
    try:
        yield
    except TidemillError as error:
        fields: list[object] = [error.where, error.expected, error.got, error.remedy]
        raise _Carried(_encode({"type": type(error).__name__, "fields": fields})) from error
    except OSError as error:
        fields = [error.errno, error.strerror, error.filename]
        raise _Carried(_encode({"type": "OSError", "fields": fields})) from error


@contextmanager
def delivered() -> Iterator[None]:
    """Raises what :func:`carried` wrapped in a worker, in place of the runner's error."""
    try:
        yield
    except Exception as error:
        match = _MARKED.search(str(error))
        if not match:
            raise
        failure = json.loads(bytes.fromhex(match[1]))
        kind = OSError if failure["type"] == "OSError" else getattr(errors, failure["type"])
        raise kind(*failure["fields"]) from None


def _encode(failure: dict[str, object]) -> str:
    # Hexadecimal survives whatever escaping and wrapping a runner does to a message.
    return f"{_MARK}{json.dumps(failure).encode().hex()}."
