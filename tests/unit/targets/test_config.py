"""The files of targets: strict, all faults at once, defaults that a stage may replace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tidemill.errors import UsageError
from tidemill_pipelines.choices import Choices, Rounds
from tidemill_pipelines.pipelines import load_pipeline
from tidemill_pipelines.targets.checking.subject import Subject
from tidemill_pipelines.targets.compilation import Package
from tidemill_pipelines.targets.config import (
    KINDS,
    STAGES,
    ConfigError,
    KubernetesDeployment,
    TargetConfig,
    VertexDeployment,
    json_schema,
    load_target,
    parse_target,
    time_zone,
)
from tidemill_pipelines.targets.vertex.release import vertex_release

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "pipelines" / "targets"
GOLDENS = ROOT / "tests" / "pipelines" / "goldens"
WHERE = {"project": "example-project", "region": "europe-west1"}


def parse(**keys: Any) -> TargetConfig:
    return parse_target(yaml.safe_dump({"kind": "vertex", **keys}), "target.yaml")


@pytest.mark.parametrize("kind", KINDS)
def test_the_stages_are_the_components_that_pipelines_run(kind: str) -> None:
    """What a target's file can be about is all that its tasks are, and nothing else."""
    choices = Choices(compresses=True, tuning=Rounds(1, 1, cross_validated=True))
    managed = parse(vertex=WHERE, pipeline_root="gs://b", training={"kind": "vertex", "managed_tuning": True})
    optional = load_pipeline("tuning", vertex_release(managed, "serving"), choices).pipeline_spec.components
    stages = {"compress", "fold", "tune"} & {name.removeprefix("comp-") for name in optional}
    for golden in GOLDENS.glob(f"*.{kind}.yaml"):
        subject = Subject(Package.read(golden), TargetConfig(kind=kind))
        stages |= {task.stage for task in subject.containers}
    assert stages == set(STAGES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_examples_are_valid_and_fit_the_schema(kind: str) -> None:
    path = EXAMPLES / f"{kind}.yaml"
    assert load_target(str(path)).kind == kind
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())


def test_the_schema_refuses_what_the_model_refuses() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    for faulty in (
        {},
        {"kind": "local"},
        {"kind": "vertex", "regoin": "x"},
        {"kind": "vertex", "labels": {"a": 1}},
        {"kind": "vertex", "defaults": {"cpu": "4 GB"}},
    ):
        assert list(validator.iter_errors(faulty)), faulty


def test_all_faults_are_told_at_once_with_their_lines() -> None:
    text = "kind: vertex\npipline_root: gs://b\nlabels: {Team: x}\nvertex:\n  regoin: europe-west1\n"
    with pytest.raises(ConfigError) as told:
        parse_target(text, "targets/p.yaml")
    message = str(told.value)
    assert message.startswith("targets/p.yaml: 3 faults\n")
    assert "line 2: pipline_root: unknown key; did you mean pipeline_root?" in message
    assert "line 3: labels.Team" in message
    assert "line 5: vertex.regoin: unknown key; did you mean region?" in message


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"kubernetes": {}}, "`kubernetes` does not fit kind vertex"),
        ({"kind": "kubernetes", "vertex": {}}, "`vertex` does not fit kind kubernetes"),
        ({"deploy": {"kind": "kubernetes"}}, "`deploy.kind` must be vertex"),
        ({"deploy": {"kind": "local"}}, "kind must be one of vertex, kubernetes"),
        ({"stages": {"training": {}}}, "`stages` names training; there are locate"),
        ({"defaults": {"machine": "n2-standard-4", "cpu": 4}}, "say the same thing: give one of them"),
        ({"defaults": {"memory": "16 GB"}}, "defaults.memory"),
        ({"defaults": {"retries": {"count": 11}}}, "defaults.retries.count"),
        ({"defaults": {"timeout_s": 0}}, "defaults.timeout_s"),
        ({"defaults": {"accelerator": {"type": "NVIDIA_L4", "count": 0}}}, "defaults.accelerator.count"),
        ({"labels": {"team": "Risk"}}, "labels.team"),
        ({"deploy": {"kind": "vertex", "min_replicas": 3, "max_replicas": 2}}, "must not be less than `min_replicas`"),
        ({"deploy": {"kind": "vertex", "private": True, "dedicated": True}}, "`dedicated` or `private`, not both"),
        ({"deploy": {"kind": "vertex", "private": True, "traffic_percent": 10}}, "must be 100"),
        ({"deploy": {"kind": "vertex", "traffic_percent": 0}}, "traffic_percent"),
        (
            {"kind": "kubernetes", "deploy": {"kind": "kubernetes", "min_replicas": 3, "max_replicas": 2}},
            "must not be less than `min_replicas`",
        ),
        ({"kind": "kubernetes", "kubernetes": {"auth": {"method": "token"}}}, "exactly one of `variable` and `file`"),
        (
            {"kind": "kubernetes", "kubernetes": {"auth": {"method": "cookies", "variable": "A", "file": "b"}}},
            "exactly one of `variable` and `file`",
        ),
        ({"kind": "kubernetes", "kubernetes": {"auth": {"method": "iap"}}}, "`iap` needs `client_id`"),
        ({"kind": "kubernetes", "kubernetes": {"auth": {"method": "token", "token": "s3cret"}}}, "unknown key"),
        ({"beam": {"runner": "prism"}}, "beam.runner"),
        ({"training": {"kind": "kubernetes"}}, "`training.kind` must be vertex"),
        ({"training": {"kind": "local"}}, "kind must be one of vertex, kubernetes"),
        ({"kind": "kubernetes", "training": {"kind": "kubernetes", "workers": 0}}, "training.workers"),
        ({"kind": "kubernetes", "training": {"kind": "kubernetes", "wrokers": 2}}, "unknown key"),
        (
            {
                "kind": "kubernetes",
                "training": {"kind": "kubernetes", "workers": 2, "accelerator": {"type": "google.com/tpu"}},
            },
            "`workers` must be 1 on TPUs",
        ),
    ],
)
def test_a_fault_is_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(**keys)
    assert told in str(error.value)


def test_a_stage_inherits_what_it_doesnt_say() -> None:
    target = parse(
        defaults={"cpu": 4, "memory": "16G", "retries": {"count": 2}, "cache": True},
        stages={"train": {"memory": "64G"}, "ingest": {"machine": "n2-standard-8"}, "gate": {"cache": False}},
    )
    train, ingest, gate, validate = (target.stage(name) for name in ("train", "ingest", "gate", "validate"))
    assert (train.cpu, train.memory) == (None, "64G")  # a size of its own replaces the default one whole
    assert (ingest.machine, ingest.cpu, ingest.memory) == ("n2-standard-8", None, None)
    assert (gate.cpu, gate.memory, gate.cache) == ("4", "16G", False)
    assert validate == target.defaults
    assert all(stage.retries is not None and stage.retries.count == 2 for stage in (train, ingest, gate))


def test_what_is_not_said_has_the_defaults_of_its_kind() -> None:
    vertex, kubernetes = parse(), parse(kind="kubernetes")
    assert (vertex.deployment, kubernetes.deployment) == (VertexDeployment(), KubernetesDeployment())
    assert vertex.on_vertex.project is None
    assert (kubernetes.on_kubernetes.namespace, kubernetes.on_kubernetes.store_claim) == ("tidemill", "tidemill-store")


def test_a_target_is_found_by_name_path_or_bare_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_target("vertex") == TargetConfig(kind="vertex")
    with pytest.raises(
        UsageError, match=r"expected targets/prod.yaml, .* kubernetes or vertex \(got targets/ has none\)"
    ):
        load_target("prod")
    Path("targets").mkdir()
    Path("targets/production.yaml").write_text("kind: kubernetes\n")
    Path("targets/vertex.yaml").write_text("kind: vertex\npipeline_root: gs://b\n")
    assert load_target("production").kind == "kubernetes"
    assert load_target("vertex").pipeline_root == "gs://b"  # a file of that name comes before the bare kind
    assert load_target(str(tmp_path / "targets" / "production.yaml")).kind == "kubernetes"
    with pytest.raises(UsageError, match="targets/ has production, vertex"):
        load_target("prod")
    with pytest.raises(UsageError, match=r"expected none\.yaml"):
        load_target("none.yaml")


@pytest.mark.parametrize("text", ["", "- a", "kind: [", "kind: vertex\nkind: vertex"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"t\.yaml"):
        parse_target(text, "t.yaml")


def test_time_zones_are_those_of_the_iana_database() -> None:
    assert time_zone("Europe/Berlin").key == "Europe/Berlin"
    for faulty in ("Berlin", "CEST", "../etc/passwd", ""):
        with pytest.raises(UsageError, match="IANA"):
            time_zone(faulty)


def test_a_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_bytes(b"kind: vertex # \xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_target(str(tmp_path / "t.yaml"))
