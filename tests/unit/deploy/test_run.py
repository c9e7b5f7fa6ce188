"""A version answers beside the champion before it answers in its place, whatever is killed in between."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

import pytest

from tidemill.deploy.run import run
from tidemill.errors import PlatformError, UsageError
from tidemill.serving.client import Client
from tidemill.serving.registry import Registry


def ask(world: Any, instance: dict[str, Any]) -> tuple[int, float]:
    """Returns the version that answered, and its probability."""
    running = world.endpoint.running()
    with Client(running.host, running.port) as client:
        answer = client.post("/v1/models/toy:predict", {"instances": [instance]})
    assert answer.status == 200, answer.value
    return int(answer.headers["x-model-version"]), answer.value["predictions"][0]["probability"]


def test_releases_and_what_goes_wrong_with_them(world: Any) -> None:
    """The first release starts the endpoint; every later one is taken over by the same process."""
    first = run(*world.arguments(world.register(0)))
    assert (first.version, first.former, first.started) == (1, None, True)
    assert first.url == f"{first.address}/v1/models/toy:predict"
    assert json.loads((world.root / "out" / "deployment.json").read_text()) == asdict(first)
    pid = world.endpoint.running().pid

    # The example is for the shell: it must survive quotes and accents.
    arguments = shlex.split(first.curl)
    body = json.loads(arguments[arguments.index("-d") + 1])
    assert body == {"instances": [{"age": 31.5, "hours": 40, "job": "l'été"}]}
    assert first.answer["predictions"][0]["probability"] == pytest.approx(
        world.toy.probability(body["instances"][0], 0), abs=1e-6
    )

    # A retried step changes nothing.
    again = run(*world.arguments(world.root / "registered-0"))
    assert (again.version, again.started, again.answer) == (1, False, first.answer)
    assert [e["event"] for e in world.registry.events()] == ["registered", "promoted"]

    # A version that answers other than in its rehearsal doesn't become champion.
    wrong = world.register(1, answer_shift=2)
    with pytest.raises(PlatformError, match="must answer a test row as it did in the rehearsal"):
        run(*world.arguments(wrong))
    assert world.registry.aliases().champion == 1
    assert ask(world, {})[0] == 1

    # Nor does one that cannot be loaded, and the endpoint goes on.
    broken = world.register(2)
    path = world.registry.directory(3) / "saved_model.pb"
    content = path.read_bytes()
    path.write_bytes(b"broken")
    with pytest.raises(PlatformError, match="version 3 could not be loaded"):
        run(*world.arguments(broken))
    assert world.registry.aliases().champion == 1
    assert ask(world, {}) == (1, pytest.approx(world.toy.probability({}, 0), abs=1e-6))

    # Mended, it is taken over without a failed request.
    path.write_bytes(content)
    failures: list[Any] = []
    versions: set[int] = set()
    done = threading.Event()

    def load() -> None:
        running = world.endpoint.running()
        with Client(running.host, running.port) as client:
            while not done.is_set():
                answer = client.post("/v1/models/toy:predict", {"instances": [{}]})
                versions.add(int(answer.headers.get("x-model-version", 0)))
                if answer.status != 200:
                    failures.append(answer)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    third = run(*world.arguments(broken))
    world.registry.rollback()
    world.endpoint.wait_until_answers(1)
    time.sleep(0.1)
    done.set()
    for thread in threads:
        thread.join()
    assert (third.version, third.former, third.started) == (3, 1, False)
    assert failures == []
    assert versions == {1, 3}
    assert world.endpoint.running().pid == pid

    # An endpoint that serves another registry is not taken over.
    other = Registry(world.root / "other", "toy")
    shutil.copytree(world.registry.path, other.path)
    with pytest.raises(UsageError, match="must serve from"):
        run(str(world.root / "registered-0"), str(world.root / "other"), str(world.root / "endpoints"), "unused")
    with pytest.raises(UsageError, match="must listen on 1"):
        world.endpoint.up(world.registry.path.parent, sys.executable, 1)

    assert world.endpoint.down()
    assert world.endpoint.status().state == "down"
    assert not world.endpoint.down()
    assert '"ended"' in world.endpoint.log.read_text()


def test_a_killed_step_and_a_killed_endpoint_are_found_by_the_next_try(world: Any) -> None:
    registered = world.register(0)
    code = f"from tidemill.deploy.run import run; run(*{world.arguments(registered)!r})"
    step = subprocess.Popen([sys.executable, "-c", code])
    while not (world.root / "endpoints" / "toy.lock").exists():
        time.sleep(0.01)
    while (running := world.endpoint.running()) is None:
        time.sleep(0.01)
    step.kill()
    step.wait()
    assert world.registry.aliases().champion is None

    report = run(*world.arguments(registered))
    assert not report.started
    assert world.endpoint.running() == running

    # The process is gone and its files aren't; the port may be someone else's by now.
    os.kill(running.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while world.endpoint.running() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    state = world.root / "endpoints" / "toy.json"
    assert json.loads(state.read_text())["pid"] == running.pid
    report = run(*world.arguments(registered))
    assert report.started
    assert world.endpoint.status().version == 1
