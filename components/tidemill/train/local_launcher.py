"""Workers as processes of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tidemill.errors import Preempted
from tidemill.jobs.heartbeats import name_of
from tidemill.jobs.job import TrainingJob
from tidemill.train.ports import reserved

COMMAND: Final = (sys.executable, "-P", "-m", "tidemill.train.worker")
"""-P: modules in the directory where a command happens to be started must not take the place of others."""
GRACE_S: Final = 20.0
"""How long workers may take to save when they are told to end. A pod has 30 seconds by default."""
_SETTLE_S: Final = 3.0
"""How long the others may take to end by themselves, and say why, when one has failed."""
_LOGS: Final = "logs"


class Gang:
    """The worker processes of one try, which live and die together.

    Attributes:
        ended: exit code by worker, in the order in which they were seen to end; negative for a signal.
        killed: workers that were made to end because others had failed.
    """

    def __init__(self, job: TrainingJob, command: Sequence[str]) -> None:
        self.job = job
        self.ended: dict[int, int] = {}
        self.killed: set[int] = set()
        self.cancelled = False
        self._deadline: float | None = None
        self._resources = contextlib.ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        logs = job.shared / _LOGS
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        self._told = [0] * job.workers
        try:
            ports = self._resources.enter_context(reserved(job.workers))
            for worker in range(job.workers):
                self._processes.append(self._start(worker, ports, command))
        except BaseException:
            self.kill()
            raise

    def poll(self) -> bool:
        """Looks after the processes. Returns whether all have ended.

        When one has failed the others can't go on: they get a moment to end by themselves, or, where the failed one
        was told to end, the time to save.
        """
        for worker, process in enumerate(self._processes):
            if worker not in self.ended and process.poll() is not None:
                self.ended[worker] = process.returncode
        if len(self.ended) == len(self._processes):
            self._resources.close()
            return True
        failed = [code for code in self.ended.values() if code]
        if failed and self._deadline is None:
            self._deadline = time.monotonic() + (GRACE_S if failed[0] == Preempted.exit_code else _SETTLE_S)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.kill()
            return self.poll()
        return False

    def end(self, grace_s: float) -> None:
        """Has all workers save and end; those that haven't after the grace are killed."""
        self.cancelled = True
        for worker, process in enumerate(self._processes):
            if worker not in self.ended:
                process.terminate()
        deadline = time.monotonic() + grace_s
        self._deadline = min(deadline, self._deadline or deadline)

    def kill(self) -> None:
        """Ends all workers at once, even ones that are stopped."""
        for worker, process in enumerate(self._processes):
            if process.poll() is None:
                self.killed.add(worker)
                process.kill()
        for process in self._processes:
            process.wait()
        self._resources.close()

    def lines(self) -> Iterator[str]:
        """Yields the whole lines that the workers printed since the last call; after their end, the last ones too."""
        for worker in range(self.job.workers):
            with self._log(worker).open("rb") as file:
                file.seek(self._told[worker])
                new = file.read()
            if worker not in self.ended:
                new = new[: new.rfind(b"\n") + 1]
            self._told[worker] += len(new)
            for line in new.decode(errors="replace").splitlines():
                yield f"{name_of(worker)}: {line}"

    def _start(self, worker: int, ports: Sequence[int], command: Sequence[str]) -> subprocess.Popen[bytes]:
        arguments = [*command, *self.job.arguments, "--parent", str(os.getpid())]
        with self._log(worker).open("wb") as log:
            # In the process group of this one: who kills that group, as the local target does, ends them all.
            return subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.job.environment, **_environment(worker, ports)},
            )

    def _log(self, worker: int) -> Path:
        return self.job.shared / _LOGS / f"worker-{worker}.log"


def _environment(worker: int, ports: Sequence[int]) -> Mapping[str, str]:
    """Returns a worker's place among all, and its part of the cores."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "chief", "index": 0} if worker == 0 else {"type": "worker", "index": worker - 1}
    threads = str(max(1, len(os.sched_getaffinity(0)) // len(ports)))
    return {
        "TF_CONFIG": json.dumps({"cluster": {"chief": addresses[:1], "worker": addresses[1:]}, "task": task}),
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
    }


class LocalLauncher:
    """Starts workers as processes of this machine, which end with this one.

    Args:
        command: what a worker runs, before the job's arguments.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = tuple(command)

    def start(self, job: TrainingJob) -> Gang:
        """Starts the workers of a job, for one try."""
        return Gang(job, self._command)


def describe(gang: Gang) -> str:
    """Returns who ended how, the first one first; without those that only followed."""
    told = [f"{name_of(worker)} {_how(code)}" for worker, code in gang.ended.items() if worker not in gang.killed]
    return ", then ".join(told)


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
