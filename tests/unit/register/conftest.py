"""Artefacts of a run that passed its gates; the SavedModel is bytes, since nothing here loads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tidemill.artifacts import NETWORK, SAVED_MODEL, ExamplesManifest, ModelManifest
from tidemill.bundle import pack
from tidemill.decisions import Check, Decision
from tidemill.files import digest_tree, write_json
from tidemill.problem import parse_problem
from tidemill.stage import Origin

PROBLEM = """
name: toy
task: binary_classification
label: {column: income, positive: yes-please}
features: {age: numeric}
"""

ORIGIN = Origin(lock="10cc", commit="c0ffee")


def write_model(directory: Path, content: str) -> Path:
    saved_model = directory / SAVED_MODEL
    for name in ("saved_model.pb", "variables/variables.index", "assets/vocabulary"):
        (saved_model / name).parent.mkdir(parents=True, exist_ok=True)
        (saved_model / name).write_text(f"{name} of {content}")
    (directory / NETWORK).mkdir()
    (directory / NETWORK / "weights.npz").write_text(f"weights of {content}")
    ModelManifest(
        name="toy",
        task="binary_classification",
        classes=("no", "yes-please"),
        threshold=0.5,
        inputs={"age": "float32"},
        outputs={"probability": "float32"},
        signatures=("serving_default",),
        digest=digest_tree(saved_model),
        framework={"tensorflow": "2.21.0"},
        lineage={"bundle": "b", "transform_graph": "t"},
    ).write(directory)
    return directory


@dataclass
class Run:
    """The artefacts of one run, by the parameter of ``register`` that takes them."""

    root: Path
    bundle: Path

    def judge(self, name: str, passed: bool = True, digest: str | None = None) -> None:
        check = Check("auc", passed, ">= 0.9", "0.8", "auc is 0.8; the limit is 0.9.", 0.8, 0.9)
        of = digest or ModelManifest.read(self.root / "model").digest
        evidence = {"decision": Decision(name, (check,)).to_json(), "challenger": of}
        write_json(self.root / name / f"{name}.json", evidence)

    def arguments(self, registry: Path, run_id: str) -> dict[str, Any]:
        inputs = ("examples", "statistics", "schema", "model", "blessing", "rehearsal", "evaluation")
        paths = {name: str(self.root / name) for name in inputs}
        given = {"registry": str(registry), "run_id": run_id, "registered": str(self.root / "registered")}
        return {"bundle": str(self.bundle), **paths, **given, "origin": ORIGIN}


def make_run(root: Path, content: str) -> Run:
    root.mkdir()
    write_model(root / "model", content)
    ExamplesManifest(
        rows={"train": 8, "eval": 1, "test": 1},
        columns={"age": "float64"},
        classes=("no", "yes-please"),
        files={"test/part-00000.parquet": {"rows": 1, "bytes": 1, "sha256": "f00d"}},
        source={"uri": "people.csv", "fingerprint": "cafe", "rows": 10},
    ).write(root / "examples")
    for name in ("statistics", "schema", "evaluation"):
        (root / name / "train").mkdir(parents=True)
        (root / name / "train" / "content").write_text(f"{name} of {content}")
    run = Run(root, pack(parse_problem(PROBLEM, "problem.yaml"), root, root / "bundles"))
    run.judge("blessing")
    run.judge("rehearsal")
    write_json(root / "rehearsal" / "sample.json", {"instance": {"age": 1.0}, "prediction": 0.5, "tolerance": 1e-5})
    return run


@pytest.fixture
def first(tmp_path: Path) -> Run:
    return make_run(tmp_path / "first", "1")


@pytest.fixture
def second(tmp_path: Path) -> Run:
    return make_run(tmp_path / "second", "2")


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Eight models of different content."""
    return [write_model(tmp_path / f"model{i}", str(i)) for i in range(8)]
