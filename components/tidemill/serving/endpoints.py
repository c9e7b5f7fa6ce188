"""Local endpoints: one detached serving process per model, found again through files and a lock.

::

    <endpoints>/
        <model>.lock    locked by the serving process from before its start until its end, whatever ends it
        <model>.json    where it listens, and its process id
        <model>.log

The lock, which the process inherits from whoever starts it, is what tells that an endpoint runs: unlike a process
id it cannot be left behind by a kill, nor mean another process later.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

from tidemill.errors import PlatformError, UsageError
from tidemill.serving.client import Client
from tidemill.serving.process import last_words, listening_socket, spawn

PREFERRED_PORT: Final = 8501
_POLL_S = 0.05
_ANNOUNCE_TIMEOUT_S = 20.0
_MAX_LOG_BYTES = 64 << 20


@dataclass(frozen=True)
class Running:
    """A serving process, as it describes itself."""

    model: str
    registry: str
    host: str
    port: int
    pid: int
    started: float

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def predict_url(self) -> str:
        return f"{self.address}/v1/models/{self.model}:predict"


@dataclass(frozen=True)
class EndpointStatus:
    """What an endpoint is doing, asked of itself.

    Attributes:
        state: ``ready`` answers predictions; ``starting`` or draining doesn't; ``unresponsive`` doesn't answer at
            all; ``down`` has no process.
        version: the version that answers.
        versions: TensorFlow Serving's ``model_version_status``.
    """

    model: str
    state: Literal["ready", "starting", "unresponsive", "down"]
    address: str | None = None
    predict_url: str | None = None
    pid: int | None = None
    version: int | None = None
    versions: tuple[Mapping[str, Any], ...] = ()


def endpoint_names(directory: Path) -> list[str]:
    """Returns the models that have, or once had, an endpoint here."""
    return sorted(p.stem for p in Path(directory).glob("*.lock"))


class Endpoint:
    """The local endpoint of one model."""

    def __init__(self, directory: Path, model: str) -> None:
        self.model = model
        self.directory = Path(directory).absolute()
        self.log = self.directory / f"{model}.log"
        self._state = self.directory / f"{model}.json"
        self._lock = self.directory / f"{model}.lock"

    def running(self) -> Running | None:
        """Returns the process, or None if there is none; waits for one that is about to say where it listens."""
        deadline = time.monotonic() + _ANNOUNCE_TIMEOUT_S
        while self._is_locked():
            with contextlib.suppress(FileNotFoundError):
                return Running(**json.loads(self._state.read_text()))
            if time.monotonic() > deadline:
                raise PlatformError(f"endpoint {self.model}", "a process holds it and does not say where it listens")
            time.sleep(_POLL_S)
        return None

    def up(self, registry: Path, python: Path, port: int | None = None) -> tuple[Running, bool]:
        """Returns the running process, started if there was none, and whether it was started.

        Args:
            registry: what it serves from; its aliases are followed.
            python: interpreter of the serving environment.
            port: the port it must listen on; by default 8501 or the next free one.

        Raises:
            UsageError: if one runs that serves from another registry or on another port.
            PlatformError: if the port is taken, or the process doesn't start.
        """
        registry = Path(registry).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        if (running := self.running()) is None:
            with self._lock.open("a") as lock:
                if not _acquire(lock):  # someone else is starting it
                    return self.up(registry, python, port)
                return self._start(registry, python, port, lock), True
        remedy = f"end it with `tidemill endpoint down {self.model}`"
        if Path(running.registry) != registry:
            raise UsageError(f"endpoint {self.model}", f"must serve from {registry}", running.registry, remedy)
        if port not in (None, running.port):
            raise UsageError(f"endpoint {self.model}", f"must listen on {port}", f"{running.port}", remedy)
        return running, False

    def _start(self, registry: Path, python: Path, port: int | None, lock: IO[str]) -> Running:
        self._state.unlink(missing_ok=True)
        if self.log.is_file() and self.log.stat().st_size > _MAX_LOG_BYTES:
            os.replace(self.log, self.log.with_suffix(".log.1"))
        with listening_socket(PREFERRED_PORT if port is None else port, exact=port is not None) as listening:
            arguments = ["--registry", str(registry), "--model", self.model, "--state-file", str(self._state)]
            arguments += ["--socket-fd", str(listening.fileno()), "--lock-fd", str(lock.fileno())]
            with self.log.open("ab") as log:
                begin = log.tell()
                process = spawn(python, arguments, log, (listening.fileno(), lock.fileno()), outlives=True)
        deadline = time.monotonic() + _ANNOUNCE_TIMEOUT_S
        while not self._state.is_file():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise PlatformError(f"endpoint {self.model}", "the process did not start", last_words(self.log, begin))
            time.sleep(_POLL_S)
        # It outlives this process on purpose; without this, Python warns of a child that was not waited for.
        process.returncode = 0
        return Running(**json.loads(self._state.read_text()))

    def status(self) -> EndpointStatus:
        """Asks the process how it is."""
        if (running := self.running()) is None:
            return EndpointStatus(self.model, "down")
        known: dict[str, Any] = {"address": running.address, "predict_url": running.predict_url, "pid": running.pid}
        try:
            with Client(running.host, running.port) as client:
                ready = client.get("/readyz")
                versions = client.get(f"/v1/models/{self.model}").value["model_version_status"]
        except OSError:
            return EndpointStatus(self.model, "unresponsive", **known)
        version = ready.value["version"] if ready.status == 200 else None
        return EndpointStatus(
            self.model, "starting" if version is None else "ready", version=version, versions=tuple(versions), **known
        )

    def failed(self, version: int, since: int = 0) -> str | None:
        """Returns why ``version`` could not be loaded, or None; see :func:`_failure`."""
        return _failure(self.status(), version, since)

    def wait_until_answers(self, version: int, since: int = 0, timeout_s: float = 120.0) -> Running:
        """Waits until ``version`` answers by default.

        Args:
            since: serial number of the aliases that wanted it; failures under earlier ones don't count.

        Raises:
            PlatformError: if it can't be loaded or doesn't answer in time, or the process ends.
        """
        return self._wait(lambda status: status.version == version, version, since, timeout_s)

    def wait_until_loaded(self, version: int, since: int = 0, timeout_s: float = 120.0) -> Running:
        """Waits until ``version`` can be asked by its number; see :meth:`wait_until_answers`."""

        def loaded(status: EndpointStatus) -> bool:
            return any(v["version"] == str(version) and v["state"] == "AVAILABLE" for v in status.versions)

        return self._wait(loaded, version, since, timeout_s)

    def _wait(self, reached: Callable[[EndpointStatus], bool], version: int, since: int, timeout_s: float) -> Running:
        where, deadline = f"endpoint {self.model}", time.monotonic() + timeout_s
        while True:
            running, status = self.running(), self.status()
            if running is None or status.state == "down":
                raise PlatformError(
                    where, f"its process ended before version {version} was loaded", last_words(self.log)
                )
            if reached(status):
                return running
            if reason := _failure(status, version, since):
                raise PlatformError(where, f"version {version} could not be loaded", reason)
            if time.monotonic() > deadline:
                what = f"version {version} did not answer within {timeout_s:g} s"
                raise PlatformError(where, what, status.state, f"see {self.log}")
            time.sleep(_POLL_S)

    def down(self, timeout_s: float = 40.0) -> bool:
        """Lets the process answer what it has and end; returns whether there was one.

        Raises:
            PlatformError: if it had to be killed.
        """
        if (running := self.running()) is None:
            self._state.unlink(missing_ok=True)
            return False
        killed = False
        for sig, seconds in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, sig)
            killed = sig == signal.SIGKILL
            deadline = time.monotonic() + seconds
            while self._is_locked() and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            if not self._is_locked():
                break
        self._state.unlink(missing_ok=True)
        if killed:
            raise PlatformError(f"endpoint {self.model}", f"did not end within {timeout_s:g} s and was killed")
        return True

    def _is_locked(self) -> bool:
        try:
            with self._lock.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


def _failure(status: EndpointStatus, version: int, since: int) -> str | None:
    """Returns why a version could not be loaded when it was wanted by decision ``since`` or a later one."""
    for described in status.versions:
        if described["version"] == str(version) and described["state"] == "END" and described["serial"] >= since:
            return str(described["status"]["error_message"])
    return None


def _acquire(lock: IO[str]) -> bool:
    """Takes the lock, unless a process holds it; someone who merely looks holds it for a moment."""
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_POLL_S)
        else:
            return True
    return False
