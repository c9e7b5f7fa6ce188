"""What every component does around its work: time it, record it, and turn errors into exit codes."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from tidemill.errors import PlatformError, TidemillError, classify
from tidemill.execution import RUN_VARIABLE, RUNS_VARIABLE, Execution, begun
from tidemill.files import write_json

RECORD_VARIABLE = "TIDEMILL_TASK_RECORD"
SCRATCH_VARIABLE = "TIDEMILL_SCRATCH"
PRELOAD_VARIABLE = "TIDEMILL_PRELOAD_S"
LOCK_VARIABLE = "TIDEMILL_LOCK_SHA256"
COMMIT_VARIABLE = "TIDEMILL_GIT_COMMIT"


@dataclasses.dataclass(frozen=True)
class Origin:
    """What the code of a task was made from; None where nobody said so.

    Attributes:
        lock: hex sha256 of the uv.lock that the environments were installed from.
        commit: git commit of the source.
    """

    lock: str | None = None
    commit: str | None = None


class Stage:
    """The frame of one component's execution.

    A target that wants to know more than the exit code sets ``TIDEMILL_TASK_RECORD`` to a file, where the stage
    leaves its times, its summary and, if it failed, its error. ``TIDEMILL_SCRATCH`` names a directory that
    outlives a killed task and is given again to its successor. ``TIDEMILL_PRELOAD_S`` says how many seconds the
    process had already spent on imports. ``TIDEMILL_LOCK_SHA256`` and ``TIDEMILL_GIT_COMMIT`` say what the code was
    made from, which an installed package can't know: a target sets them, or an image carries them.
    ``TIDEMILL_RUNS`` is the directory of all runs' records. A target that sets it and wants no task record for
    itself gets the whole record there; see `tidemill.execution`.

    Args:
        name: of the stage.
        record: instead of ``TIDEMILL_TASK_RECORD``, for a process that works for a task.

    Attributes:
        origin: what the code was made from.
    """

    def __init__(self, name: str, record: Path | None = None) -> None:
        self.name = name
        self._record = record or os.environ.get(RECORD_VARIABLE)
        self._scratch = os.environ.get(SCRATCH_VARIABLE)
        self.origin = Origin(os.environ.get(LOCK_VARIABLE), os.environ.get(COMMIT_VARIABLE))
        self._started = self._begun = time.monotonic()
        self._preload_s = float(os.environ.get(PRELOAD_VARIABLE, "0"))
        self._summary: dict[str, Any] = {}
        self._runs, self._run = os.environ.get(RUNS_VARIABLE), os.environ.get(RUN_VARIABLE)
        self._execution: Execution | None = None
        if not self._record:
            try:
                self._execution = begun(sys.argv, os.environ)
            except TidemillError as failure:
                self._end(failure)

    @property
    def run_dir(self) -> Path:
        """The directory of this run's records; its name is the run's id.

        Raises:
            PlatformError: if the target has none.
        """
        if self._execution:
            return self._execution.run_dir
        if not self._runs or not self._run:
            raise PlatformError(self.name, f"needs {RUNS_VARIABLE} and {RUN_VARIABLE} in its environment")
        return Path(self._runs) / self._run

    def __enter__(self) -> Stage:
        return self

    def begin(self) -> None:
        """Marks the end of the imports and the beginning of the work."""
        self._begun = time.monotonic()

    def scratch(self, fallback: str | Path) -> Path:
        """Returns the directory for checkpoints: the target's, or one beside the artefact ``fallback``."""
        own = self._execution.scratch if self._execution else Path(f"{fallback}.scratch")
        path = Path(self._scratch) if self._scratch else own
        path.mkdir(parents=True, exist_ok=True)
        return path

    def report(self, report: Any) -> None:
        """Records the report that the stage's ``run`` returned: a dataclass, or the JSON of one made elsewhere."""
        told = report if isinstance(report, dict) else dataclasses.asdict(report)
        self._summary = json.loads(json.dumps(told, default=str))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._write(None)
            return
        failure = classify(self.name, error)
        if failure.exit_code == 1:
            traceback.print_exception(kind, error, trace)
        self._end(failure)

    def _end(self, failure: TidemillError) -> NoReturn:
        print(f"{type(failure).__name__}: {failure}", file=sys.stderr)
        self._write(failure)
        sys.stdout.flush()
        sys.stderr.flush()
        # KFP's executor would turn any exception into exit code 1 and a trace; the code is the contract here.
        os._exit(failure.exit_code)

    def _write(self, failure: TidemillError | None) -> None:
        if not self._record and not self._execution:
            return
        record = {
            "stage": self.name,
            "import_s": self._preload_s + self._begun - self._started,
            "peak_rss_mb": _peak_rss_mb(),
            "summary": self._summary,
            "error": _error_json(failure) if failure else None,
        }
        try:
            if self._record:
                write_json(Path(self._record), record)
            elif self._execution:
                self._execution.end(record, failure.exit_code if failure else 0)
        except OSError as error:  # a full disk must not hide the error that is being reported
            print(f"could not write the record of {self.name}: {error}", file=sys.stderr)


def _peak_rss_mb() -> float:
    """Returns the peak of this process alone; ``ru_maxrss`` would count what its parent held when it forked."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _error_json(failure: TidemillError) -> dict[str, Any]:
    return {
        "type": type(failure).__name__,
        "exit_code": failure.exit_code,
        "where": failure.where,
        "expected": failure.expected,
        "got": failure.got,
        "remedy": failure.remedy,
        "message": str(failure),
    }
