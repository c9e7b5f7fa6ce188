"""How long analysing and transforming takes, how it scales, and what the same costs by hand in numpy and pyarrow.

Makes its own examples (19 features of all kinds out of 16 columns), runs the stage on each size in a process of its
own, and prints one line per size::

    python tests/benchmarks/transform.py --rows 300000 1500000

Run it in the tensorflow environment. Times are wall seconds with imports apart. The limit holds a whole split in
memory, and does what the graph does: reads, scales, cuts, looks up, hashes and writes.
"""

from __future__ import annotations

import argparse
import json
import resource
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
from tidemill.bundle import pack
from tidemill.problem import parse_problem

PROBLEM = """
name: benchmark
task: binary_classification
label: {column: y, positive: "1"}
features:
  n0: numeric
  n1: {kind: numeric, scale: min_max}
  n2: {kind: numeric, scale: log_z_score}
  n3: {kind: numeric, scale: none}
  n4: numeric
  n5: numeric
  b0: bucketized
  b1: bucketized
  b2: {kind: bucketized, column: n0, buckets: 100}
  c0: categorical
  c1: categorical
  c2: categorical
  c3: {kind: categorical, max_vocabulary: 10000}
  i0: categorical
  t0: {kind: text, max_words: 8}
  d0: date
  d1: {kind: date, format: iso8601}
  x0: {kind: crossed, of: [c0, i0]}
  x1: {kind: crossed, of: [c1, b0]}
"""
SPLITS = {"train": 0.8, "eval": 0.1, "test": 0.1}
_CHUNK = 65_536


def make_examples(directory: Path, rows: int) -> None:
    """Writes ``rows`` rows as `ingest` would, a twentieth of most values missing."""
    generator = np.random.default_rng(0)
    counts = {split: round(rows * share) for split, share in SPLITS.items()}
    for split, count in counts.items():
        (directory / split).mkdir(parents=True)
        sizes = [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]
        with pq.ParquetWriter(directory / split / "part-00000.parquet", _table(generator, 1).schema) as writer:
            for size in sizes:
                writer.write_table(_table(generator, size))
    types = {"double": "float64", "int64": "int64", "string": "string"}
    columns = {field.name: types[str(field.type)] for field in _table(generator, 1).schema}
    ExamplesManifest(counts, columns, ("0", "1"), {}).write(directory)


def _table(generator: np.random.Generator, rows: int) -> pa.Table:
    def some(values: Any) -> pa.Array:
        return pa.array(values, mask=generator.random(rows) < 0.05)

    words = np.array([f"word{i}" for i in range(2000)])
    seconds = generator.integers(0, 2**31, rows)
    columns = {f"n{i}": some(generator.lognormal(size=rows)) for i in range(6)}
    columns |= {f"b{i}": some(generator.integers(0, 1000, rows)) for i in range(2)}
    columns |= {
        f"c{i}": some(np.array([f"value {v}" for v in generator.integers(0, 10 ** (i + 1), rows)])) for i in range(4)
    }
    columns |= {
        "i0": some(generator.integers(0, 50, rows)),
        "t0": pa.array([" ".join(row) for row in words[generator.integers(0, len(words), (rows, 6))]]),
        "d0": some(seconds),
        "d1": pa.array(seconds.astype("datetime64[s]").astype(str)),
        "y": pa.array(generator.integers(0, 2, rows)),
    }
    return pa.table(columns)


def measure_stage(directory: Path) -> dict[str, float]:
    """Runs the stage on made examples, in this process."""
    started = time.perf_counter()
    from tidemill.transform.run import run

    imported, cpu = time.perf_counter(), time.process_time()
    problem = pack(parse_problem(PROBLEM, "problem.yaml"), directory, directory / "bundles")
    report = run(problem, directory / "examples", directory / "none", directory / "graph", directory / "transformed")
    return {
        "import_s": imported - started,
        "analyse_s": report.analyse_s,
        "apply_s": report.apply_s,
        "work_s": time.perf_counter() - imported,
        "cpu_s": time.process_time() - cpu,
    }


def measure_limit(directory: Path) -> dict[str, float]:
    """Does by hand what the stage does, with all that makes it a contract left out."""
    started = time.perf_counter()
    found: dict[str, Any] = {}
    for split in SPLITS:
        table = pq.read_table(parts(directory / "examples", split)[0])
        output = {}
        for name in table.column_names:
            column = table[name].combine_chunks()
            if name == "d1":
                column = pc.strptime(column, "%Y-%m-%dT%H:%M:%S", "s").cast(pa.int64())
            if name[0] == "n":
                values = pc.fill_null(column, float("nan")).to_numpy()
                mean, deviation = found.setdefault(name, (np.nanmean(values), np.nanstd(values)))
                output[name] = np.nan_to_num((values - mean) / deviation).astype(np.float32)
            elif name[0] == "b":
                values = pc.fill_null(column, -1).to_numpy()
                cuts = found.setdefault(name, np.quantile(values, np.linspace(0.1, 0.9, 9)))
                output[name] = np.searchsorted(cuts, values)
            elif name[0] in "ci":
                output[name] = pc.index_in(column, value_set=found.setdefault(name, _frequent(column)))
            elif name == "t0":
                words = pc.list_flatten(pc.ascii_split_whitespace(pc.utf8_lower(column)))
                output[name] = pa.FixedSizeListArray.from_arrays(
                    pc.index_in(words, value_set=found.setdefault(name, _frequent(words))), 6
                )
            elif name[0] == "d":
                angle = 2 * np.pi * (pc.fill_null(column, 0).to_numpy() % 86_400) / 86_400
                output |= {f"{name}_sin": np.sin(angle), f"{name}_cos": np.cos(angle)}
        crossed = pc.binary_join_element_wise(
            pc.cast(table["c0"], pa.string()), pc.cast(table["i0"], pa.string()), "-"
        ).combine_chunks()
        encoded = crossed.dictionary_encode()
        output["x0"] = np.array([hash(value) % 1000 for value in encoded.dictionary.to_pylist()])[
            pc.fill_null(encoded.indices, 0).to_numpy()
        ]
        pq.write_table(pa.table(output), directory / f"limit-{split}.parquet", compression="zstd")
    return {"work_s": time.perf_counter() - started}


def _frequent(column: pa.Array) -> pa.Array:
    counts = column.value_counts()
    order = pc.sort_indices(counts.field("counts"), sort_keys=[("", "descending")])
    return counts.field("values").take(order[:1000])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[300_000, 1_500_000])
    parser.add_argument("--measure", choices=["stage", "limit"], help="only this, on examples made in DIRECTORY")
    parser.add_argument("--directory", type=Path, help="where --measure finds them")
    arguments = parser.parse_args()
    if arguments.measure:
        measured = (measure_stage if arguments.measure == "stage" else measure_limit)(arguments.directory)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**measured, "peak_mb": peak}))
        return
    print("| rows | import s | analyse s | apply s | CPU s | rows/s | peak MB | limit s | limit MB |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as directory:
            make_examples(Path(directory) / "examples", rows)
            stage, limit = (_in_own_process(what, directory) for what in ("stage", "limit"))
        print(
            f"| {rows:,} | {stage['import_s']:.1f} | {stage['analyse_s']:.1f} | {stage['apply_s']:.1f} "
            f"| {stage['cpu_s']:.1f} | {rows / stage['work_s']:,.0f} | {stage['peak_mb']:,.0f} | {limit['work_s']:.1f} "
            f"| {limit['peak_mb']:,.0f} |",
            flush=True,
        )


def _in_own_process(what: str, directory: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, "--directory", directory]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    main()
