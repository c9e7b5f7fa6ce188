"""The record of a run: what ran, from what, for how long, and what it decided.

::

    <runs-dir>/runs/<run id>/
        run.json            the run, rewritten when it ends
        pipeline.yaml       the compiled pipeline that was executed
        tasks/<task>.json   one file per task, written when the task ends
        logs/<task>.log
        report.html
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from tidemill.files import write_json

TaskStatus = Literal["running", "succeeded", "cached", "failed", "interrupted"]
Verdict = Literal[
    "running", "released", "completed", "refused", "bad_input", "platform_failure", "defect", "interrupted"
]
EXIT_CODES: Mapping[str, int] = {
    "released": 0,
    "completed": 0,
    "defect": 1,
    "refused": 3,
    "bad_input": 4,
    "platform_failure": 5,
    "interrupted": 130,
}


@dataclass(frozen=True)
class Artifact:
    """Where an artefact lies and what it holds (hex sha256 of its content)."""

    uri: str
    digest: str


@dataclass(frozen=True)
class TaskRecord:
    """One execution, or reuse, of a component.

    Attributes:
        iteration_of: the task of the pipeline that is run once for each item of a list, if this is one of those runs.
        wall_s: seconds from when the task was due to when it had ended.
        import_s: seconds that its process took to start and import. A target may do so while an earlier task
            still works, so this is not a part of ``wall_s``.
        cpu_s: seconds of processor time, imports included.
        code: digest of the component, the package and the environment lock.
        cache_key: digest of code, parameters and inputs; None for a task that must not be reused.
        cache_reason: why the task was reused, or why it wasn't.
        reused_from: the run whose result was reused.
        summary: the stage's report.
        error: as ``tidemill.stage`` leaves it.
    """

    name: str
    environment: str
    status: TaskStatus
    started: str
    wall_s: float = 0.0
    import_s: float = 0.0
    cpu_s: float = 0.0
    peak_rss_mb: float = 0.0
    exit_code: int | None = None
    code: str = ""
    cache_key: str | None = None
    cache_reason: str = ""
    reused_from: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    outputs: Mapping[str, Artifact] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    iteration_of: str | None = None

    def write(self, run_dir: Path) -> None:
        write_json(run_dir / "tasks" / f"{self.name}.json", asdict(self))

    @classmethod
    def read(cls, path: Path) -> TaskRecord:
        value = json.loads(path.read_text())
        for key in ("inputs", "outputs"):
            value[key] = {name: Artifact(**artifact) for name, artifact in value[key].items()}
        return cls(**value)


@dataclass(frozen=True)
class RunRecord:
    """A run as a whole.

    Attributes:
        environment: versions, lock digest, git commit and machine that the run was made with.
        stages: names of the pipeline's tasks in the order of execution, for showing what was not reached.
        tariff: what the tasks are priced by, if somebody gave prices; see `tidemill.costs`.
        cost: what they cost by it; written when the run ends.
    """

    id: str
    problem: str
    pipeline: str
    verdict: Verdict
    started: str
    ended: str | None = None
    wall_s: float | None = None
    source: str = ""
    source_fingerprint: str = ""
    bundle: str = ""
    stages: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tariff: Mapping[str, Any] | None = None
    cost: Mapping[str, Any] | None = None

    def write(self, run_dir: Path) -> None:
        write_json(run_dir / "run.json", asdict(self))

    @classmethod
    def read(cls, run_dir: Path) -> RunRecord:
        value = json.loads((run_dir / "run.json").read_text())
        return cls(**{f.name: value[f.name] for f in fields(cls) if f.name in value})


def read_tasks(run_dir: Path) -> list[TaskRecord]:
    """Returns the records of the tasks that ended or began, in the order of their start."""
    return sorted((TaskRecord.read(p) for p in (run_dir / "tasks").glob("*.json")), key=lambda t: t.started)


def output(tasks: Sequence[TaskRecord], task: str, name: str) -> Path | None:
    """Returns the local path of an artefact that ``task`` put out, or None if it didn't get so far."""
    for record in tasks:
        if record.name == task and name in record.outputs and Path(record.outputs[name].uri).exists():
            return Path(record.outputs[name].uri)
    return None


def verdict_of(tasks: Sequence[TaskRecord], stages: Sequence[str] = ()) -> Verdict:
    """Returns what the tasks' exit codes amount to.

    Without a failure it is ``released`` once ``deploy`` has ended, and ``completed`` for a pipeline that has none.

    Args:
        tasks: those that ended or began.
        stages: the names of all the pipeline's tasks. If ``deploy`` is one and didn't end, that is a defect.
    """
    codes = [task.exit_code for task in tasks if task.status in ("failed", "interrupted")]
    told: Mapping[int, Verdict] = {
        130: "interrupted",
        3: "refused",
        4: "bad_input",
        5: "platform_failure",
        -signal.SIGKILL: "platform_failure",  # by the kernel, for want of memory, or by somebody
        -signal.SIGTERM: "platform_failure",
    }
    for code, verdict in told.items():
        if code in codes:
            return verdict
    if codes:
        return "defect"
    if any(task.name == "deploy" and task.status in ("succeeded", "cached") for task in tasks):
        return "released"
    return "defect" if "deploy" in stages else "completed"
