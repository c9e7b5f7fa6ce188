"""What is told of a server that ended, and of one that isn't ours."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path

import pytest

from tidemill.serving.client import Client
from tidemill.serving.process import last_words, spawn

_NOISE = """WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795224905.090813    4657 port.cc:153] oneDNN custom operations are on.
E0000 00:00:1795224905.090813    4657 cuda_dnn.cc:8579] Unable to register cuDNN factory
2026-11-21 01:35:04.466000: W tensorflow/core/framework/op_kernel.cc:1857] OP_REQUIRES failed
"""


def _line(event: str, level: str = "info", **fields: object) -> str:
    return json.dumps({"time": "2026-11-21T01:35:04.466+00:00", "level": level, "event": event, **fields}) + "\n"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (_NOISE, "it said nothing"),
        (
            _NOISE + _line("listening") + "DataError: toy: cannot be served\n" + _NOISE,
            "DataError: toy: cannot be served",
        ),
        (
            _line("listening") + _line("version_failed", "error", reason="no file") + "DataError: toy (got no file)\n",
            "no file",
        ),
        (_line("request_failed", "error", error="KeyError") + "Killed\n", "request_failed: KeyError\nKilled"),
        (_line("version_failed", "error", reason="an earlier server") + _line("listening") + "boo\n", "boo"),
        ("a\nb\nc\nd\n5\n", "c\nd\n5"),
    ],
)
def test_the_reason_comes_first_and_chatter_is_left_out(tmp_path: Path, log: str, expected: str) -> None:
    (tmp_path / "log").write_text(log)
    assert last_words(tmp_path / "log") == expected


def test_what_an_earlier_server_said_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("earlier\nlater\n")
    assert last_words(tmp_path / "log", len("earlier\n")) == "later"


def test_tensorflow_says_nothing_of_values_whatever_the_starter_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that starts a server has its own log level, and TensorFlow's warnings quote values."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.setenv("TIDEMILL_TASK_RECORD", "a task's own")
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport json, os; print(json.dumps(dict(os.environ)))\n")
    script.chmod(0o755)
    with (tmp_path / "log").open("wb") as log:
        assert spawn(script, [], log, (), outlives=False).wait() == 0
    environment = json.loads((tmp_path / "log").read_text())
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert "TIDEMILL_TASK_RECORD" not in environment


@pytest.mark.parametrize(
    "answer",
    [b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[}"],
)
def test_another_kind_of_server_is_a_connection_error(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

        speaker = threading.Thread(target=speak)
        speaker.start()
        with Client(*listening.getsockname()) as client, pytest.raises(ConnectionError, match="not an HTTP response"):
            client.get("/livez")
        speaker.join()
