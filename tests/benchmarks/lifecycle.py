"""The whole life of the taxi model, stage by stage: ``.venv/bin/python tests/benchmarks/lifecycle.py``.

1,000 steps of batch 40, as in TFX's taxi example, on a fresh runs directory. For comparison: TFX 1.16 with its
LocalDagRunner needed 164 s of wall time, 203 s of CPU and 1.17 GB from ingest to push, on 2 cores. It neither
rehearses, nor registers, nor measures fairness with intervals, nor writes a report.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TFX_WALL_S = 164.0
ROOT = Path(__file__).parents[2]
SETTINGS = {
    "training.batch_size": "40",
    "training.max_steps": "1000",
    "training.max_epochs": "1000",
    "training.early_stopping_patience": "null",
    "gates": "{data: {max_quarantined: 0.01}, serving: {p99_ms: 5000}}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=ROOT.parent / "shared" / "data" / "taxi" / "trips.csv")
    parser.add_argument("--problem", type=Path, default=ROOT / "pipelines" / "problems" / "taxi")
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    if not arguments.source.is_file():
        parser.error(f"--source {arguments.source}: no such file; any taxi trips in TFX's columns will do")
    for _ in range(arguments.repeat):
        with tempfile.TemporaryDirectory() as directory:
            wall, tasks = measure(arguments.problem, arguments.source, Path(directory))
        print(table(wall, tasks), flush=True)


def measure(problem: Path, source: Path, runs_dir: Path) -> tuple[float, list[dict[str, Any]]]:
    """Runs the pipeline once; returns the seconds of the whole command and the records of its tasks."""
    command = [sys.executable, "-m", "tidemill_pipelines"]
    place = ["--runs-dir", str(runs_dir), "--json"]
    overrides = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    started = time.monotonic()
    run = subprocess.run(
        [*command, "run", str(problem), "--source", str(source), *overrides, *place], capture_output=True, text=True
    )
    wall = time.monotonic() - started
    try:
        if run.returncode != 0:
            sys.exit(f"the run ended with exit code {run.returncode}\n{run.stdout}{run.stderr}")
        shown = subprocess.run([*command, "runs", "show", "latest", *place], capture_output=True, text=True, check=True)
    finally:
        subprocess.run([*command, "endpoint", "down", json.loads(run.stdout)["run"].rsplit("-", 3)[0], *place[:2]])
    return wall, json.loads(shown.stdout)["tasks"]


def table(wall: float, tasks: list[dict[str, Any]]) -> str:
    """Returns the measurements as a Markdown table."""
    rows = ["| stage | wall s | share | import s | CPU s | peak MB |", "|---|---:|---:|---:|---:|---:|"]
    for task in tasks:
        share = task["wall_s"] / wall
        costs = f"{task['import_s']:.1f} | {task['cpu_s']:.1f} | {task['peak_rss_mb']:.0f}"
        rows.append(f"| {task['name']} | {task['wall_s']:.1f} | {share:.0%} | {costs} |")
    between = wall - sum(task["wall_s"] for task in tasks)
    rows.append(f"| starting, compiling, between tasks | {between:.1f} | {between / wall:.0%} | | | |")
    cpu, peak = sum(task["cpu_s"] for task in tasks), max(task["peak_rss_mb"] for task in tasks)
    imports = sum(task["import_s"] for task in tasks)
    rows.append(f"| **all** | **{wall:.1f}** | 100% | {imports:.1f} | **{cpu:.1f}** | **{peak:.0f}** |")
    rows.append(f"\n{wall / TFX_WALL_S:.0%} of TFX's wall time of {TFX_WALL_S:.0f} s. Imports overlap earlier tasks.")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
