"""The lending problem, compiled once for each shipped example target with images by digest: nothing is found in it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidemill_pipelines.targets.checking.subject import Plan, Subject
from tidemill_pipelines.targets.compilation import ImagesFile, Package, compile_package
from tidemill_pipelines.targets.config import KINDS, TargetConfig, load_target, parse_target

PIPELINES = Path(__file__).parents[3] / "pipelines"
ENVIRONMENTS = ("control", "validation", "tensorflow", "serving")


def digests() -> ImagesFile:
    references = {
        name: f"registry.example.com/tidemill/{name}@sha256:{hashlib.sha256(name.encode()).hexdigest()}"
        for name in ENVIRONMENTS
    }
    return ImagesFile("0.1.0", "0" * 64, "c0ffee", references)


@dataclass(frozen=True)
class Sample:
    """A package as data that a test may change, with the target it was compiled for."""

    documents: list[Any]
    target: str
    kind: str

    @property
    def spec(self) -> dict[str, Any]:
        return self.documents[0]

    @property
    def group(self) -> dict[str, Any]:
        """The tasks inside the exit handler."""
        return self.spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]

    def container(self, task: str) -> dict[str, Any]:
        return self.spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]

    def resources(self, task: str) -> dict[str, Any]:
        return self.container(task)["resources"]

    def platform(self, task: str) -> dict[str, Any]:
        """The platform spec of a task; made if there is none."""
        if len(self.documents) == 1:
            self.documents.append({"platforms": {"kubernetes": {"deploymentSpec": {"executors": {}}}}})
        executors = self.documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        return executors.setdefault(f"exec-{task}", {})

    def parameter(self, name: str, value: Any) -> None:
        self.spec["root"]["inputDefinitions"]["parameters"][name]["defaultValue"] = value

    def subject(
        self,
        settings: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        plan: Plan | None = None,
        images: ImagesFile | None = None,
    ) -> Subject:
        """Returns what is checked.

        Args:
            settings: keys of the target's file that are other than in the example; None takes one out.
        """
        merged = {**yaml.safe_load(self.target), **(settings or {})}
        text = yaml.safe_dump({key: value for key, value in merged.items() if value is not None})
        package = Package(yaml.dump_all(self.documents, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)))
        return Subject(package, parse_target(text, "target.yaml"), images, labels or {}, plan)


@pytest.fixture(scope="session")
def compiled() -> Mapping[str, Subject]:
    """The clean package, by kind of target."""

    def of(target: TargetConfig) -> Subject:
        source = "gs://example-bucket/loans.csv"
        done = compile_package(PIPELINES / "problems" / "lending", "training", target, digests(), source=source)
        return Subject(done.package, target, digests())

    return {kind: of(load_target(str(PIPELINES / "targets" / f"{kind}.yaml"))) for kind in KINDS}


@pytest.fixture(scope="session")
def clean(compiled: Mapping[str, Subject]) -> Callable[[str], Subject]:
    return lambda kind: replace(compiled[kind])


@pytest.fixture(scope="session")
def sample(compiled: Mapping[str, Subject]) -> Callable[[str], Sample]:
    """Returns a copy of the clean package that a test may break."""
    parsed = {kind: subject.package.documents for kind, subject in compiled.items()}
    texts = {kind: (PIPELINES / "targets" / f"{kind}.yaml").read_text() for kind in KINDS}
    return lambda kind: Sample(copy.deepcopy(parsed[kind]), texts[kind], kind)
