"""A small trained model with the raw and the transformed rows that it was made from, as earlier stages leave them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

pytest.importorskip("tensorflow_model_analysis", reason="needs the tensorflow environment")

from tidemill.artifacts import ExamplesManifest, parts
from tidemill.bundle import open_bundle, pack
from tidemill.compress.networks import SavedNetwork
from tidemill.evaluate.evaluation import Inputs
from tidemill.problem import load_problem
from tidemill.transform.graph import load_transform

_TRAIN = Path(__file__).parents[1] / "train" / "conftest.py"
NO_CHAMPION = Path("no-champion")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            # Beam, TFMA and Google's clients use APIs that their own dependencies deprecate.
            for category in ("DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))


def _train_inputs() -> ModuleType:
    """Returns what the tests of training make their rows and their transform graph with."""
    spec = importlib.util.spec_from_file_location("rows_to_compress", _TRAIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@dataclass
class Project:
    """Paths as the component gives them to ``run``."""

    directory: Path
    task: str
    problem: dict[str, Any]

    @property
    def examples(self) -> Path:
        return self.directory / "examples"

    @property
    def transformed(self) -> Path:
        return self.directory / "transformed"

    @property
    def transform_graph(self) -> Path:
        return self.directory / "transform_graph"

    @property
    def model(self) -> Path:
        return self.directory / "model"

    def bundle(self, compression: Mapping[str, Any] | None = None, **changes: Any) -> Path:
        """Packs the problem with other settings."""
        problem = {**self.problem, **changes, **({"compression": dict(compression)} if compression else {})}
        (self.directory / "problem.yaml").write_text(yaml.safe_dump(problem, sort_keys=False))
        return pack(load_problem(self.directory), self.directory, self.directory / "bundles", "whole")

    def arguments(self, output: Path, compression: Mapping[str, Any] | None, **changes: Any) -> dict[str, Any]:
        outputs = {name: output / name for name in ("compressed", "compression", "released", "checkpoints")}
        return {
            "bundle": self.bundle(compression, **changes),
            "examples": self.examples,
            "transformed": self.transformed,
            "transform_graph": self.transform_graph,
            "model": self.model,
            "champion": NO_CHAMPION,
            **outputs,
        }

    def inputs(self, champion: Path = NO_CHAMPION, **changes: Any) -> Inputs:
        return Inputs.read(open_bundle(self.bundle(**changes)), self.examples, self.model, champion)

    def test_rows(self) -> pa.Table:
        return pa.concat_tables([pq.read_table(path) for path in parts(self.examples, "test")])


def _raw_table(raw: Mapping[str, np.ndarray], labels: np.ndarray, task: str, classes: tuple[str, ...]) -> pa.Table:
    hours, education = raw["hours-per-week"].astype(np.float64), raw["education num"]
    texts = {
        name: pa.array([None if v == b"" else v.decode() for v in raw[name]], pa.string())
        for name in ("1st color", "note")
    }
    shown = labels.astype(np.float64) if task == "regression" else np.array(classes)[labels.astype(int)]
    return pa.table(
        {
            "hours-per-week": pa.array(hours, mask=np.isnan(hours)),
            "education num": pa.array(education, mask=education < 0),
            **texts,
            "y": pa.array(shown),
        }
    )


@pytest.fixture(scope="session")
def project_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Project]:
    """Makes projects of a task, trained, once per task and source of ``model.py``."""
    source = _train_inputs()
    made: dict[tuple[str, str], Project] = {}

    def make(task: str = "binary_classification", model: str = "") -> Project:
        if (task, model) in made:
            return made[task, model]
        directory = tmp_path_factory.mktemp("project")
        classes = source.CLASSES[task]
        source.write_transform_graph(directory / "transform_graph", task, None)
        transform = load_transform(directory / "transform_graph")
        sizes = {"train": 1200, "eval": 200, "test": 601}
        for seed, (split, rows) in enumerate(sizes.items()):
            raw = source.raw_rows(rows, seed)
            labels = source.labels(task, raw, seed)
            columns = {name: tensor.numpy() for name, tensor in transform(raw).items()}
            source.write_split(directory / "transformed" / split, {**columns, "__label__": labels}, row_group=100)
            table = _raw_table(raw, labels, task, classes)
            (directory / "examples" / split).mkdir(parents=True)
            first = 0
            for part in parts(directory / "transformed", split):
                rows = pq.read_metadata(part).num_rows
                pq.write_table(table.slice(first, rows), directory / "examples" / split / part.name)
                first += rows
        types = {"hours-per-week": "float64", "education num": "int64", "1st color": "string", "note": "string"}
        label_type = "float64" if task == "regression" else "string"
        ExamplesManifest(sizes, {**types, "y": label_type}, classes, {}).write(directory / "examples")
        ExamplesManifest(sizes, {**types, "y": label_type}, classes, {}).write(directory / "transformed")
        training = {"max_epochs": 2, "batch_size": 64, "hidden_units": [16], "learning_rate": 0.01}
        problem = source.problem_yaml(task, training=training, sensitive=["1st color"])
        if model:
            problem["user_code"] = {"model": "model:build_model"}
            (directory / "model.py").write_text(model)
        made[task, model] = project = Project(directory, task, problem)
        _train(project)
        return project

    return make


def _train(project: Project) -> None:
    from tidemill.train.run import run

    out = project.directory
    run(
        project.bundle(), project.transformed, project.transform_graph, project.model, out / "history", out / "training"
    )


@pytest.fixture(scope="session")
def project(project_of: Callable[..., Project]) -> Project:
    """A binary classifier."""
    return project_of()


@pytest.fixture(scope="session")
def original(project: Project) -> SavedNetwork:
    return SavedNetwork(project.model)
