"""Where a local installation keeps things."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tidemill.errors import UsageError
from tidemill.runs import RunRecord


@dataclass(frozen=True)
class Layout:
    """Where a local installation keeps things, all below ``root``."""

    root: Path

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    @property
    def endpoints(self) -> Path:
        return self.root / "endpoints"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    def run_dir(self, run_id: str) -> Path:
        """Returns the directory of a run.

        Raises:
            UsageError: if there is no such run.
        """
        directory = self.runs / run_id
        if not run_id or not (directory / "run.json").is_file():
            remedy = f"`tidemill runs list --runs-dir {self.root}` shows them"
            raise UsageError(f"run {run_id}", f"no such run below {self.runs}", remedy=remedy)
        return directory

    def records(self) -> list[RunRecord]:
        """Returns all runs, the newest first."""
        found = []
        for path in self.runs.glob("*/run.json"):
            with contextlib.suppress(FileNotFoundError):  # somebody is deleting the run
                found.append(_read(path.parent))
        return sorted(found, key=lambda run: run.started, reverse=True)

    def find(self, run: str) -> RunRecord:
        """Returns a run by its id, or the newest for ``latest``.

        Raises:
            UsageError: if there is no such run.
        """
        if run != "latest":
            return _read(self.run_dir(run))
        if not (runs := self.records()):
            raise UsageError("latest", f"there is no run below {self.runs}", remedy="`tidemill run` makes one")
        return runs[0]


_LOCK = ".lock"
_PATIENCE_S = 1.0  # whoever lists runs holds each lock for a moment


@contextlib.contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Keeps a run to this process; the lock goes with the process, however that ends.

    Raises:
        UsageError: if another process is at work on the run.
    """
    with (run_dir / _LOCK).open("a") as lock:
        deadline = time.monotonic() + _PATIENCE_S
        while not _acquired(lock.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                remedy = "wait for it to end, or end it"
                raise UsageError(f"run {run_dir.name}", "is being run by another process", remedy=remedy)
            time.sleep(0.05)
        yield


def _read(run_dir: Path) -> RunRecord:
    """Reads a run's record; one that nobody is at work on any more was interrupted, whatever it says."""
    record = RunRecord.read(run_dir)
    if record.verdict == "running" and not _is_held(run_dir):
        record = RunRecord.read(run_dir)  # it may have ended between the first look and the lock
        return replace(record, verdict="interrupted") if record.verdict == "running" else record
    return record


def _is_held(run_dir: Path) -> bool:
    if not (run_dir / _LOCK).is_file():
        return False
    with (run_dir / _LOCK).open() as lock:
        return not _acquired(lock.fileno(), fcntl.LOCK_SH)


def _acquired(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
