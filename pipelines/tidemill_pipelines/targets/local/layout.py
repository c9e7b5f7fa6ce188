"""Where a local installation keeps things."""

from __future__ import annotations

from dataclasses import dataclass
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
        found = [RunRecord.read(path.parent) for path in self.runs.glob("*/run.json")]
        return sorted(found, key=lambda run: run.started, reverse=True)
