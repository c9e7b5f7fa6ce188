"""A registry with real models, and endpoints that are ended whatever a test did to them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tidemill.files import write_json
from tidemill.serving.endpoints import Endpoint
from tidemill.serving.registry import Registry

ROW = {"age": 31.5, "hours": 40, "job": "l'été"}


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module of the toy model."""
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).parents[1] / "serving" / "toy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def models(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three versions of a model, of shift 0, 1 and 2."""
    root = tmp_path_factory.mktemp("models")
    return [toy.export(root / f"shift{shift}", float(shift)) for shift in range(3)]


class World:
    """One machine's registry and endpoints."""

    def __init__(self, root: Path, models: list[Path], toy: Any) -> None:
        self.root, self.models, self.toy = root, models, toy
        self.registry = Registry(root / "registry", "toy")
        self.endpoint = Endpoint(root / "endpoints", "toy")

    def register(self, shift: int, answer_shift: int | None = None) -> Path:
        """Registers the model of a shift; its rehearsed answer may be that of another."""
        probability = self.toy.probability(ROW, shift if answer_shift is None else answer_shift)

        def fill(extra: Path, version: int) -> None:
            prediction = {"probability": probability, "label": ">50K"}
            write_json(extra / "sample.json", {"instance": ROW, "prediction": prediction, "tolerance": 1e-5})
            write_json(extra / "lineage.json", {"version": version})

        version = self.registry.add(self.models[shift], fill, f"run-{shift}")
        registered = self.root / f"registered-{shift}"
        write_json(registered / "registered.json", {"name": "toy", "version": version})
        return registered

    def arguments(self, registered: Path) -> tuple[str, str, str, str]:
        return tuple(str(p) for p in (registered, self.root / "registry", self.root / "endpoints", self.root / "out"))


@pytest.fixture
def world(models: list[Path], toy: ModuleType, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, models, toy)
    yield world
    running = world.endpoint.running()
    if running is not None:
        os.kill(running.pid, signal.SIGCONT)
        os.kill(running.pid, signal.SIGKILL)
    shutil.rmtree(tmp_path, ignore_errors=True)
