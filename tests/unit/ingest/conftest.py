"""Small tables in every format, and one call that ingests them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # google.api_core warns of Python 3.11's end when Beam imports it
    pytest.importorskip("apache_beam", reason="needs the tensorflow environment")

from tidemill.artifacts import ExamplesManifest, parts
from tidemill.bundle import pack
from tidemill.ingest.run import IngestReport, run
from tidemill.problem import SPLITS, parse_problem


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            # Beam 2.77 and the google libraries use what their own dependencies deprecate.
            for category in ("DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))


@dataclass(frozen=True)
class Ingested:
    """The report and what lies on disk."""

    report: IngestReport
    directory: Path

    def split(self, name: str) -> pa.Table:
        return pa.concat_tables([pq.read_table(path) for path in parts(self.directory, name)])

    @property
    def table(self) -> pa.Table:
        """All rows, train first."""
        return pa.concat_tables([self.split(name) for name in SPLITS])

    @property
    def quarantine(self) -> list[dict[str, Any]]:
        files = sorted((self.directory / "quarantine").glob("part-*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    @property
    def manifest(self) -> ExamplesManifest:
        return ExamplesManifest.read(self.directory)


PROBLEM: Mapping[str, Any] = {
    "name": "toy",
    "task": "binary_classification",
    "label": {"column": "y", "positive": "1"},
    "features": {"x": "numeric"},
}
"""The problem that tests change by key."""


@pytest.fixture
def bundle_of(tmp_path: Path) -> Callable[..., Path]:
    """Packs PROBLEM with some keys replaced, and a schema where one is given."""

    def build(schema: str | None = None, **changes: Any) -> Path:
        directory = tmp_path / "problem"
        directory.mkdir(exist_ok=True)
        if schema is not None:
            (directory / "schema.pbtxt").write_text(schema)
        text = yaml.safe_dump({**PROBLEM, **changes}, sort_keys=False)
        return pack(parse_problem(text, "problem.yaml"), directory, tmp_path / "bundles")

    return build


@pytest.fixture
def ingest(tmp_path: Path, bundle_of: Callable[..., Path]) -> Callable[..., Ingested]:
    """Ingests a path, or the text or bytes of a CSV file."""

    def go(source: str | bytes | Path, to: str = "examples", schema: str | None = None, **changes: Any) -> Ingested:
        if not isinstance(source, Path):
            content = source if isinstance(source, bytes) else source.encode()
            source = tmp_path / "table.csv"
            source.write_bytes(content)
        bundle = bundle_of(schema, **changes)
        return Ingested(run(bundle, str(source), "", tmp_path / to), tmp_path / to)

    return go


@pytest.fixture
def rows_csv() -> Callable[..., str]:
    """Returns a CSV of distinct rows with both classes."""

    def build(count: int, start: int = 0) -> str:
        return "x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(start, start + count))

    return build
