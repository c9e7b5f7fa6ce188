"""One execution of a component on a remote target, as the backend describes it to the process, and its record.

Locally the runner knows what ran, from what and for how long. A remote backend tells only a part of that, and only
to those who may ask it, so each task writes its own record into the directory of runs that the target mounts.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tidemill.errors import PlatformError
from tidemill.files import digest_tree, replaced_directory, write_json
from tidemill.images import environment_of
from tidemill.runs import Artifact, TaskRecord

RUNS_VARIABLE: Final = "TIDEMILL_RUNS"
RUN_VARIABLE: Final = "TIDEMILL_RUN_ID"
TASK_VARIABLE: Final = "TIDEMILL_TASK"
LOOPED_VARIABLE: Final = "TIDEMILL_LOOPED"
IMAGE_VARIABLE: Final = "TIDEMILL_IMAGE"
_MOUNTS: Final = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/"}
"""Where KFP's runtime lays artefacts, by the scheme of their address."""
_KEPT_BYTES: Final = 16 << 20


@dataclass(frozen=True)
class Execution:
    """What a task was given.

    Attributes:
        run_dir: directory of the run's records.
        task: the task's name in the pipeline.
        image: the container image it runs in, digest included.
        inputs: uri by name of input artefact.
        outputs: uri by name of output artefact.
        started: aware.
        iteration_of: the task of the pipeline, where ``task`` is one of several runs of it.
    """

    run_dir: Path
    task: str
    image: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    iteration_of: str | None = None

    def begin(self) -> None:
        """Records that the task began: a process that is killed can't say so later."""
        self._record().write(self.run_dir)

    def end(self, stage: Mapping[str, Any], exit_code: int) -> None:
        """Records how the task ended, and keeps what explains it.

        Args:
            stage: import_s, peak_rss_mb, summary and error, as ``tidemill.stage`` has them.
            exit_code: of the process.
        """
        uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        record = replace(
            self._record(),
            status="succeeded" if exit_code == 0 else "failed",
            exit_code=exit_code,
            wall_s=(datetime.now(UTC) - self.started).total_seconds(),
            cpu_s=sum(use.ru_utime + use.ru_stime for use in uses),
            import_s=stage["import_s"],
            peak_rss_mb=stage["peak_rss_mb"],
            summary=stage["summary"],
            error=stage["error"],
        )
        record.write(self.run_dir)  # before the copies: should they fail, the task has ended all the same
        if exit_code == 0:
            replace(record, outputs=self._keep()).write(self.run_dir)
            for uri in self.outputs.values():
                write_json(_made(self.run_dir.parent, uri), {"run": self.run_dir.name, "task": self.task})
            shutil.rmtree(self.scratch, ignore_errors=True)  # what the checkpoints were for is done

    @property
    def scratch(self) -> Path:
        """The directory for checkpoints: it outlives a try of the task, not its success."""
        return self.run_dir / "scratch" / self.task

    def _record(self) -> TaskRecord:
        return TaskRecord(
            name=self.task,
            iteration_of=self.iteration_of,
            environment=environment_of(self.image),
            status="running",
            started=self.started.isoformat(),
            code=self.image,
            cache_reason="executed by the backend",
            parameters=self.parameters,
            inputs={name: Artifact(uri, "") for name, uri in self.inputs.items()},
        )

    def _keep(self) -> dict[str, Artifact]:
        """Copies the small files of every output beside the record; tables and large files stay where they are.

        The digest is that of the copies: what is left out has its digest in a manifest that is not.
        """
        kept = {}
        for name, uri in self.outputs.items():
            source = local_path(uri)
            if not source.exists():
                continue
            target = self.run_dir / "artifacts" / self.task / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            else:
                with replaced_directory(target) as directory:
                    shutil.copytree(source, directory, ignore=_large, copy_function=shutil.copyfile, dirs_exist_ok=True)
            kept[name] = Artifact(str(target), digest_tree(target))
        return kept


def this_execution(arguments: Sequence[str], environment: Mapping[str, str]) -> Execution | None:
    """Returns what this process was given, or None where no target wants a record of it.

    The run's id is what the target's environment says, or else what the place of the outputs says: Vertex AI lays
    them below ``<root>/<project number>/<run>/<task>_<number>/``.

    Raises:
        PlatformError: if the target says which run this is, and says nothing.
    """
    if RUNS_VARIABLE not in environment or "--executor_input" not in arguments:
        return None
    given = json.loads(arguments[list(arguments).index("--executor_input") + 1])
    run = environment.get(RUN_VARIABLE, Path(given["outputs"]["outputFile"]).parent.parent.name)
    if not run:
        raise PlatformError(environment[TASK_VARIABLE], f"needs the run's id in {RUN_VARIABLE}", "an empty one")
    inputs = given.get("inputs", {})
    task, parameters = environment[TASK_VARIABLE], inputs.get("parameterValues", {})
    looped = LOOPED_VARIABLE in environment
    return Execution(
        run_dir=Path(environment[RUNS_VARIABLE]) / run,
        task=iteration(task, parameters) if looped else task,
        iteration_of=task if looped else None,
        image=environment[IMAGE_VARIABLE],
        parameters=parameters,
        inputs=_uris(inputs.get("artifacts", {})),
        outputs=_uris(given["outputs"].get("artifacts", {})),
    )


def begun(arguments: Sequence[str], environment: Mapping[str, str]) -> Execution | None:
    """Returns this execution, recorded as running; None where no target wants a record of it.

    Raises:
        PlatformError: if the directory of runs can't be written to.
    """
    execution = this_execution(arguments, environment)
    if execution is not None:
        try:
            execution.begin()
        except OSError as error:
            remedy = f"the store must be writable for uid {os.getuid()}"
            raise PlatformError(str(execution.run_dir), "can't be written to", str(error), remedy) from error
    return execution


def iteration(task: str, parameters: Mapping[str, Any]) -> str:
    """Returns the name of one execution of a task that is run once for each item of a list.

    What such a task takes from the list is its parameter ``item``: JSON with a ``key`` that no other item has.
    """
    return f"{task}-{json.loads(parameters['item'])['key']}"


def maker(runs: Path, uri: str) -> TaskRecord | None:
    """Returns the record of the task that put out the artefact at ``uri``, in whichever run; None if none did."""
    made = _made(runs, uri)
    if not made.is_file():
        return None
    value = json.loads(made.read_text())
    path = runs / value["run"] / "tasks" / f"{value['task']}.json"
    return replace(TaskRecord.read(path), reused_from=value["run"]) if path.is_file() else None


def local_path(uri: str) -> Path:
    """Returns where KFP's runtime has the artefact of an address."""
    scheme = next((scheme for scheme in _MOUNTS if uri.startswith(scheme)), None)
    return Path(_MOUNTS[scheme] + uri.removeprefix(scheme)) if scheme else Path(uri)


def _made(runs: Path, uri: str) -> Path:
    return runs / ".made" / f"{hashlib.sha256(uri.encode()).hexdigest()}.json"


def _uris(artifacts: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{name}.{i}" if i else name: artifact["uri"]
        for name, given in artifacts.items()
        for i, artifact in enumerate(given.get("artifacts", ()))
    }


def _large(directory: str, names: list[str]) -> set[str]:
    files = [Path(directory) / name for name in names]
    return {f.name for f in files if f.is_file() and (f.suffix == ".parquet" or f.stat().st_size > _KEPT_BYTES)}
