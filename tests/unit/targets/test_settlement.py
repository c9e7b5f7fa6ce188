"""What a target's file says of a stage stands on its task in the compiled pipeline."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl

from tidemill_pipelines.pipelines import load_pipeline
from tidemill_pipelines.targets.config import ConfigError, parse_target
from tidemill_pipelines.targets.settlement import Settlement, machine_size, settled

STAGES = """
defaults: {cpu: 2, memory: 8G, retries: {count: 2, backoff_s: 10, factor: 3, max_backoff_s: 60}}
stages:
  train:
    machine: n2-standard-8
    accelerator: {type: nvidia.com/gpu, count: 2, node: {gpu: t4}}
    spot: true
    timeout_s: 60
  ingest: {cache: false}
"""


def compiled(kind: str, text: str, tmp_path: Path) -> list[dict[str, Any]]:
    target = parse_target(f"kind: {kind}\n{text}", "target.yaml")
    plain = load_pipeline("training")
    settlement = Settlement(target, lambda name: f"registry.example.com/{name}", "lending", "training", "/runs")
    made = dsl.pipeline(name="lending-training")(settled(plain, settlement))
    compiler.Compiler().compile(made, str(tmp_path / "package.yaml"))
    return list(yaml.safe_load_all((tmp_path / "package.yaml").read_text()))


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory) -> list[dict[str, Any]]:
    more = "labels: {team: risk}\nkubernetes: {image_pull_secrets: [pull]}\n"
    return compiled("kubernetes", STAGES + more, tmp_path_factory.mktemp("kubernetes"))


@pytest.fixture(scope="module")
def vertex(tmp_path_factory) -> list[dict[str, Any]]:
    return compiled("vertex", STAGES, tmp_path_factory.mktemp("vertex"))


def container(documents: list[dict[str, Any]], executor: str) -> dict[str, Any]:
    return documents[0]["deploymentSpec"]["executors"][executor]["container"]


def environment(documents: list[dict[str, Any]], executor: str) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container(documents, executor)["env"]}


def tasks(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]


def test_every_image_is_the_targets(vertex):
    executors = vertex[0]["deploymentSpec"]["executors"].values()
    images = [executor["container"]["image"] for executor in executors if "container" in executor]
    assert len(images) == 14
    assert all(image.startswith("registry.example.com/tidemill/") for image in images)


def test_every_task_knows_its_name_its_image_and_where_to_record(vertex):
    told = environment(vertex, "exec-gate-2")
    assert told["TIDEMILL_TASK"] == "model-gate"
    assert told["TIDEMILL_IMAGE"] == container(vertex, "exec-gate-2")["image"]
    assert told["TIDEMILL_RUNS"] == "/runs"


def test_the_report_is_told_what_was_to_run(vertex):
    plan = json.loads(environment(vertex, "exec-report")["TIDEMILL_PLAN"])
    assert (plan["problem"], plan["pipeline"], plan["target"]) == ("lending", "training", "vertex")
    assert {"data-gate", "model-gate", "serving-gate", "deploy"} < set(plan["stages"])
    assert not [stage for stage in plan["stages"] if stage.startswith("importer")]


def test_a_machine_is_its_size_on_vertex_and_its_nodes_on_kubernetes(vertex, kubernetes):
    resources = container(vertex, "exec-train")["resources"]
    assert (resources["cpuLimit"], resources["memoryLimit"]) == (8.0, 32.0)
    nodes = kubernetes[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]["nodeSelector"]
    assert nodes["labels"]["node.kubernetes.io/instance-type"] == "n2-standard-8"
    assert "cpuLimit" not in container(kubernetes, "exec-train")["resources"]


def test_a_stage_without_its_own_size_has_the_default_one(vertex):
    resources = container(vertex, "exec-evaluate")["resources"]
    assert (resources["cpuLimit"], resources["memoryLimit"]) == (2.0, 8.0)


def test_accelerators_are_asked_for(vertex, kubernetes):
    for documents in (vertex, kubernetes):
        accelerator = container(documents, "exec-train")["resources"]["accelerator"]
        assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "2")


def test_spot_and_accelerators_choose_and_tolerate_their_nodes(kubernetes):
    platform = kubernetes[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]
    assert platform["nodeSelector"]["labels"]["cloud.google.com/gke-spot"] == "true"
    assert platform["nodeSelector"]["labels"]["gpu"] == "t4"
    assert {t["key"] for t in platform["tolerations"]} == {"cloud.google.com/gke-spot", "nvidia.com/gpu"}


def test_retries_pause_ever_longer(vertex):
    assert tasks(vertex)["train"]["retryPolicy"] == {
        "maxRetryCount": 2,
        "backoffDuration": "10s",
        "backoffFactor": 3.0,
        "backoffMaxDuration": "60s",
    }


def test_on_kfp_the_tries_have_time_whatever_the_pause(kubernetes):
    """KFP makes Argo's maxDuration, which counts the tries as well, of what is called the longest pause."""
    assert tasks(kubernetes)["train"]["retryPolicy"]["backoffMaxDuration"] == "604800s"


def test_a_gate_is_never_asked_again(vertex, kubernetes):
    for documents in (vertex, kubernetes):
        assert not any("retryPolicy" in tasks(documents)[name] for name in ("gate", "gate-2", "gate-3"))


def test_a_stage_with_an_accelerator_gets_the_image_that_can_use_it(vertex, tmp_path):
    assert "/tensorflow-gpu:" in container(vertex, "exec-train")["image"]
    assert "/tensorflow:" in container(vertex, "exec-transform")["image"]
    tpu = compiled("vertex", "stages: {train: {accelerator: {type: TPU_V5_LITEPOD, count: 4}}}", tmp_path)
    assert "/tensorflow-tpu:" in container(tpu, "exec-train")["image"]


def test_tpus_are_for_training_alone():
    with pytest.raises(ConfigError, match="only train runs on TPUs, not evaluate"):
        parse_target("kind: vertex\nstages: {evaluate: {accelerator: {type: TPU_V5_LITEPOD}}}", "target.yaml")


def test_caching_can_be_turned_off_and_not_on_for_what_is_never_cached(vertex):
    caches = {name: task.get("cachingOptions", {}).get("enableCache", False) for name, task in tasks(vertex).items()}
    assert caches["train"]
    assert not any(caches[name] for name in ("ingest", "locate", "find-champion", "register", "deploy", "gate"))


def test_vertex_gets_one_document_and_kubernetes_two(vertex, kubernetes):
    assert (len(vertex), len(kubernetes)) == (1, 2)


def test_every_task_on_kubernetes_is_confined_and_has_the_store(kubernetes):
    executors = kubernetes[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(executors) == 14
    for name, platform in executors.items():
        assert platform["securityContext"] == {"runAsUser": "65532", "runAsGroup": "65532", "runAsNonRoot": True}, name
        assert platform["pvcMount"][0]["mountPath"] == "/tidemill", name
        assert platform["emptyDirMounts"][0]["mountPath"] == "/tmp", name
        assert platform["podMetadata"]["labels"] == {"team": "risk"}, name
        assert platform["imagePullSecret"][0]["secretName"] == "pull", name
        assert platform["fieldPathAsEnv"][0]["fieldPath"] == "metadata.labels['pipeline/runid']", name
    assert executors["exec-train"]["activeDeadlineSeconds"] == "60"


@pytest.mark.parametrize(
    ("machine", "size"),
    [
        ("n1-standard-4", (4, 15.0)),
        ("n1-highmem-2", (2, 13.0)),
        ("e2-highcpu-16", (16, 16)),
        ("c3-highcpu-8", (8, 16)),
        ("c2-standard-8", (8, 32)),
        ("c2-highmem-8", None),
        ("a2-highgpu-1g", None),
        ("large", None),
    ],
)
def test_the_size_of_a_machine_is_told_by_its_name(machine, size):
    assert machine_size(machine) == size


def test_only_the_runs_of_a_loop_are_told_that_there_are_several(tmp_path):
    target = parse_target(f"kind: vertex\n{STAGES}", "target.yaml")
    settlement = Settlement(target, lambda name: f"registry.example.com/{name}", "lending", "tuning", "/runs")
    made = dsl.pipeline(name="lending-tuning")(settled(load_pipeline("tuning"), settlement))
    compiler.Compiler().compile(made, str(tmp_path / "package.yaml"))
    documents = list(yaml.safe_load_all((tmp_path / "package.yaml").read_text()))
    executors = documents[0]["deploymentSpec"]["executors"]
    told = {
        name for name, e in executors.items() if "container" in e and "TIDEMILL_LOOPED" in environment(documents, name)
    }
    assert told == {"exec-trial", "exec-trial-2"}
