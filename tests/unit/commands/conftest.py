"""A target that is memory, and the lending problem compiled for it once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parent))  # importlib's mode adds no directory

from remote_memory import MemoryEndpoints, MemoryTarget

from tidemill_pipelines.cli import app
from tidemill_pipelines.targets import backends, compilation
from tidemill_pipelines.targets.compilation import Compiled, compile_package
from tidemill_pipelines.targets.config import load_target

PIPELINES = Path(__file__).parents[3] / "pipelines"
LENDING = PIPELINES / "problems" / "lending"
SOURCE = "gs://example-bucket/loans.csv"
Invoke = Callable[..., Result]


@pytest.fixture(scope="session")
def images_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make images` writes."""
    names = ("control", "validation", "tensorflow", "serving")
    images = {name: f"registry.example.com/tidemill/{name}@sha256:{'0' * 64}" for name in names}
    path = tmp_path_factory.mktemp("images") / "images.json"
    path.write_text(json.dumps({"version": "0.1.0", "lock": "0" * 64, "commit": "c0ffee", "images": images}))
    return path


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    """Calls the command; what it raises is raised here."""

    def call(*arguments: str, stdin: str | None = None) -> Result:
        environment = {"COLUMNS": "200"}
        return CliRunner().invoke(app, arguments, input=stdin, catch_exceptions=False, env=environment)

    return call


@pytest.fixture(scope="session")
def package(images_file: Path) -> Compiled:
    """Lending, compiled for the example of Vertex AI."""
    images = compilation.ImagesFile.read(images_file)
    target = load_target(str(PIPELINES / "targets" / "vertex.yaml"))
    return compile_package(LENDING, "training", target, images, source=SOURCE)


@pytest.fixture
def remote(package: Compiled, monkeypatch: pytest.MonkeyPatch) -> MemoryTarget:
    """The target behind every name, where every problem compiles to the same package."""
    memory = MemoryTarget()
    monkeypatch.setattr(backends, "open_target", lambda config: memory)
    monkeypatch.setattr(compilation, "compile_package", lambda *arguments, **keywords: package)
    return memory


@pytest.fixture
def remote_endpoints(monkeypatch: pytest.MonkeyPatch) -> MemoryEndpoints:
    memory = MemoryEndpoints()
    monkeypatch.setattr(backends, "open_endpoints", lambda config: memory)
    return memory


@pytest.fixture(scope="session")
def example() -> dict[str, tuple[str, ...]]:
    """The arguments that name a problem, its table and the example target of a kind."""
    return {
        kind: (str(LENDING), "--source", SOURCE, "--target", str(PIPELINES / "targets" / f"{kind}.yaml"))
        for kind in ("vertex", "kubernetes")
    }


@pytest.fixture(scope="session")
def on_vertex() -> tuple[str, str]:
    return ("--target", str(PIPELINES / "targets" / "vertex.yaml"))


@pytest.fixture(scope="session")
def read_json() -> Callable[[Result], Any]:
    """Returns what a command printed, which must be JSON and nothing else."""
    return lambda result: json.loads(result.stdout)
