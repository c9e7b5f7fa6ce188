"""Starting ``python -m tidemill.serving`` on a socket that listens already."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from tidemill.errors import PlatformError

_LOOPBACK = "127.0.0.1"
_PORTS_TRIED = 200
_TASK_PREFIX = "TIDEMILL_"
_TAIL_BYTES = 64 << 10
_SAID_LINES = 3
# absl's and TensorFlow's own lines, which come at any log level before their logging is set up.
_CHATTER = re.compile(
    r"WARNING: All log messages before absl|[IWE]\d{4} \d\d:|\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+: [IWE] "
)


def listening_socket(port: int, exact: bool) -> socket.socket:
    """Returns a socket that listens on loopback.

    Handing it to the server, and not a number, leaves no moment in which another process could take the port.

    Args:
        port: the first port to try; 0 takes any.
        exact: take that port or none.

    Raises:
        PlatformError: if no port can be had.
    """
    for candidate in range(port, port + (1 if exact or port == 0 else _PORTS_TRIED)):
        try:
            return socket.create_server((_LOOPBACK, candidate), backlog=2048)
        except OSError as error:
            reason = error.strerror
    raise PlatformError(f"{_LOOPBACK}:{port}", "the port cannot be bound", reason, "name another with --port")


def spawn(
    python: Path, arguments: Sequence[str], log: IO[bytes], fds: Sequence[int], outlives: bool
) -> subprocess.Popen[bytes]:
    """Starts the server.

    Args:
        python: interpreter of the serving environment.
        arguments: see ``tidemill.serving.settings``.
        log: takes its output.
        fds: descriptors that it inherits.
        outlives: gives it a session of its own, so that nothing that ends its starter ends it too. Otherwise it is of
            its starter's process group, and is killed with it.
    """
    # What a target tells a task through the environment is not meant for a process that outlives the task.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_TASK_PREFIX)}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"  # what TensorFlow logs of an error quotes the values at fault
    return subprocess.Popen(
        [str(python), "-P", "-m", "tidemill.serving", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=outlives,
        pass_fds=tuple(fds),
        env=environment,
        cwd="/",
    )


def last_words(log: Path, start: int = 0) -> str:
    """Returns why a server ended or doesn't answer, as it said itself.

    The reason of its last error event comes first, then the last lines that neither repeat it nor are the chatter of
    libraries.

    Args:
        log: what the server printed.
        start: bytes of the log that are another server's.
    """
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    reason, said = "", []
    for line in filter(None, map(str.strip, lines)):
        if (event := _event(line)) is None:
            said += [] if _CHATTER.match(line) else [line]
        elif event.get("event") == "listening":
            reason, said = "", []  # a later server's beginning
        elif event.get("level") == "error":
            reason = str(event.get("reason") or f"{event.get('event')}: {event.get('error')}")
    others = [line for line in said[-_SAID_LINES:] if not reason or reason not in line]
    return "\n".join(filter(None, (reason, *others))) or "it said nothing"


def _event(line: str) -> dict[str, Any] | None:
    """Returns a line of the server's own log, None for any other line."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
