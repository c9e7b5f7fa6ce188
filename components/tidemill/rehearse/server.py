"""The serving process of a rehearsal: the real one, on a free loopback port."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tidemill.serving.client import Client
from tidemill.serving.process import last_words, listening_socket, spawn

_START_TIMEOUT_S = 180.0
_END_TIMEOUT_S = 30.0
_POLL_S = 0.05


class NotServing(Exception):
    """The server didn't start, died, or stopped to answer; the message holds its last words."""


class RehearsalServer:
    """A running server.

    Attributes:
        client: a connection to it.
        startup_s: seconds from its start until it was ready.
    """

    def __init__(self, client: Client, startup_s: float, log: Path) -> None:
        self.client, self.startup_s, self._log = client, startup_s, log

    def last_words(self) -> str:
        """Returns why the server doesn't answer, as far as it said so."""
        return last_words(self._log)


@contextlib.contextmanager
def rehearsal_server(model: Path) -> Iterator[RehearsalServer]:
    """Yields a server of the model artefact ``model``; it is told to end when the block does.

    Raises:
        NotServing: if it isn't ready within three minutes.
    """
    with tempfile.TemporaryDirectory(prefix="tidemill-rehearsal-") as scratch:
        log_file = Path(scratch) / "log"
        with listening_socket(0, exact=True) as listening, log_file.open("wb") as log:
            host, port = listening.getsockname()
            arguments = ["--storage-uri", str(model.absolute()), "--socket-fd", str(listening.fileno())]
            started = time.monotonic()
            process = spawn(Path(sys.executable), arguments, log, (listening.fileno(),), outlives=False)
        try:
            with Client(host, port) as client:
                while not _is_ready(client):
                    if process.poll() is not None:
                        raise NotServing(f"it ended with exit code {process.returncode}: {last_words(log_file)}")
                    if time.monotonic() - started > _START_TIMEOUT_S:
                        raise NotServing(f"it was not ready within {_START_TIMEOUT_S:g} s: {last_words(log_file)}")
                    time.sleep(_POLL_S)
                yield RehearsalServer(client, time.monotonic() - started, log_file)
        finally:
            process.terminate()
            try:
                process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_ready(client: Client) -> bool:
    try:
        return client.get("/readyz").status == 200
    except OSError:
        return False
