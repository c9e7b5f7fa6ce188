"""The end of a run that no runner watches: on a remote target the report itself writes what the run came to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tidemill.costs import run_cost
from tidemill.execution import maker
from tidemill.runs import RunRecord, TaskRecord, read_tasks, verdict_of
from tidemill.stage import Origin

PLAN_VARIABLE: Final = "TIDEMILL_PLAN"
_REPORT: Final = "report"


@dataclass(frozen=True)
class Plan:
    """What was to run; the compiled pipeline brings it as JSON in ``TIDEMILL_PLAN``.

    Attributes:
        target: the kind of backend.
        stages: names of the tasks in the order of execution.
        tariff: what they are priced by; see `tidemill.costs`.
    """

    problem: str
    pipeline: str
    target: str
    stages: tuple[str, ...]
    tariff: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, text: str) -> Plan:
        value = json.loads(text)
        return cls(value["problem"], value["pipeline"], value["target"], tuple(value["stages"]), value.get("tariff"))


def conclude(run_dir: Path, plan: Plan, origin: Origin) -> None:
    """Writes the record of a run from those of its tasks.

    A task that began and didn't say how it ended was killed: its record says so from now on. A task whose result the
    backend reused has no record in this run: it gets that of the run which made the artefacts.
    """
    tasks = [_ended(task, run_dir) for task in read_tasks(run_dir) if task.name != _REPORT]
    tasks += _reused(run_dir, tasks)
    started = min((task.started for task in tasks), default=datetime.now(UTC).isoformat())
    ended = datetime.now(UTC)
    record = RunRecord(
        id=run_dir.name,
        problem=plan.problem,
        pipeline=plan.pipeline,
        verdict=verdict_of(tasks, plan.stages),
        started=started,
        ended=ended.isoformat(),
        wall_s=(ended - datetime.fromisoformat(started)).total_seconds(),
        source=str(_parameter(tasks, "ingest", "source")),
        source_fingerprint=str(_parameter(tasks, "ingest", "source_fingerprint")),
        bundle=_bundle(tasks),
        stages=plan.stages,
        environment={
            "target": plan.target,
            "uv.lock sha256": origin.lock or "unknown",
            "git commit": origin.commit or "unknown",
            **{f"{task.environment} image": task.code for task in tasks},
        },
        tariff=plan.tariff,
    )
    cost = run_cost(record, tasks)
    replace(record, cost=None if cost is None else asdict(cost)).write(run_dir)


def _ended(task: TaskRecord, run_dir: Path) -> TaskRecord:
    if task.status != "running":
        return task
    expected, remedy = "the task began and never said how it ended", "give the stage more memory, or ask for its logs"
    error = {
        "type": "PlatformError",
        "exit_code": 5,
        "where": task.name,
        "expected": expected,
        "got": "killed, for want of memory perhaps",
        "remedy": remedy,
        "message": f"{task.name}: {expected} (got killed, for want of memory perhaps)\n  → {remedy}",
    }
    told = replace(task, status="failed", exit_code=5, error=error)
    told.write(run_dir)
    return told


def _reused(run_dir: Path, tasks: Sequence[TaskRecord]) -> list[TaskRecord]:
    """Records the tasks that were not executed, found by what the others, and they themselves, were given."""
    own, found, waiting = {task.name for task in tasks}, [], list(tasks)
    while waiting:
        for artifact in waiting.pop().inputs.values():
            made = maker(run_dir.parent, artifact.uri)
            if made is None or made.name in own:
                continue
            reason = f"the backend reused the result of run {made.reused_from}"
            record = replace(made, status="cached", wall_s=0.0, cpu_s=0.0, import_s=0.0, cache_reason=reason)
            record.write(run_dir)
            own.add(record.name)
            found.append(record)
            waiting.append(record)
    return found


def _parameter(tasks: Sequence[TaskRecord], name: str, parameter: str) -> object:
    return next((task.parameters.get(parameter, "") for task in tasks if task.name == name), "")


def _bundle(tasks: Sequence[TaskRecord]) -> str:
    """Returns the digest of the whole problem, which is its archive's name."""
    found = (task.inputs.get("bundle") for task in tasks if task.name == "find-champion")
    return next((Path(bundle.uri).stem for bundle in found if bundle), "")
