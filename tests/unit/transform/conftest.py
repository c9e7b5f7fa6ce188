"""Small examples whose transformed values can be worked out by hand, and one run over them for the whole session."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

with warnings.catch_warnings():  # what Beam and TensorFlow warn of on import is theirs, and comes at collection
    warnings.simplefilter("ignore")
    pytest.importorskip("tensorflow_transform", reason="the transform stage runs in the tensorflow environment")
    import apache_beam  # noqa: F401

from tidemill.artifacts import ExamplesManifest
from tidemill.bundle import pack
from tidemill.problem import parse_problem

TYPES = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
INF, NAN = float("inf"), float("nan")

# Warnings of third parties at import and in their own calls of each other; nothing here can mend them.
_THIRD_PARTY = (
    "ignore:You are using a Python version:FutureWarning",  # google.api_core, about Python 3.11
    "ignore::DeprecationWarning",  # protobuf, absl, Beam, TFX-BSL
    "ignore:unclosed:ResourceWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for warning in _THIRD_PARTY:
                item.add_marker(pytest.mark.filterwarnings(warning))


@dataclass(frozen=True)
class Inputs:
    """What the stage is given."""

    bundle: Path
    examples: Path
    schema: Path


Columns = Mapping[str, tuple[str, Mapping[str, Sequence[Any]]]]
MakeInputs = Callable[..., Inputs]


def write_examples(directory: Path, columns: Columns, classes: tuple[str, ...]) -> Path:
    """Writes raw examples as `ingest` does: columns are ``{name: (type, {split: values})}``."""
    splits = list(next(iter(columns.values()))[1])
    rows = {}
    for split in splits:
        table = pa.table({name: pa.array(values[split], TYPES[t]) for name, (t, values) in columns.items()})
        (directory / split).mkdir(parents=True)
        pq.write_table(table, directory / split / "part-00000.parquet")
        rows[split] = table.num_rows
    ExamplesManifest(rows, {name: t for name, (t, _) in columns.items()}, classes, {}).write(directory)
    return directory


@pytest.fixture(scope="session")
def make_inputs(tmp_path_factory: pytest.TempPathFactory) -> MakeInputs:
    """Makes a bundle and examples out of the text of a problem and columns."""

    def make(problem: str, columns: Columns, classes: tuple[str, ...] = ("0", "1"), **modules: str) -> Inputs:
        directory = tmp_path_factory.mktemp("inputs")
        (directory / "problem").mkdir()
        for name, source in modules.items():
            (directory / "problem" / f"{name}.py").write_text(source)
        bundle = pack(parse_problem(problem, "problem.yaml"), directory / "problem", directory / "bundles")
        (directory / "schema").mkdir()
        return Inputs(bundle, write_examples(directory / "examples", columns, classes), directory / "schema")

    return make


# One feature of every kind, and every way in which a value can be absent.
PROBLEM = """
name: kinds
task: binary_classification
label: {column: outcome, positive: "yes"}
weight: importance
features:
  age: numeric
  income: {kind: numeric, scale: min_max}
  loans: {kind: numeric, scale: log_z_score}
  plain: {kind: numeric, scale: none}
  same: numeric
  void: numeric
  void-text: categorical
  void-bucket: bucketized
  level: {kind: bucketized, buckets: 2}
  city: {kind: categorical, min_frequency: 2, oov_buckets: 2}
  top city: {kind: categorical, column: city, max_vocabulary: 1}
  zone: categorical
  note: {kind: text, max_words: 3, oov_buckets: 1}
  seen: {kind: date, format: iso8601, parts: [hour, weekday]}
  born: {kind: date, parts: [month]}
  city_zone: {kind: crossed, of: [city, zone, age], hash_buckets: 50}
"""

NOTES = ["Red, red WINE!", "red wine", None, "", "one two three four", "Äpfel", "red", "wine"]
COLUMNS: Columns = {
    "age": ("float64", {"train": [10, 20, 30, None, NAN, INF, 10, 30], "eval": [40, None, -INF], "test": []}),
    "income": ("int64", {"train": [0, 5, 10, 10, 0, 5, 5, 5], "eval": [20, None, 0], "test": []}),
    "loans": ("float64", {"train": [0, 1, 3, 7, 0, 1, 3, 7], "eval": [15, None, -1], "test": []}),
    "plain": ("float64", {"train": [1, 2, 3, 2, 2, 2, 2, None], "eval": [1e300, None, 0], "test": []}),
    "same": ("float64", {"train": [0.1] * 8, "eval": [0.1, 5, None], "test": []}),
    "void": ("float64", {"train": [None] * 8, "eval": [None, 3, None], "test": []}),
    "void-text": ("string", {"train": [None] * 8, "eval": [None, "x", None], "test": []}),
    "void-bucket": ("int64", {"train": [None] * 8, "eval": [None, 3, None], "test": []}),
    "level": ("int64", {"train": [1, 2, 3, 4, 5, None, 1, 5], "eval": [-100, 100, None], "test": []}),
    "city": (
        "string",
        {"train": ["b", "a", "a", "b", "a", "c", None, ""], "eval": ["a", "never seen", None], "test": []},
    ),
    "zone": ("int64", {"train": [7, 7, 7, -9, -9, 0, None, None], "eval": [0, 1, None], "test": []}),
    "note": ("string", {"train": NOTES, "eval": ["red unknown", None, "wine"], "test": []}),
    "seen": (
        "string",
        {
            "train": [
                "1970-01-01T06:00:00Z",
                "1970-01-01T08:00:00+02:00",
                "1969-12-31 18:00",
                "1970-01-08",
                None,
                "?",
                "",
                "x",
            ],
            "eval": ["2024-02-29T12:00:00.5Z", None, "2024-02-30"],
            "test": [],
        },
    ),
    "born": ("int64", {"train": [0, None, 0, 0, 0, 0, 0, 0], "eval": [7_776_000, None, -1], "test": []}),
    "outcome": ("string", {"train": ["yes", "no"] * 4, "eval": ["no", "no", "yes"], "test": []}),
    "importance": ("float64", {"train": [1, 2, 3, 4, 5, 6, 7, 8], "eval": [0.5, 0, 1], "test": []}),
}


@dataclass(frozen=True)
class Stage:
    """One run of the stage over ``PROBLEM`` and ``COLUMNS``."""

    inputs: Inputs
    graph: Path
    transformed: Path
    report: Any

    def column(self, split: str, name: str) -> list[Any]:
        values: list[Any] = pq.read_table(self.transformed / split)[name].to_pylist()
        return values


@pytest.fixture(scope="session")
def stage(make_inputs: MakeInputs, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The stage, run once on one feature of every kind."""
    from tidemill.transform.run import run

    inputs = make_inputs(PROBLEM, COLUMNS, classes=("no", "yes"))
    (inputs.schema / "schema.pbtxt").write_text(
        'feature { name: "city" type: BYTES domain: "cities" shape { dim { size: 1 } } }'
        'feature { name: "income" type: INT int_domain { min: 0 max: 99 } }'
        'feature { name: "outcome" type: BYTES }'
        'string_domain { name: "cities" value: "a" value: "b" }'
    )
    out = tmp_path_factory.mktemp("stage")
    report = run(inputs.bundle, inputs.examples, inputs.schema, out / "graph", out / "transformed")
    return Stage(inputs, out / "graph", out / "transformed", report)
