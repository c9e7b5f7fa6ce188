"""The manifests, rendered once by the real kustomize."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.append(str(Path(__file__).parent))  # this directory's own modules; importlib's mode adds no directory

import tools
from schemas import Schemas

MANIFESTS = tools.ROOT / "manifests"
SETS = (
    "overlays/dev",
    "overlays/prod",
    "overlays/gpu",
    "overlays/tpu",
    "cluster",
    "store",
    "store/owner",
    "examples/serving",
    "examples/training",
    "examples/schedule",
)
Documents = list[dict[str, Any]]


@pytest.fixture(scope="session")
def kustomize() -> Callable[[Path], Documents]:
    """Renders a directory."""
    binary = tools.available(tools.kustomize)

    def build(directory: Path) -> Documents:
        done = subprocess.run([str(binary), "build", str(directory)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert not done.stderr, "kustomize warned"
        return [document for document in yaml.safe_load_all(done.stdout) if document is not None]

    return build


@pytest.fixture(scope="session")
def rendered(kustomize: Callable[[Path], Documents]) -> dict[str, Documents]:
    """Every set of manifests by its directory."""
    return {name: kustomize(MANIFESTS / name) for name in SETS}


@pytest.fixture(scope="session")
def schemas() -> Schemas:
    return Schemas(tools.available(tools.crds))


@pytest.fixture(scope="session")
def promtool() -> Path:
    return tools.available(tools.promtool)
