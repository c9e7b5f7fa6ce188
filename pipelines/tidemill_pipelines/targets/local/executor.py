"""Runs single tasks for the local target: reuse or execute, and record."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidemill.images import environment_of
from tidemill.runs import Artifact, TaskRecord, TaskStatus
from tidemill.stage import RECORD_VARIABLE, SCRATCH_VARIABLE
from tidemill_pipelines.targets.local.cache import Cache, Entry, code_digest, digest, explain_miss, key
from tidemill_pipelines.targets.local.ir import Call, Task
from tidemill_pipelines.targets.local.processes import Processes

AHEAD = 2
"""How many tasks ahead a process is started. Each holds its imports in memory (up to 0.6 GB) while it waits."""

_STATUSES: Mapping[int, TaskStatus] = {0: "succeeded", 130: "interrupted"}


class TaskExecutor:
    """Executes the tasks of one run, in the order of ``tasks``; those of a loop several at a time.

    Args:
        run_dir: where the records and logs go.
        scratch: where checkpoints go that outlive a killed task.
        earlier: returns the last record of a task among the problem's earlier runs, to explain what changed.
        observe: is told of every task when it starts and when it has ended.
    """

    def __init__(
        self,
        run_dir: Path,
        tasks: Sequence[Task],
        cache: Cache,
        processes: Processes,
        scratch: Path,
        earlier: Callable[[str], TaskRecord | None],
        observe: Callable[[TaskRecord], None],
    ) -> None:
        self._run_dir, self._tasks, self._cache, self._processes = run_dir, tuple(tasks), cache, processes
        self._scratch, self._earlier, self._observe = scratch, earlier, observe
        self._digests: dict[str, str] = {}
        self._telling = threading.Lock()

    def stop(self) -> None:
        """Makes the tasks that are being run end."""
        self._processes.stop()

    def __call__(self, call: Call) -> bool:
        """Runs or reuses one task, records it, and returns whether it succeeded."""
        started = time.monotonic()
        record = self._begin(call)
        with self._cache.alone(record.cache_key) if record.cache_key else contextlib.nullcontext():
            done = self._reuse_or_execute(call, record, started)
        done = replace(done, wall_s=time.monotonic() - started)
        self._tell(done)
        return done.exit_code == 0

    def _reuse_or_execute(self, call: Call, record: TaskRecord, started: float) -> TaskRecord:
        entry = self._cache.find(record.cache_key) if record.cache_key else None
        if entry:
            self._processes.drop(record.name)
            entry.restore(call.root)
            reason = f"code, parameters and the content of all inputs are the same as in run {entry.run}"
            done = replace(record, status="cached", exit_code=0, cache_reason=reason, reused_from=entry.run)
            return replace(done, outputs=self._outputs(call), summary=entry.summary)
        self._warm(call)
        return self._execute(call, record, started)

    def _begin(self, call: Call) -> TaskRecord:
        code = code_digest(call.task.image, call.task.command)
        inputs = {name: Artifact(uri, self._digest(uri)) for name, uri in call.inputs.items()}
        record = TaskRecord(
            name=call.name,
            iteration_of=call.task.name if call.task.looped else None,
            environment=environment_of(call.task.image),
            status="running",
            started=datetime.now(UTC).isoformat(),
            code=code,
            cache_key=key(code, call.parameters, inputs) if call.task.cached else None,
            parameters=call.parameters,
            inputs=inputs,
        )
        reason = explain_miss(record, self._earlier(record.name)) if call.task.cached else "this task is never reused"
        record = replace(record, cache_reason=reason)
        self._tell(record)
        return record

    def _tell(self, record: TaskRecord) -> None:
        record.write(self._run_dir)
        with self._telling:
            self._observe(record)

    def _warm(self, call: Call) -> None:
        self._processes.warm(call.name, call.task.image, call.task.command)
        position = self._tasks.index(call.task)
        for ahead in self._tasks[position + 1 : position + 1 + AHEAD]:
            if not ahead.looped:  # how many there will be isn't known yet
                self._processes.warm(ahead.name, ahead.image, ahead.command)

    def _execute(self, call: Call, record: TaskRecord, started: float) -> TaskRecord:
        left = self._run_dir / "tasks" / f".{record.name}.stage"
        left.unlink(missing_ok=True)
        environment = {RECORD_VARIABLE: str(left)}
        scratch = self._scratch / record.cache_key if record.cache_key else None
        if scratch:
            environment[SCRATCH_VARIABLE] = str(scratch)
        try:
            ended = self._processes.run(record.name, call.task.image, call.command, environment)
        except KeyboardInterrupt:
            replace(record, status="interrupted", exit_code=130, wall_s=time.monotonic() - started).write(self._run_dir)
            raise
        stage = json.loads(left.read_text()) if left.is_file() else {}
        left.unlink(missing_ok=True)
        done = replace(
            record,
            status=_STATUSES.get(ended.exit_code, "failed"),
            exit_code=ended.exit_code,
            cpu_s=ended.cpu_s,
            peak_rss_mb=stage.get("peak_rss_mb", ended.peak_rss_mb),
            import_s=stage.get("import_s", 0.0),
            summary=stage.get("summary", {}),
            error=_error(record.name, ended.exit_code, stage),
            outputs=self._outputs(call),
        )
        if ended.exit_code == 0 and record.cache_key:
            run = self._run_dir.name
            self._cache.put(record.cache_key, Entry(run, call.root, done.outputs, done.summary))
            # What the checkpoints were for is done; without reuse, the next run must not go on from them.
            shutil.rmtree(self._scratch / record.cache_key, ignore_errors=True)
        return done

    def _outputs(self, call: Call) -> dict[str, Artifact]:
        for uri in call.outputs.values():
            self._digests[uri] = digest(uri)
        return {name: Artifact(uri, self._digests[uri]) for name, uri in call.outputs.items()}

    def _digest(self, uri: str) -> str:
        if uri not in self._digests:
            self._digests[uri] = digest(uri)
        return self._digests[uri]


def _error(task: str, exit_code: int, stage: dict[str, Any]) -> dict[str, Any] | None:
    if exit_code == 0 or stage.get("error"):
        return stage.get("error")
    got = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    remedy = f"see logs/{task}.log in the run's directory"
    if exit_code == -signal.SIGKILL:
        remedy = "the system kills what takes too much memory: give it more, then go on with --resume"
    return {
        "type": "TidemillError",
        "exit_code": exit_code,
        "where": task,
        "expected": "the task ended without saying why",
        "got": got,
        "remedy": remedy,
        "message": f"{task}: the task ended without saying why (got {got})\n  → {remedy}",
    }
