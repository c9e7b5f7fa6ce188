"""The ``tidemill`` command as a user starts it, on the problem that the repository ships."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LENDING = ROOT / "pipelines" / "problems" / "lending"
# Small and quick; what the gates decide is tested with limits of the tests' own.
QUICK = ("--set", "gates={data: {min_rows: 500}, serving: {rows: 32, p99_ms: 5000}}", "--set", "training.max_epochs=2")


@dataclass(frozen=True)
class Command:
    """The ``tidemill`` command with a runs directory of its own."""

    runs_dir: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tidemill_pipelines", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "TIDEMILL_RUNS_DIR": str(self.runs_dir), "COLUMNS": "200"},
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=280)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def run(self, source: Path, *arguments: str, problem: Path = LENDING) -> Any:
        return self.json("run", str(problem), "--source", str(source), *QUICK, *arguments)
