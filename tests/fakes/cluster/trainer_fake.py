"""Kubeflow Trainer, JobSet and Kueue behind the Kubernetes API server's fake: what becomes of a TrainJob.

A job is played from a script, a `Look` for each time that somebody looks at it, or its nodes are run for real, as
processes of this machine that find each other by TF_CONFIG.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

Json = dict[str, Any]
_BEGUN: Final = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_POD: Final = {
    "nodeSelector": dict,
    "tolerations": [{"key": str, "operator": str, "value": str, "effect": str}],
    "imagePullSecrets": [{"name": str}],
    "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str}}],
}
_TEMPLATE: Final = {"metadata": {"labels": dict}, "spec": _POD}
_PATCHES: Final = {"replicatedJobs": [{"name": str, "template": {"spec": {"template": _TEMPLATE}}}]}
SHAPE: Final[Json] = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "TrainJob",
    "metadata": {"name": str, "namespace": str, "labels": dict, "ownerReferences": [dict]},
    "spec": {
        "runtimeRef": {"apiGroup": str, "kind": str, "name": str},
        "activeDeadlineSeconds": int,
        "trainer": {
            "image": str,
            "numNodes": int,
            "args": [str],
            "env": [{"name": str, "value": str}],
            "resourcesPerNode": {"requests": dict, "limits": dict},
        },
        "runtimePatches": [{"manager": str, "trainingRuntimeSpec": {"template": {"spec": _PATCHES}}}],
    },
}
"""The fields of the CRD that are used here; any other is unknown. A test holds these against the real CRD."""


@dataclass(frozen=True)
class Look:
    """What is seen of a job at one look.

    Attributes:
        condition: Suspended, Complete or Failed; None while it is neither.
        ready: whether all nodes run.
        pods: phase by node; with what its container says, where a test gives that.
        prints: lines by node that are new.
    """

    condition: str | None = None
    reason: str = ""
    message: str = ""
    ready: bool = False
    pods: Mapping[int, str | tuple[str, Json]] = field(default_factory=dict)
    prints: Mapping[int, Sequence[str]] = field(default_factory=dict)

    @property
    def status(self) -> Json:
        """The TrainJob's `status`."""
        told = [{"type": "Suspended", "status": "False", "reason": "Resumed", "message": "TrainJob is resumed"}]
        if self.condition == "Suspended":
            told = []
        if self.condition is not None:
            told.append({"type": self.condition, "status": "True", "reason": self.reason, "message": self.message})
        counts = {"ready": int(self.ready), "active": int(not self.condition), "succeeded": 0, "failed": 0}
        return {"conditions": told, "jobsStatus": [{"name": "node", **counts, "suspended": 0}]}


SUSPENDED: Final = Look("Suspended", "Suspended", "TrainJob is suspended")
STARTING: Final = Look(pods={0: "Pending", 1: "Pending"})
RUNNING: Final = Look(ready=True, pods={0: "Running", 1: "Running"})
COMPLETE: Final = Look(
    "Complete", "JobsCompleted", "jobset completed successfully", pods={0: "Succeeded", 1: "Succeeded"}
)


class Play(Protocol):
    """What becomes of one job."""

    def look(self, pods: Pods, job: Json) -> Look:
        """Returns what is seen now, and has the pods be so."""

    def end(self) -> None:
        """Ends what still runs: the job was deleted."""


class Pods(Protocol):
    """The part of the cluster that a play changes."""

    def node(self, job: Json, number: int, attempt: int, phase: str, says: Json | None = None) -> str: ...

    def printed(self, pod: str, line: str) -> None: ...


class Script:
    """A job that goes from look to look, and stays at the last."""

    def __init__(self, *looks: Look) -> None:
        self._looks = list(looks)

    def look(self, pods: Pods, job: Json) -> Look:
        now = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        for number, phase in now.pods.items():
            known, says = phase if isinstance(phase, tuple) else (phase, None)
            pods.node(job, number, 0, known, says)
        for number, lines in now.prints.items():
            for line in lines:
                pods.printed(pods.node(job, number, 0, "Running"), line)
        return now

    def end(self) -> None:
        self._looks = [self._looks[-1]]


class Nodes:
    """A job whose nodes are processes, started and started again as the runtime's failure policy says.

    Args:
        logs: directory for what they print.
        python: interpreter in place of the image's ``python3``.
        max_restarts: as in the runtime; those for exit code 5 don't count there.
        environment: of the processes, beside what Trainer and TF_CONFIG give them.
    """

    def __init__(
        self,
        logs: Path,
        python: str = sys.executable,
        max_restarts: int = 3,
        environment: Mapping[str, str] | None = None,
        command: Callable[[list[str]], list[str]] = lambda arguments: arguments,
    ) -> None:
        self._logs, self._python, self._left = logs, python, max_restarts
        self._environment, self._command = environment or {}, command
        self.processes: list[subprocess.Popen[bytes]] = []
        self.attempt = -1
        self._told: dict[str, int] = {}
        self._ended: Look | None = None

    def look(self, pods: Pods, job: Json) -> Look:
        if self._ended is not None:
            return self._ended
        if not self.processes:
            self._start(job)
        codes = [process.poll() for process in self.processes]
        for number, code in enumerate(codes):
            phase = "Running" if code is None else "Succeeded" if code == 0 else "Failed"
            exited = {"name": "node", "state": {"terminated": {"exitCode": abs(code or 0), "reason": "Error"}}}
            name = pods.node(job, number, self.attempt, phase, {"containerStatuses": [exited]} if code else None)
            self._print(pods, name, number)
        if all(code == 0 for code in codes):
            self._ended = Look("Complete", "JobsCompleted", COMPLETE.message)
            return self._ended
        failed = [code for code in codes if code]
        if not failed:
            return Look(ready=None not in codes or codes.count(None) == len(codes))
        self.end()
        if 4 in failed or (self._left == 0 and 5 not in failed):
            told = "FailJobSetAction" if 4 in failed else "ReachedMaxRestarts"
            self._ended = Look("Failed", told, "jobset failed due to one or more job failures")
            return self._ended
        self._left -= 5 not in failed
        self.processes = []
        return Look()

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, job: Json) -> None:
        self.attempt += 1
        trainer = job["spec"]["trainer"]
        assert trainer["args"][0] == "python3"
        line = self._command([self._python, *trainer["args"][1:]])
        workers = [f"127.0.0.1:{_port()}" for _ in range(trainer["numNodes"])]
        given = {one["name"]: one["value"] for one in trainer.get("env", ())}
        for number in range(len(workers)):
            place = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": number}}
            config = {"TF_CONFIG": json.dumps(place)} if len(workers) > 1 else {}
            environment = {**os.environ, **self._environment, **given, **config}
            with self._log(number).open("wb") as log:
                self.processes.append(subprocess.Popen(line, env=environment, stdout=log, stderr=subprocess.STDOUT))

    def _log(self, number: int) -> Path:
        return self._logs / f"node-{number}-{self.attempt}.log"

    def _print(self, pods: Pods, name: str, number: int) -> None:
        lines = self._log(number).read_text(errors="replace").splitlines()
        for text in lines[self._told.get(name, 0) :]:
            pods.printed(name, text)
        self._told[name] = len(lines)


def stamp(number: int) -> str:
    """Returns the time of a node's n-th line as Go writes it; two at a time fall on the same moment."""
    text = (_BEGUN + datetime.timedelta(milliseconds=350 * (number // 2))).isoformat(timespec="milliseconds")
    seconds, _, fraction = text.removesuffix("+00:00").partition(".")
    return f"{seconds}.{fraction.rstrip('0')}Z" if fraction.rstrip("0") else f"{seconds}Z"


def faults(job: Json, runtimes: Sequence[str]) -> list[str]:
    """Returns why Trainer's webhook denies a TrainJob."""
    spec, found = job["spec"], []
    reference = spec["runtimeRef"]
    if reference["name"] not in runtimes:
        found.append(
            f'spec.runtimeRef: Invalid value: {{"name":"{reference["name"]}"}}: TrainingRuntime.trainer.kubeflow.org '
            f'"{reference["name"]}" not found: specified trainingRuntime must be created before the TrainJob is created'
        )
    for patch in spec.get("runtimePatches", ()):
        if not re.fullmatch(r"[a-z0-9.-]+/[A-Za-z0-9/_.-]+", patch["manager"]):
            found.append(
                f'spec.runtimePatches.manager: Invalid value: "{patch["manager"]}": must be a domain-prefixed path'
            )
        for replicated in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
            if replicated["name"] != "node":
                found.append("must not have replicated job that doesn't exist in the runtime job template")
    return found


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
