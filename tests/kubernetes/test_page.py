"""The page of the target is true: its permissions are those that are used, its commands and fields exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_fake import KfpFake
from released import ROW, World
from typer.main import get_command

from tidemill.jobs.handover import INPUTS
from tidemill.jobs.watch import Patience
from tidemill_pipelines.cli import app
from tidemill_pipelines.targets.checking.subject import Subject
from tidemill_pipelines.targets.checking.table import findings
from tidemill_pipelines.targets.compilation import compile_package
from tidemill_pipelines.targets.config import KubernetesAuth, KubernetesTraining, load_target, parse_target
from tidemill_pipelines.targets.kubernetes.endpoints import KubernetesEndpoints
from tidemill_pipelines.targets.kubernetes.target import KubernetesTarget

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "pipelines" / "targets" / "KUBERNETES.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def documents() -> list[dict[str, Any]]:
    return [yaml.safe_load(text) for text in blocks("yaml")]


def permissions(role: dict[str, Any]) -> set[tuple[str, str]]:
    return {(verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


def own_role() -> set[tuple[str, str]]:
    text = (ROOT / "manifests" / "base" / "accounts" / "pipeline.yaml").read_text()
    return permissions(next(value for value in yaml.safe_load_all(text) if value["kind"] == "Role"))


def test_the_permissions_are_those_that_are_used(executing: KfpFake, world: World) -> None:
    operator, reasons = (permissions(role) for role in documents() if role["kind"] == "Role")
    text = f"kind: kubernetes\nkubernetes: {{host: '{executing.address}'}}\n"
    target, config = KubernetesTarget(parse_target(text, "t")), parse_target(text, "t")
    world.register()
    world.cluster.asked.clear()
    from tidemill.kserve.run import release

    release(world.place(), 1, 100)
    release(world.place(), world.register(), 100)
    assert world.cluster.asked <= own_role(), "the deploy step, where all is well"
    world.cluster.asked.clear()
    endpoints = KubernetesEndpoints(config, pause=lambda seconds: None)
    endpoints.status(None)
    endpoints.models()
    endpoints.predict("lending", {"instances": [ROW]})
    run = next(iter(executing.runs), None)
    assert run is None
    executing.on_run = lambda run: None
    from deployable import compiled

    from tidemill_pipelines.targets.remote import Submission

    made = target.submit(Submission("lending", compiled(), "r", {"source": "s"}))
    node = {"workflows.argoproj.io/node-name": "x.root.ingest.executor"}
    world.cluster.pod("x", "Succeeded", {"pipeline/runid": made.id}, "done", node)
    assert list(target.logs(made.id, None)) == ["done"]
    assert world.cluster.asked == operator, "what people ask from outside, no more and no less"
    world.cluster.asked.clear()
    place = world.place()
    place.cluster.pods("x")
    place.cluster.warnings("x")
    assert world.cluster.asked == reasons


def test_its_targets_train_as_they_are_meant_to() -> None:
    targets = [text for text in blocks("yaml") if yaml.safe_load(text)["kind"] == "kubernetes"]
    assert len(targets) == 2
    found = []
    for text in targets:
        target = parse_target(text, "target.yaml")
        package = compile_package(
            ROOT / "pipelines" / "problems" / "lending", "training", target, source="s3://b/x.csv"
        )
        subject = Subject(package.package, target)
        found.append({finding.id for finding in findings(subject) if finding.id.startswith("training-")})
    assert found == [{"training-needs"}] * 2


def test_its_figures_of_training_are_the_codes() -> None:
    text, patience = " ".join(PAGE.read_text().split()), Patience()
    runtime = yaml.safe_load((ROOT / "manifests" / "base" / "training" / "runtime" / "runtime.yaml").read_text())
    assert runtime["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] == 3
    assert "likewise, but three times: `failurePolicy.maxRestarts`" in text
    assert f"`training.max_restarts` ({KubernetesTraining().max_restarts}) times" in text
    assert f"after {patience.vain} restarts in a row without a higher step" in text
    assert patience.outage_s == 3600
    assert "asks again for an hour" in text
    assert f"/{INPUTS}`)" in text


def test_its_commands_and_their_options_exist() -> None:
    commands = [
        shlex.split(line)
        for block in blocks("sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("tidemill ")
    ]
    assert len(commands) > 8
    for _, *words in commands:
        command: Any = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= known, words


def test_every_way_to_say_who_asks_is_described() -> None:
    methods = KubernetesAuth.model_json_schema()["properties"]["method"]["enum"]
    assert [f"| `{method}` |" in PAGE.read_text() for method in methods] == [True] * len(methods)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", PAGE.read_text()))
def test_its_links_lead_somewhere(link: str) -> None:
    assert (PAGE.parent / link).exists()


def test_the_shipped_example_is_valid() -> None:
    config = load_target(str(PAGE.parent / "kubernetes.yaml"))
    assert config.kind == "kubernetes"
    assert config.on_kubernetes.multi_user
