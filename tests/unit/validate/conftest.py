"""Small loan tables as `ingest` leaves them, and the paths that the component gives to ``run``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tidemill.artifacts import ExamplesManifest
from tidemill.bundle import pack
from tidemill.problem import Problem, load_problem

with warnings.catch_warnings():
    # google.api_core tells on import which Python it will stop supporting in 2027; Beam and TFDV use old APIs.
    warnings.simplefilter("ignore")
    pytest.importorskip("tensorflow_data_validation", reason="needs the validation environment")

from tidemill.validate.run import ValidationReport, run

PROBLEM: Mapping[str, Any] = {
    "name": "loans",
    "task": "binary_classification",
    "label": {"column": "repaid", "positive": "yes"},
    "features": {
        "age": "numeric",
        "income": "numeric",
        "term": "categorical",
        "city": "categorical",
        "note": "text",
        "applied_at": "date",
    },
    "sensitive": ["sex"],
    "gates": {"data": {"min_rows": 50}},
}
ROWS = {"train": 800, "eval": 200, "test": 200}


def loans(rows: int, seed: int = 0) -> dict[str, pa.Array]:
    """Returns the columns of some loans; ``income`` and ``city`` have gaps."""
    rng = np.random.default_rng(seed)

    def words(*choices: str) -> np.ndarray:
        return np.array(choices)[rng.integers(0, len(choices), rows)]

    return {
        "loan_id": pa.array([f"L{seed}-{i}" for i in range(rows)]),
        "age": pa.array(rng.integers(18, 80, rows)),
        "income": pa.array(rng.lognormal(10, 1, rows), mask=rng.random(rows) < 0.1),
        "term": pa.array(np.array([12, 24, 36])[rng.integers(0, 3, rows)]),
        "city": pa.array(words("Ghent", "Bruges", "Antwerp"), mask=rng.random(rows) < 0.05),
        "note": pa.array([f"{a} {b}" for a, b in zip(words("new", "used"), words("car", "boat"), strict=True)]),
        "applied_at": pa.array(rng.integers(1_600_000_000, 1_700_000_000, rows)),
        "sex": pa.array(words("F", "M"), mask=rng.random(rows) < 0.02),
        "race": pa.array(words("a", "b", "c")),
        "repaid": pa.array(words("yes", "yes", "no")),
    }


def stored_type(array: pa.Array) -> str:
    """Returns the manifest's name of an Arrow type."""
    return {pa.int64(): "int64", pa.float64(): "float64", pa.string(): "string"}[array.type]


def write_examples(
    directory: Path, splits: Mapping[str, Mapping[str, pa.Array]], part_rows: int = 500, **manifest: Any
) -> ExamplesManifest:
    """Writes an examples artefact and returns its manifest."""
    for split, columns in splits.items():
        table = pa.table(dict(columns))
        (directory / split).mkdir(parents=True)
        for i, start in enumerate(range(0, max(1, table.num_rows), part_rows)):
            part = directory / split / f"part-{i:05d}.parquet"
            pq.write_table(table.slice(start, part_rows), part, compression="zstd")
    columns = {name: stored_type(array) for name, array in splits["train"].items()}
    rows = {split: len(next(iter(columns.values()))) for split, columns in splits.items()}
    written = ExamplesManifest(**{"rows": rows, "columns": columns, "classes": ("no", "yes"), "files": {}, **manifest})
    written.write(directory)
    return written


@dataclass(frozen=True)
class Loans:
    """One validation: what goes in, and what came out."""

    directory: Path
    problem: Problem
    bundle: Path

    @property
    def examples(self) -> Path:
        return self.directory / "examples"

    @property
    def statistics(self) -> Path:
        return self.directory / "statistics"

    @property
    def schema(self) -> Path:
        return self.directory / "schema" / "schema.pbtxt"

    def validate(self, reference: Path | None = None) -> ValidationReport:
        nothing = self.directory / "no-reference"
        nothing.mkdir(exist_ok=True)
        return run(
            str(self.bundle),
            str(self.examples),
            str(reference or nothing),
            str(self.statistics),
            str(self.schema.parent),
            str(self.directory / "anomalies"),
        )

    @property
    def anomalies(self) -> dict[str, Any]:
        return json.loads((self.directory / "anomalies" / "anomalies.json").read_text())  # type: ignore[no-any-return]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.statistics / "summary.json").read_text())  # type: ignore[no-any-return]

    def failed(self, name: str) -> list[dict[str, Any]]:
        """Returns the failed checks of a name."""
        return [c for c in self.anomalies["decision"]["checks"] if c["name"] == name and not c["passed"]]


MakeLoans = Callable[..., Loans]


@pytest.fixture
def make_loans(tmp_path: Path) -> MakeLoans:
    """A maker of validations: changed columns by split, problem keys, a curated schema, manifest fields."""

    def make(
        change: Callable[[str, dict[str, pa.Array]], dict[str, pa.Array]] = lambda _, columns: columns,
        problem: Mapping[str, Any] = {},
        schema: str | None = None,
        rows: Mapping[str, int] = ROWS,
        name: str = "loans",
        seed: int = 0,
        **manifest: Any,
    ) -> Loans:
        directory = tmp_path / name
        problem_dir = directory / "problem"
        problem_dir.mkdir(parents=True)
        (problem_dir / "problem.yaml").write_text(yaml.safe_dump({**PROBLEM, **problem}))
        if schema is not None:
            (problem_dir / "schema.pbtxt").write_text(schema)
        splits = {}
        for i, (split, n) in enumerate(rows.items()):
            # Without a row Arrow would not know the columns' types.
            columns = change(split, loans(max(1, n), seed * 10 + i))
            splits[split] = {name: array.slice(0, n) for name, array in columns.items()}
        write_examples(directory / "examples", splits, **manifest)
        loaded = load_problem(problem_dir)
        return Loans(directory, loaded, pack(loaded, problem_dir, directory / "bundles", "data"))

    return make


@dataclass(frozen=True)
class Examples:
    """An examples artefact and the columns that were written into it, by split."""

    directory: Path
    splits: Mapping[str, Mapping[str, pa.Array]]
    manifest: ExamplesManifest


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Examples of 800, 200 and 200 loans in several files; one column of strings without any value."""
    directory = tmp_path_factory.mktemp("loans") / "examples"
    splits = {split: loans(rows, seed) for seed, (split, rows) in enumerate(ROWS.items())}
    for split, columns in splits.items():
        columns["empty"] = pa.nulls(ROWS[split], pa.string())
    return Examples(directory, splits, write_examples(directory, splits, part_rows=300))


@pytest.fixture
def make_examples(tmp_path: Path) -> Callable[[Mapping[str, Mapping[str, pa.Array]]], Examples]:
    """A maker of examples with columns of the test's own."""

    def make(splits: Mapping[str, Mapping[str, pa.Array]]) -> Examples:
        directory = tmp_path / "examples"
        return Examples(directory, splits, write_examples(directory, splits))

    return make
