"""One fake Vertex AI for all tests, as a process of its own; the SDK talks to it over TLS, unmodified.

Tests in this process reach it by an explicit host. Those that run commands (test_commands.py) have another one in a
network of its own, where the region's real host names lead to it and nothing can leave.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(_TESTS / "fakes" / "vertex"))


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from vertex_fake import fake_vertex

    with fake_vertex(tmp_path_factory.mktemp("vertex")) as fake:
        yield fake


@pytest.fixture
def fake(_running: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The fake, with nothing in it, and its environment: credentials, Storage, and the CA that gRPC reads once."""
    for name, value in _running.environment.items():
        monkeypatch.setenv(name, value)
    _running.ask("reset")
    return _running


@pytest.fixture(scope="session")
def clients(_running: Any) -> Any:
    """Clients that lead to the fake, and don't wait long."""
    from vertex_fake import PROJECT, REGION

    from tidemill.vertex.clients import Clients, Patience
    from tidemill.vertex.location import Location

    patience = Patience(call=20, pause=0.02, longest_pause=0.1, unavailable=1.0, operation=20, poll=0.01)
    return Clients(Location(PROJECT, REGION), patience, api_endpoint=f"localhost:{_running.port}")


@pytest.fixture(scope="session")
def package() -> Any:
    """A compiled pipeline: two tasks, a parameter with a default, one that is never cached."""
    from tidemill_pipelines.targets.compilation import Package

    return Package((Path(__file__).parent / "toy.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def config() -> Any:
    """Everything that a target's file can say of Vertex AI."""
    from tidemill_pipelines.targets.config import parse_target

    return parse_target((Path(__file__).parent / "target.yaml").read_text(encoding="utf-8"), "target.yaml")


@pytest.fixture
def target(fake: Any, clients: Any, config: Any) -> Any:
    from tidemill_pipelines.targets.vertex.target import VertexTarget

    return VertexTarget(config, clients)


@pytest.fixture
def submission(package: Any) -> Callable[..., Any]:
    from tidemill_pipelines.targets.remote import Submission

    def make(request_id: str = "build-7", **changes: Any) -> Any:
        return Submission(**{"name": "toy-training", "package": package, "request_id": request_id, **changes})

    return make


@pytest.fixture(scope="session")
def runs_of_toy() -> ModuleType:
    """The module that makes artefacts of runs that passed their gates."""
    spec = importlib.util.spec_from_file_location("runs_of_toy", _TESTS / "unit" / "register" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


SETTINGS = {
    "models_uri": "gs://example-bucket/root/models",
    "serving_image": "europe-west1-docker.pkg.dev/example-project/tidemill/serving@sha256:00",
    "labels": {"team": "risk"},
    "drain_s": 0,
}


class World:
    """A pipeline's release steps, run after run, against the fake."""

    def __init__(self, root: Path, clients: Any, fake: Any, runs: ModuleType) -> None:
        self.root, self.clients, self.fake, self.runs = root, clients, fake, runs
        self.settings: dict[str, Any] = dict(SETTINGS)
        self.registry = clients.location.path

    def run(self, content: str) -> Any:
        """Returns the artefacts of a run whose model has this content."""
        directory = self.root / f"run-{content}"
        return self.runs.make_run(directory, content) if not directory.exists() else self.made[content]

    @property
    def made(self) -> dict[str, Any]:
        return vars(self).setdefault("_made", {})

    def register(self, content: str, run_id: str | None = None) -> Any:
        from tidemill.registration import Evidence
        from tidemill.vertex.run import register

        run = self.run(content)
        self.made[content] = run
        names = ("examples", "statistics", "schema", "model", "blessing", "rehearsal", "evaluation")
        evidence = Evidence(bundle=run.bundle, **{name: run.root / name for name in names})
        return register(
            evidence,
            self.registry,
            self.settings,
            self.root / f"registered-{content}",
            run_id or f"run-{content}",
            self.runs.ORIGIN,
            self.clients,
        )

    def deploy(self, content: str) -> Any:
        from tidemill.vertex.run import deploy

        registered, out = self.root / f"registered-{content}", self.root / f"deployment-{content}"
        return deploy(registered, self.registry, self.registry, self.settings, out, self.clients)

    def release(self, content: str) -> Any:
        self.register(content)
        return self.deploy(content)

    def find_champion(self) -> Any:
        from tidemill.vertex.run import find_champion

        bundle = next(iter(self.made.values())).bundle
        return find_champion(bundle, self.registry, self.root / "champion", self.root / "reference", self.clients)

    def endpoint(self, name: str = "toy") -> Any:
        """Returns the Endpoint message of a display name, or None."""
        found = self.clients.endpoints.list_endpoints(request={"parent": self.registry})
        return next((endpoint for endpoint in found if endpoint.display_name == name), None)

    def traffic(self) -> dict[str, int]:
        """Returns percent by version."""
        endpoint = self.endpoint()
        versions = {model.id: model.model_version_id for model in endpoint.deployed_models}
        return {versions[identity]: share for identity, share in endpoint.traffic_split.items() if share}

    def aliases(self) -> dict[str, str]:
        """Returns version by alias."""
        name = f"{self.registry}/models/toy"
        versions = self.clients.models.list_model_versions(request={"name": name})
        return {alias: model.version_id for model in versions for alias in model.version_aliases}


@pytest.fixture
def world(tmp_path: Path, clients: Any, fake: Any, runs_of_toy: ModuleType) -> World:
    return World(tmp_path, clients, fake, runs_of_toy)
