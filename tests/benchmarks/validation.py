"""How long the statistics of a table take, and how much memory: by TFDV as `validate` runs it, and by bare numpy.

Makes its own Parquet (22 columns; a gap in some, five strings of 2 to 5,000 values, an identifier, two sensitive
columns) and describes all three splits of it, each measurement in a process of its own::

    .venvs/validation/bin/python tests/benchmarks/validation.py --rows 300000 1500000

``seconds`` leave the import out, which is beside them; ``CPU s`` are those of all processes, which tell more when
the machine has other work. ``peak MB`` is the proportional set size of all processes
together, import included. The sensitive slices are sex, race and both: 17 of them in each split. The bare limit reads
the same files and takes count, mean, deviation, extremes, quantiles and histogram of every number and the counts of
every string's values: what one would write by hand for this table, without slices.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidemill.artifacts import ExamplesManifest, parts

SHARES = {"train": 0.8, "eval": 0.1, "test": 0.1}
SENSITIVE = (("sex",), ("race",), ("sex", "race"))
WAYS = ("TFDV", "TFDV with slices", "numpy and pyarrow")
_PART_ROWS = 250_000
_SAMPLE_S = 0.1  # reading a process's memory map stops it for a moment


def make_examples(directory: Path, rows: int) -> None:
    """Writes the examples artefact of a table with ``rows`` rows."""
    rng = np.random.default_rng(0)
    counts = {split: round(rows * share) for split, share in SHARES.items()}
    for split, count in counts.items():
        (directory / split).mkdir(parents=True)
        for i, start in enumerate(range(0, count, _PART_ROWS)):
            table = _table(rng, min(_PART_ROWS, count - start))
            pq.write_table(table, directory / split / f"part-{i:05d}.parquet", compression="zstd")
    names = {pa.int64(): "int64", pa.float64(): "float64", pa.string(): "string"}
    columns = {field.name: names[field.type] for field in table.schema}
    ExamplesManifest(counts, columns, ("no", "yes"), {}).write(directory)


def _table(rng: np.random.Generator, rows: int) -> pa.Table:
    columns: dict[str, Any] = {}
    for i in range(7):
        columns[f"number{i}"] = pa.array(rng.lognormal(i, 1, rows), mask=rng.random(rows) < 0.05 * i)
    for i in range(5):
        columns[f"whole{i}"] = pa.array(rng.integers(0, 10 ** (i + 1), rows), mask=rng.random(rows) < 0.02 * i)
    for i, values in enumerate((2, 5, 20, 200, 5000)):
        columns[f"word{i}"] = _words(rng, rows, [f"word{i}-{j}" for j in range(values)], 1 / np.arange(1, values + 1))
    columns["identifier"] = pa.array([f"id{j}" for j in rng.integers(0, 10**9, rows)])
    columns["text"] = _words(rng, rows, ["the quick brown", "fox jumps over", "a lazy dog again"], np.ones(3))
    columns["sex"] = _words(rng, rows, ["Female", "Male"], np.ones(2))
    columns["race"] = _words(rng, rows, list("abcde"), np.array([60, 20, 10, 8, 2]))
    columns["label"] = _words(rng, rows, ["no", "yes"], np.array([3, 1]))
    return pa.table(columns)


def _words(rng: np.random.Generator, rows: int, words: list[str], weights: np.ndarray) -> pa.Array:
    return pa.array(words).take(pa.array(rng.choice(len(words), rows, p=weights / weights.sum())))


def measure(way: str, examples: Path) -> dict[str, float]:
    """Describes the examples in this process; returns seconds of import, of work, and of processors at work."""
    started = time.perf_counter()
    if way == WAYS[2]:
        begun, used = time.perf_counter(), _cpu_s()
        _describe_by_hand(examples)
    else:
        from tidemill.validate.statistics import describe

        manifest = ExamplesManifest.read(examples)
        begun, used = time.perf_counter(), _cpu_s()
        describe(examples, manifest.rows, manifest.columns, SENSITIVE if way == WAYS[1] else ())
    return {"import_s": begun - started, "work_s": time.perf_counter() - begun, "cpu_s": _cpu_s() - used}


def _cpu_s() -> float:
    """Returns the processor time of this process and of its children that ended, in seconds."""
    return sum(os.times()[:4])


def _describe_by_hand(examples: Path) -> None:
    for split in SHARES:
        names = pq.ParquetFile(parts(examples, split)[0]).schema_arrow.names
        for name in names:
            tables = [pq.read_table(path, columns=[name], partitioning=None) for path in parts(examples, split)]
            column = pa.concat_tables(tables).column(0)
            if pa.types.is_string(column.type):
                pc.value_counts(column)
                continue
            values = column.drop_null().to_numpy()
            _ = (len(values), values.mean(), values.std(), (values == 0).sum())
            np.histogram(values, 20)
            np.percentile(values, np.arange(0, 101, 5))


def _peak_mb(process: subprocess.Popen[str]) -> float:
    """Watches a process and its children until it ends; returns their largest common memory."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(_pss(pid) for pid in _family(process.pid)))
        time.sleep(_SAMPLE_S)
    return peak / 1024


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(member for child in children for member in _family(int(child)))]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it ended in between
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    """Prints one line for each size and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[300_000, 1_500_000], help="sizes to measure")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "EXAMPLES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], Path(arguments.measure[1]))))
        return
    print(f"{'statistics by':<20}{'rows':>12}{'seconds':>10}{'CPU s':>8}{'rows/s':>12}{'peak MB':>10}{'import s':>10}")
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as directory:
            examples = Path(directory) / "examples"
            make_examples(examples, rows)
            for way in WAYS:
                command = [sys.executable, __file__, "--measure", way, str(examples)]
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                peak = _peak_mb(process)
                assert process.stdout is not None
                took = json.loads(process.stdout.read())
                per_second = rows / took["work_s"]
                print(
                    f"{way:<20}{rows:>12,}{took['work_s']:>10.2f}{took['cpu_s']:>8.1f}{per_second:>12,.0f}{peak:>10,.0f}"
                    f"{took['import_s']:>10.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
