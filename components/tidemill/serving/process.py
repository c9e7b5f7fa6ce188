"""Starting ``python -m tidemill.serving`` on a socket that listens already."""

from __future__ import annotations

import os
import socket
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tidemill.errors import PlatformError

_LOOPBACK = "127.0.0.1"
_PORTS_TRIED = 200
_TASK_PREFIX = "TIDEMILL_"


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


def spawn(python: Path, arguments: Sequence[str], log: IO[bytes], fds: Sequence[int]) -> subprocess.Popen[bytes]:
    """Starts the server in a session of its own, so that nothing that ends its starter ends it too.

    Args:
        python: interpreter of the serving environment.
        arguments: see ``tidemill.serving.settings``.
        log: takes its output.
        fds: descriptors that it inherits.
    """
    # What a target tells a task through the environment is not meant for a process that outlives the task.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_TASK_PREFIX)}
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return subprocess.Popen(
        [str(python), "-P", "-m", "tidemill.serving", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        pass_fds=tuple(fds),
        env=environment,
        cwd="/",
    )


def tail(log: Path, lines: int = 15) -> str:
    """Returns the last lines of a log."""
    with log.open(encoding="utf-8", errors="replace") as file:
        return "".join(deque(file, lines)).strip()
