"""What is known of an endpoint is true, whatever was killed or left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidemill.errors import PlatformError
from tidemill.serving import endpoints
from tidemill.serving.client import Client
from tidemill.serving.endpoints import Endpoint, endpoint_names
from tidemill.serving.process import listening_socket

PYTHON = Path(sys.executable)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen]:
    """A process that has nothing to do with endpoints."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    yield process
    process.kill()
    process.wait()


def test_a_state_file_that_names_a_strangers_process_is_not_believed(
    tmp_path: Path, bystander: subprocess.Popen
) -> None:
    endpoint = Endpoint(tmp_path, "toy")
    state = {"model": "toy", "registry": "r", "host": "127.0.0.1", "port": 1, "pid": bystander.pid, "started": 0.0}
    (tmp_path / "toy.json").write_text(json.dumps(state))
    (tmp_path / "toy.lock").touch()
    assert endpoint.running() is None
    assert endpoint.status().state == "down"
    assert endpoint.down() is False
    assert bystander.poll() is None
    assert not (tmp_path / "toy.json").exists()
    assert endpoint_names(tmp_path) == ["toy"]


def test_no_endpoint_was_ever_there(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path / "none", "toy")
    assert endpoint.status().state == "down"
    assert endpoint.down() is False
    assert endpoint_names(tmp_path / "none") == []


def test_two_who_start_it_at_once_get_one_process(world: Any) -> None:
    world.registry.promote(json.loads((world.register(0) / "registered.json").read_text())["version"])
    found: list[tuple[Any, bool]] = []

    def up() -> None:
        mine = Endpoint(world.root / "endpoints", "toy")
        found.append(mine.up(world.registry.path.parent, PYTHON))

    threads = [threading.Thread(target=up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({running.pid for running, _ in found}) == 1
    assert sorted(started for _, started in found) == [False, False, False, True]
    running = found[0][0]
    assert os.getsid(running.pid) == running.pid  # ending its starter's session doesn't end it
    world.endpoint.wait_until_answers(1)
    status = world.endpoint.status()
    assert (status.state, status.version, status.pid) == ("ready", 1, running.pid)
    with pytest.raises(PlatformError, match="version 9 did not answer within 0 s"):
        world.endpoint.wait_until_loaded(9, timeout_s=0)

    # A process that hangs is told apart from one that answers, and is killed in the end.
    os.kill(running.pid, signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoints, "Client", lambda host, port: Client(host, port, timeout_s=0.2))
        assert world.endpoint.status().state == "unresponsive"
    with pytest.raises(PlatformError, match=r"did not end within 0\.3 s and was killed"):
        world.endpoint.down(timeout_s=0.3)
    assert world.endpoint.status().state == "down"
    with pytest.raises(PlatformError, match="its process ended before version 1 was loaded"):
        world.endpoint.wait_until_answers(1)


def test_a_process_that_does_not_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n")
    failing.chmod(0o755)
    endpoint = Endpoint(tmp_path / "endpoints", "toy")
    with pytest.raises(PlatformError, match=r"did not start[^$]*no such thing"):
        endpoint.up(tmp_path, failing)
    assert endpoint.running() is None


def test_a_process_that_says_nothing_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "_ANNOUNCE_TIMEOUT_S", 0.2)
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    endpoint = Endpoint(tmp_path / "endpoints", "toy")
    with pytest.raises(PlatformError, match="did not start"):
        endpoint.up(tmp_path, silent)
    with (tmp_path / "endpoints" / "toy.lock").open("a") as lock:
        assert endpoints._acquire(lock)
        with pytest.raises(PlatformError, match="does not say where it listens"):
            endpoint.running()


def test_a_large_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_MAX_LOG_BYTES", 3)
    endpoint = Endpoint(tmp_path, "toy")
    endpoint.log.write_text("long\n")
    with pytest.raises(PlatformError):
        endpoint.up(tmp_path, Path("/bin/false"))
    assert (tmp_path / "toy.log.1").read_text() == "long\n"


def test_the_preferred_port_or_the_next_free_one() -> None:
    with listening_socket(0, exact=True) as taken:
        port = taken.getsockname()[1]
        with listening_socket(port, exact=False) as other:
            assert port < other.getsockname()[1] < port + 200
        with pytest.raises(PlatformError, match="cannot be bound"):
            listening_socket(port, exact=True)


def test_a_server_that_speaks_no_http_is_an_error_of_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort")

        thread = threading.Thread(target=babble)
        thread.start()
        with (
            Client("127.0.0.1", server.getsockname()[1]) as client,
            pytest.raises(ConnectionError, match="not an HTTP"),
        ):
            client.get("/")
        thread.join()


def test_a_connection_that_the_server_closed_is_opened_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def twice() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        thread = threading.Thread(target=twice)
        thread.start()
        with Client("127.0.0.1", server.getsockname()[1]) as client:
            assert client.get("/").value == {}
            assert client.get("/").value == {}
        thread.join()
        port = server.getsockname()[1]
    with Client("127.0.0.1", port) as client, pytest.raises(ConnectionRefusedError):
        client.get("/")
