"""The process: it binds, says where, follows its model, and drains when it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop

from tidemill.artifacts import ModelManifest
from tidemill.errors import DataError, PlatformError
from tidemill.files import write_json
from tidemill.serving import logs
from tidemill.serving.app import Drain, build_app
from tidemill.serving.logs import event
from tidemill.serving.metrics import Metrics
from tidemill.serving.settings import Settings
from tidemill.serving.storage import fetch
from tidemill.serving.versions import DirectorySource, RegistrySource, Source, Versions

_KEEP_ALIVE_S = 75  # longer than clients' pools keep a connection, or they would send into a closing one


def serve(settings: Settings) -> int:
    """Serves until a signal; returns the exit code.

    Raises:
        DataError: if a single model is to be served and cannot be loaded.
        PlatformError: if the address cannot be bound, or the model not be copied.
    """
    logs.set_up()
    with _bind(settings) as listening:
        if settings.lock_fd is not None:
            os.set_inheritable(settings.lock_fd, False)
        if settings.state_file is not None:
            _write_state(settings, listening)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(ModelServer(settings).run(listening))
        finally:
            if settings.state_file is not None:
                settings.state_file.unlink(missing_ok=True)
    return 0


def _bind(settings: Settings) -> socket.socket:
    if settings.socket_fd is not None:
        return socket.socket(fileno=settings.socket_fd)
    try:
        return socket.create_server((settings.host, settings.port), backlog=2048)
    except OSError as error:
        raise PlatformError(f"{settings.host}:{settings.port}", "cannot be bound", error.strerror) from error


def _write_state(settings: Settings, listening: socket.socket) -> None:
    host, port = listening.getsockname()[:2]
    state = {
        "model": settings.model,
        "registry": str(settings.registry),
        "host": host,
        "port": port,
        "pid": os.getpid(),
        "started": time.time(),
    }
    write_json(Path(str(settings.state_file)), state)


def _source(settings: Settings) -> tuple[Source, str]:
    if settings.registry is not None and settings.model is not None:
        return RegistrySource(settings.registry, settings.model), settings.model
    directory = fetch(str(settings.storage_uri))
    try:
        return DirectorySource(directory), ModelManifest.read(directory).name
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(str(settings.storage_uri), "expected a model artefact with model.json", str(error)) from error


class _Uvicorn(uvicorn.Server):
    """Tells someone about signals instead of ending by them: draining comes first, and the exit code is ours."""

    loop: asyncio.AbstractEventLoop
    told: asyncio.Event

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        self.loop.call_soon_threadsafe(self.told.set)


class ModelServer:
    """The life of the server between bind and exit.

    Attributes:
        versions: what it serves.
    """

    def __init__(self, settings: Settings) -> None:
        source, name = _source(settings)
        metrics = Metrics(name)
        self.versions = Versions(name, source, settings, metrics)
        self._settings = settings
        self._drain = Drain()
        self._server = _Uvicorn(
            uvicorn.Config(
                build_app(self.versions, settings, metrics, self._drain),
                http="httptools",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
            )
        )

    def end(self) -> None:
        """Begins to drain, as SIGTERM does. May be called from any thread once ``run`` has begun."""
        self._server.handle_exit(signal.SIGTERM, None)

    async def run(self, listening: socket.socket) -> None:
        """Answers on ``listening`` until it is told to end and has answered what it owes.

        Raises:
            DataError: if a single model is to be served and cannot be loaded.
        """
        self._server.loop = asyncio.get_running_loop()
        self._server.told = asyncio.Event()
        host, port = listening.getsockname()[:2]
        event("listening", host=host, port=port, model=self.versions.name)
        serving = asyncio.create_task(self._server.serve([listening]))
        following = asyncio.create_task(self._follow())
        told = asyncio.create_task(self._server.told.wait())
        await asyncio.wait((told, following, serving), return_when=asyncio.FIRST_COMPLETED)
        failure = following.exception() if following.done() else None
        following.cancel()
        if failure is None:
            await self._end_requests()
        self._server.should_exit = True
        await serving
        told.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await told
        if failure is not None:
            raise failure
        event("ended")

    async def _follow(self) -> None:
        if self._settings.storage_uri is not None:
            await self.versions.refresh()
            if self.versions.default is None:  # there is nothing to wait for: the directory will not change
                (status,) = self.versions.status()
                raise DataError(self.versions.name, "cannot be served", status["status"]["error_message"])
        await self.versions.follow()

    async def _end_requests(self) -> None:
        self._drain.draining = True
        event("draining", in_flight=self._drain.in_flight)
        deadline = time.monotonic() + self._settings.drain_timeout_s
        await asyncio.sleep(self._settings.drain_grace_s)
        while self._drain.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
