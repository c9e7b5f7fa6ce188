"""How long reading a table into typed and divided examples takes, how it scales, and what bare reading of it costs.

Makes loan applications with the generator (22 columns as CSV), runs the stage on each size in a process of its own, and
prints one line per size::

    python tests/benchmarks/ingest.py --rows 300000 1500000

Run it in the tensorflow environment. Times are wall seconds with imports apart. The limit is pyarrow's reader, which
parses on all cores, holds the whole table in memory, and leaves out all that makes the stage a contract: types over
all rows, quarantine, labels, splits that keep a customer together, duplicates, and writing.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROBLEM = Path(__file__).parents[2] / "pipelines" / "problems" / "lending"


def make_table(path: Path, rows: int) -> None:
    """Writes ``rows`` loan applications without defects as CSV."""
    from tidemill.synthetic.lending import LendingConfig, write

    write(LendingConfig(rows=rows), path)


def measure_stage(table: Path) -> dict[str, float]:
    """Runs the stage on a made table, in this process."""
    started = time.perf_counter()
    from tidemill.ingest.run import run

    imported = time.perf_counter()
    from tidemill.bundle import pack
    from tidemill.ingest.fingerprint import fingerprint
    from tidemill.problem import load_problem

    bundle = pack(load_problem(PROBLEM), PROBLEM, table.parent / "bundles", "data")
    held = fingerprint(str(table))  # taken when a run is submitted, so not the stage's; that it is checked is
    begun, cpu = time.perf_counter(), time.process_time()
    run(bundle, str(table), held, table.parent / "examples")
    return {
        "import_s": imported - started,
        "work_s": time.perf_counter() - begun,
        "cpu_s": time.process_time() - cpu,
    }


def measure_limit(table: Path) -> dict[str, float]:
    """Reads the table with pyarrow and does nothing with it."""
    from pyarrow import csv

    started = time.perf_counter()
    read = csv.read_csv(table)
    return {"work_s": time.perf_counter() - started, "rows": read.num_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[300_000, 1_500_000])
    parser.add_argument("--measure", choices=["stage", "limit"], help="only this, on the table made at TABLE")
    parser.add_argument("--table", type=Path, help="where --measure finds it")
    arguments = parser.parse_args()
    if arguments.measure:
        measured = (measure_stage if arguments.measure == "stage" else measure_limit)(arguments.table)
        print(json.dumps({**measured, "peak_mb": _peak_mb()}))
        return
    print("| rows | import s | work s | CPU s | rows/s | peak MB | read_csv s | read_csv MB |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as directory:
            table = Path(directory) / "loans.csv"
            make_table(table, rows)
            stage, limit = (_in_own_process(what, table) for what in ("stage", "limit"))
        print(
            f"| {rows:,} | {stage['import_s']:.1f} | {stage['work_s']:.1f} | {stage['cpu_s']:.1f} "
            f"| {rows / stage['work_s']:,.0f} | {stage['peak_mb']:,.0f} | {limit['work_s']:.1f} "
            f"| {limit['peak_mb']:,.0f} |",
            flush=True,
        )


def _peak_mb() -> float:
    """Returns this process's own peak; ``ru_maxrss`` would begin with that of the process that started it."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not found:
        raise SystemExit("/proc/self/status has no VmHWM: run this on Linux")
    return int(found[1]) / 1024


def _in_own_process(what: str, table: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, "--table", str(table)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    main()
