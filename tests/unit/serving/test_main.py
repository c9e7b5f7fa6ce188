"""The serving process, from its settings to its exit code."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest

from tidemill.errors import DataError, PlatformError, UsageError
from tidemill.serving.client import Client
from tidemill.serving.server import serve
from tidemill.serving.settings import Settings, read_settings

PREDICT = "/v1/models/toy:predict"


def test_what_to_serve_must_be_said_in_exactly_one_way() -> None:
    for arguments in ([], ["--registry", "r", "--model", "m", "--storage-uri", "s"], ["--registry", "r"]):
        with pytest.raises(UsageError):
            read_settings(arguments, {})


@pytest.mark.parametrize("limit", ["--workers", "--max-queued-rows", "--max-rows", "--max-body-bytes"])
def test_limits_that_let_nothing_through_are_refused(limit: str) -> None:
    with pytest.raises(UsageError, match=f"{limit} must be 1 or more"):
        read_settings(["--storage-uri", "s", limit, "0"], {})


def test_the_command_line_is_read_over_the_defaults() -> None:
    settings = read_settings(["--registry", "r", "--model", "m", "--port", "9", "--poll-s", "0.1"], {})
    assert settings == Settings(registry=Path("r"), model="m", port=9, poll_s=0.1)


def test_vertex_tells_by_environment_what_to_serve_where() -> None:
    environment = {
        "AIP_STORAGE_URI": "gs://bucket/model",
        "AIP_HTTP_PORT": "8080",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
        "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
    }
    settings = read_settings([], environment)
    assert (settings.storage_uri, settings.host, settings.port) == ("gs://bucket/model", "0.0.0.0", 8080)
    assert settings.predict_route == environment["AIP_PREDICT_ROUTE"]
    assert settings.health_route == environment["AIP_HEALTH_ROUTE"]


def start(arguments: Sequence[str], log: IO[bytes], environment: Mapping[str, str] | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "tidemill.serving", *arguments]
    return subprocess.Popen(command, stdout=log, stderr=log, env=dict(environment or {}))


def port_of(process: subprocess.Popen, log: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"listening"' in line:
                return int(json.loads(line)["port"])
        time.sleep(0.05)
    raise TimeoutError(log.read_text())


@pytest.fixture
def vertex(models: list[Path], tmp_path: Path) -> Iterator[tuple[subprocess.Popen, Path, int]]:
    """A process started as Vertex AI starts a container, once it is ready."""
    log = tmp_path / "log"
    environment = {
        "AIP_STORAGE_URI": str(models[0]),
        "AIP_HTTP_PORT": "0",
        "AIP_PREDICT_ROUTE": "/ask",
        "AIP_HEALTH_ROUTE": "/well",
    }
    with log.open("wb") as file:
        process = start([], file, environment)
    try:
        port = port_of(process, log)
        with Client("127.0.0.1", port) as client:
            deadline = time.monotonic() + 60
            while client.get("/well").status != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield process, log, port
    finally:
        process.kill()
        process.wait()


def test_sigterm_under_load_fails_nothing_that_was_taken_and_exits_0(
    vertex: tuple[subprocess.Popen, Path, int],
) -> None:
    process, log, port = vertex
    statuses: list[int] = []

    def ask() -> None:
        try:
            while True:
                with Client("127.0.0.1", port) as client:
                    statuses.append(client.post("/ask", {"instances": [{"job": "s3cret"}]}).status)
        except ConnectionRefusedError:
            return  # the port is closed: the process is about to be gone
        except OSError as error:
            statuses.append(error.errno or -1)

    with Client("127.0.0.1", port) as client:  # TensorFlow's own message quotes what it could not parse
        bad = {"signature_name": "serving_examples", "instances": [{"b64": base64.b64encode(b"s3cret").decode()}]}
        refused = client.post("/ask", bad)
    assert (refused.status, "s3cret" in refused.error) == (400, False)
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    for thread in threads:
        thread.join()
    # A connection that the kernel took after the last was accepted is reset; nothing that was read is left unanswered.
    assert set(statuses) <= {200, 503, 104, 32}
    assert statuses.count(200) > 10
    assert sum(status not in (200, 503) for status in statuses) <= 3
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["event"] == "request"]
    assert {"time", "level", "route", "status", "ms", "request_id", "rows", "version"} <= requests[0].keys()
    assert lines[-1]["event"] == "ended"
    assert "s3cret" not in log.read_text()


def test_a_model_that_cannot_be_loaded_ends_the_process_with_the_users_exit_code(
    models: list[Path], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    (model / "saved_model").mkdir(parents=True)
    (model / "model.json").write_bytes((models[0] / "model.json").read_bytes())
    with (tmp_path / "log").open("wb") as log:
        assert start(["--storage-uri", str(model), "--port", "0"], log).wait(60) == 4
    assert "DataError: toy: cannot be served" in (tmp_path / "log").read_text()


def test_what_cannot_be_served_is_told_before_tensorflow_is_imported(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        assert start(["--storage-uri", str(tmp_path / "nothing"), "--port", "0"], log).wait(30) == 4
    assert "expected a model artefact with model.json" in (tmp_path / "log").read_text()


def test_a_port_that_is_taken_is_the_platforms_fault(models: list[Path], taken_port: int) -> None:
    with pytest.raises(PlatformError, match=f"127.0.0.1:{taken_port}: cannot be bound"):
        serve(Settings(storage_uri=str(models[0]), port=taken_port))


def test_what_is_not_a_model_is_the_users_fault_and_leaves_no_state(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with pytest.raises(DataError, match=r"expected a model artefact with model\.json"):
        serve(Settings(storage_uri=str(tmp_path), port=0, state_file=state))
    assert not state.exists()


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def test_only_loading_a_model_imports_tensorflow() -> None:
    code = (
        "import sys, tidemill.serving.server, tidemill.serving.endpoints, tidemill.serving.__main__;"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
