"""Real models, and the real server in a thread of the test's process."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tidemill.serving.client import Client
from tidemill.serving.server import ModelServer
from tidemill.serving.settings import Settings


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module of the toy model."""
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def models(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three versions of a model, of shift 0, 1 and 2."""
    root = tmp_path_factory.mktemp("models")
    return [toy.export(root / f"shift{shift}", float(shift)) for shift in range(3)]


class RunningServer:
    """A server and its address."""

    def __init__(self, server: ModelServer, port: int, thread: threading.Thread) -> None:
        self.server, self.port, self.thread = server, port, thread

    def client(self) -> Client:
        return Client("127.0.0.1", self.port)

    def wait_for_version(self, version: int) -> None:
        with self.client() as client:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                answer = client.get("/readyz")
                if answer.status == 200 and answer.value["version"] == version:
                    return
                time.sleep(0.02)
        raise TimeoutError(f"version {version} does not answer")


@contextlib.contextmanager
def _running(settings: Settings) -> Iterator[RunningServer]:
    server = ModelServer(settings)
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    thread = threading.Thread(target=lambda: asyncio.run(server.run(listening)))
    port = listening.getsockname()[1]
    thread.start()
    try:
        yield RunningServer(server, port, thread)
    finally:
        if thread.is_alive():
            server.end()
        thread.join(30)
        listening.close()


@pytest.fixture(scope="session")
def serve() -> Callable[[Settings], contextlib.AbstractContextManager[RunningServer]]:
    """Runs a server with the given settings in a thread."""
    return _running


@pytest.fixture(scope="module")
def server(models: list[Path]) -> Iterator[RunningServer]:
    """A server of the model of shift 0 that answers."""
    settings = Settings(
        storage_uri=str(models[0]), max_body_bytes=1 << 16, max_rows=64, predict_route="/ask", health_route="/well"
    )
    with _running(settings) as running:
        running.wait_for_version(1)
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with server.client() as client:
        yield client
