"""A registry with small models in it, and a cluster that serves what is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from cluster_fake import ClusterFake

from tidemill.artifacts import ModelManifest
from tidemill.files import digest_tree, write_json
from tidemill.kserve.cluster import Cluster
from tidemill.kserve.routes import route_of
from tidemill.kserve.run import Place
from tidemill.kserve.settings import KserveSettings
from tidemill.serving.registry import Registry

ROW: Final = {"age": 31.5, "job": "l'été"}
SETTINGS: Final = KserveSettings(address="https://models.example.com", hostname="models.example.com", drain_s=7)


class World:
    """A cluster, the registry on its volume, and as many versions as a test registers."""

    def __init__(self, root: Path, cluster: ClusterFake) -> None:
        self.root, self.cluster = root, cluster
        self.paused: list[float] = []
        self.store = Registry(root / "registry", "lending")

    def register(self, answer: float | None = None) -> int:
        """Registers a version, whose predictor answers as rehearsed, or something else."""
        number = len(self.store.versions()) + 1
        model = self.root / f"model-{number}"
        write_json(model / "saved_model" / "weights.json", {"number": number})
        digest = digest_tree(model / "saved_model")
        ModelManifest("lending", "regression", (), 0.5, {}, {}, (), digest, {}).write(model)

        def fill(extra: Path, version: int) -> None:
            write_json(extra / "sample.json", {"instance": ROW, "prediction": float(number), "tolerance": 1e-5})

        version = self.store.add(model, fill, f"run-{number}")
        predicted = float(number) if answer is None else answer
        self.cluster.controller(f"lending-v{version}").predict = lambda body: (200, {"predictions": [predicted]})
        return version

    def place(self, settings: KserveSettings = SETTINGS) -> Place:
        return Place(Cluster("tidemill", pause=self.paused.append), self.store, settings, "control@sha256:ab")

    def service(self, version: int) -> dict[str, Any]:
        found = self.cluster.object("inferenceservices", f"lending-v{version}")
        assert found is not None
        return found

    @property
    def traffic(self) -> dict[int, int]:
        route = self.cluster.object("httproutes", "lending")
        return dict(route_of(route).weights) if route else {}

    @property
    def served(self) -> list[str]:
        return sorted(name for _, plural, name in self.cluster.objects if plural == "inferenceservices")
