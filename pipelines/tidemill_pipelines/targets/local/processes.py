"""Task processes, started ahead of their tasks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidemill.errors import PlatformError
from tidemill.images import environment_of
from tidemill_pipelines.targets.local.environments import interpreter

_IMPORT = re.compile(r"^ +from (tidemill\.[\w.]+) import", re.MULTILINE)
_GRACE_S = 10.0


@dataclass(frozen=True)
class Ended:
    """How a task's process ended: its exit code, processor seconds and peak resident memory."""

    exit_code: int
    cpu_s: float
    peak_rss_mb: float


class Processes:
    """The processes of one run, at most one for each task."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = dict(environment)
        self._waiting: dict[str, subprocess.Popen[str]] = {}
        self._working: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._lock = threading.Lock()  # the tasks of a loop are run by threads

    def warm(self, task: str, image: str, command: Sequence[str]) -> None:
        """Starts the process of a task that is due soon."""
        with self._lock:
            if task not in self._waiting:
                self._waiting[task] = self._start(task, image, command)

    def run(self, task: str, image: str, command: Sequence[str], environment: Mapping[str, str]) -> Ended:
        """Runs a task to its end. Ctrl-C stops it and is raised again."""
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            process = self._waiting.pop(task, None) or self._start(task, image, command)
            self._working.add(process)
        order = {"code": command[3], "arguments": list(command[4:]), "environment": dict(environment)}
        try:
            with contextlib.suppress(BrokenPipeError):  # it has died already, and its exit code says so below
                assert process.stdin is not None
                process.stdin.write(json.dumps(order) + "\n")
                process.stdin.flush()
            return _wait(process)
        except BaseException:
            _stop(process)
            raise
        finally:
            with self._lock:
                self._working.discard(process)

    def stop(self) -> None:
        """Asks every working process to end, makes those that don't, and starts no more."""
        with self._lock:
            self._stopped = True
            asked = list(self._working)
        for number in (signal.SIGINT, signal.SIGKILL):
            for process in asked:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            deadline = time.monotonic() + _GRACE_S
            while self._working & set(asked) and time.monotonic() < deadline:
                time.sleep(0.05)

    def drop(self, task: str) -> None:
        """Ends a process that turned out not to be needed."""
        if process := self._waiting.pop(task, None):
            _kill(process)

    def close(self) -> None:
        """Ends every process that still waits for its task."""
        for task in list(self._waiting):
            self.drop(task)

    def _start(self, task: str, image: str, command: Sequence[str]) -> subprocess.Popen[str]:
        if command[0] != "sh" or "kfp.dsl.executor_main" not in command[2] or "pip install" in command[2]:
            raise PlatformError(
                task, "the local target runs Python components that install nothing", command[0], "give it an image"
            )
        modules = [m for m in _IMPORT.findall(command[3]) if m != "tidemill.stage"]
        # -P: modules in the directory where the command happens to be started must not take the place of others.
        python = [str(interpreter(environment_of(image))), "-P"]
        arguments = [*python, "-m", "tidemill_pipelines.targets.local.worker", *modules]
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"{task}.log").open("a") as log:
            return subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **self._environment},
                start_new_session=True,  # Ctrl-C reaches the runner alone, which decides
            )


def _wait(process: subprocess.Popen[str]) -> Ended:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    _close_pipe(process)
    return Ended(process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _stop(process: subprocess.Popen[str]) -> None:
    """Asks a working process to end, and makes it."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    deadline = time.monotonic() + _GRACE_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _close_pipe(process)


def _close_pipe(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
