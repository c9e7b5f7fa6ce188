"""KFP's own backend compiler takes every pipeline, and nothing that a task was given is lost on the way to its driver.

The compiler is that of KFP 2.0.5, the newest that Go's proxy serves. Of what KFP can do today it lacks one thing that
our pipelines use: the input of an exit task that tells it how the run ended (since June 2025). `without_final_status`
takes that input out, and a test sees to it that nothing else has to be.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from argo_compiler import Refused, compile_workflow
from google.protobuf import json_format
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from kfp.kubernetes import kubernetes_executor_config_pb2
from schemas import strict
from workflows import EVERYTHING, DriverTask, driver_tasks, pods, runtime_parameters

from tidemill_pipelines.pipelines import PIPELINES
from tidemill_pipelines.targets.compilation import Package

Document = dict[str, Any]
KUBERNETES_VERSION = "1.31"
every = pytest.mark.parametrize("name", [*PIPELINES, EVERYTHING])
pytestmark = pytest.mark.timeout(900)  # the first test may have to build the compiler


def dags(spec: Document) -> Iterator[Document]:
    for component in (spec["root"], *spec["components"].values()):
        if "dag" in component:
            yield component["dag"]["tasks"]


def tasks(spec: Document) -> dict[str, Document]:
    return {name: task for dag in dags(spec) for name, task in dag.items()}


def executor_of(spec: Document, task: Document) -> str | None:
    label: str | None = spec["components"][task["componentRef"]["name"]].get("executorLabel")
    return label


def container_of(spec: Document, task: Document) -> Document | None:
    label = executor_of(spec, task)
    return None if label is None else spec["deploymentSpec"]["executors"][label].get("container")


def without_final_status(documents: list[Document]) -> list[Document]:
    changed = copy.deepcopy(documents)
    for task in tasks(changed[0]).values():
        given = task.get("inputs", {}).get("parameters", {})
        for name in [name for name, value in given.items() if "taskFinalStatus" in value]:
            del given[name]
        if not given:
            task.get("inputs", {}).pop("parameters", None)
    return changed


def written(documents: list[Document]) -> str:
    return yaml.dump_all(documents, Dumper=yaml.CSafeDumper)


@pytest.fixture(scope="module")
def documents(packages: dict[str, Package]) -> dict[str, list[Document]]:
    return {name: without_final_status(package.documents) for name, package in packages.items()}


@pytest.fixture(scope="module")
def workflows(argo: Path, documents: dict[str, list[Document]]) -> dict[str, Document]:
    return {name: compile_workflow(argo, written(made)) for name, made in documents.items()}


@pytest.fixture(scope="module")
def told(workflows: dict[str, Document]) -> dict[str, dict[str, DriverTask]]:
    return {name: driver_tasks(workflow) for name, workflow in workflows.items()}


@pytest.fixture(scope="module")
def validator(workflow_crd: Document) -> Draft202012Validator:
    (version,) = [v for v in workflow_crd["spec"]["versions"] if v["name"] == "v1alpha1"]
    return Draft202012Validator(strict(version["schema"]["openAPIV3Schema"], root=True))


@every
def test_the_final_status_is_all_that_the_old_compiler_lacks(
    argo: Path, packages: dict[str, Package], name: str
) -> None:
    spec = packages[name].spec
    told_how = [p for t in tasks(spec).values() for p in t.get("inputs", {}).get("parameters", {}).values()]
    if any("taskFinalStatus" in value for value in told_how):
        with pytest.raises(Refused, match=r"task final status not supported yet$"):
            compile_workflow(argo, packages[name].text)
    else:
        compile_workflow(argo, packages[name].text)


@every
def test_a_workflow_is_one_that_argo_knows(
    workflows: dict[str, Document], validator: Draft202012Validator, name: str
) -> None:
    validator.validate(workflows[name])


def test_a_misspelt_field_of_a_workflow_would_be_seen(
    workflows: dict[str, Document], validator: Draft202012Validator
) -> None:
    workflow = copy.deepcopy(workflows["training"])
    workflow["spec"]["serviceAcountName"] = workflow["spec"].pop("serviceAccountName")
    with pytest.raises(ValidationError, match="serviceAcountName"):
        validator.validate(workflow)


@every
def test_the_pods_of_a_workflow_are_ones_that_kubernetes_knows(workflows: dict[str, Document], name: str) -> None:
    made = list(pods(workflows[name]))
    assert {"system-container-driver", "system-container-impl"} <= {pod["metadata"]["name"] for pod in made}
    for pod in made:
        kubernetes_validate.validate(pod, KUBERNETES_VERSION, strict=True)


def test_a_misspelt_field_of_a_pod_would_be_seen(workflows: dict[str, Document]) -> None:
    pod = next(pods(workflows["training"]))
    pod["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(pod, KUBERNETES_VERSION, strict=True)


@every
def test_the_workflow_leaves_room_below_what_etcd_takes(workflows: dict[str, Document], name: str) -> None:
    """etcd takes 1.5 MiB, and while it runs Argo writes the state of every node into the same object."""
    assert len(yaml.dump(workflows[name], Dumper=yaml.CSafeDumper)) < 2**19


@every
def test_the_same_package_makes_the_same_workflow(
    argo: Path, documents: dict[str, list[Document]], workflows: dict[str, Document], name: str
) -> None:
    assert compile_workflow(argo, written(documents[name])) == workflows[name]


@every
def test_every_task_reaches_its_driver_as_it_was_compiled(
    documents: dict[str, list[Document]], told: dict[str, dict[str, DriverTask]], name: str
) -> None:
    """Names, inputs with their placeholders, caching, retries and triggers: the driver gets the task of the spec."""
    expected = tasks(documents[name][0])
    assert set(told[name]) == set(expected)
    for task_name, task in expected.items():
        arrived = dict(told[name][task_name].task)
        # The compiler adds the producers of a task's inputs to the tasks that it comes after.
        assert set(arrived.pop("dependentTasks", [])) >= set(task.get("dependentTasks", []))
        assert arrived == {key: value for key, value in task.items() if key != "dependentTasks"}, task_name


@every
def test_every_container_reaches_its_driver_as_it_was_compiled(
    documents: dict[str, list[Document]], told: dict[str, dict[str, DriverTask]], name: str
) -> None:
    """Image, command, environment, processors, memory and accelerators."""
    spec = documents[name][0]
    for task_name, task in tasks(spec).items():
        assert told[name][task_name].container == container_of(spec, task), task_name


@every
def test_every_task_gets_its_part_of_the_platform_spec(
    documents: dict[str, list[Document]], told: dict[str, dict[str, DriverTask]], name: str
) -> None:
    spec, platform = documents[name]
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for task_name, task in tasks(spec).items():
        assert told[name][task_name].kubernetes == executors.get(executor_of(spec, task)), task_name


@every
def test_a_task_waits_for_what_it_was_compiled_to_wait_for(
    documents: dict[str, list[Document]], told: dict[str, dict[str, DriverTask]], name: str
) -> None:
    for dag in dags(documents[name][0]):
        for task_name, task in dag.items():
            inputs = task.get("inputs", {})
            given = [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]
            sources = [value.get("taskOutputParameter") or value.get("taskOutputArtifact") for value in given]
            awaited = {source["producerTask"] for source in sources if source} | set(task.get("dependentTasks", []))
            if task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED":
                outcomes = ("Succeeded", "Skipped", "Failed", "Errored")
                expected = {f"{other}.{outcome}" for other in awaited for outcome in outcomes}
                assert set(told[name][task_name].after.split(" || ")) == expected, task_name
            else:
                expected = {f"{other}.Succeeded" for other in awaited}
                assert set(filter(None, told[name][task_name].after.split(" && "))) == expected, task_name


def test_the_report_is_written_whatever_the_run_came_to(told: dict[str, dict[str, DriverTask]]) -> None:
    report = told["training"]["report"]
    assert report.task["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert report.dag == "root"
    assert "exit-handler-1.Failed" in report.after


def test_what_a_target_says_of_training_is_what_the_backend_is_told(told: dict[str, dict[str, DriverTask]]) -> None:
    train = told["training"]["train"]
    assert train.container is not None
    assert train.kubernetes is not None
    assert train.container["image"] == "registry.example.com/team/tidemill/tensorflow-gpu:1"
    resources = train.container["resources"]
    assert resources["resourceCpuLimit"] == "8"
    assert resources["resourceMemoryLimit"] == "32Gi"
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["accelerator"]["resourceCount"] == "1"
    assert train.task["retryPolicy"]["maxRetryCount"] == 2
    assert train.task["retryPolicy"]["backoffDuration"] == "30s"
    assert train.task["cachingOptions"] == {}
    config = train.kubernetes
    assert config["activeDeadlineSeconds"] == "3600"
    assert config["nodeSelector"]["labels"]["cloud.google.com/gke-accelerator"] == "nvidia-l4"
    assert {(t.get("key"), t["operator"]) for t in config["tolerations"]} == {
        ("cloud.google.com/gke-spot", "Equal"),
        ("nvidia.com/gpu", "Exists"),
    }
    assert config["podMetadata"]["labels"] == {"team": "lending"}
    assert [secret["secretName"] for secret in config["imagePullSecret"]] == ["registry"]


def test_training_by_a_job_and_what_a_problem_adds_are_tasks_like_others(
    told: dict[str, dict[str, DriverTask]],
) -> None:
    given = told[EVERYTHING]
    assert given["train"].container is not None
    assert given["train"].container["image"] == "registry.example.com/team/tidemill/control:1"
    assert "champion" in given["train"].task["inputs"]["artifacts"]
    gates = [task for name, task in given.items() if name.startswith("gate")]
    assert [gate.after for gate in gates].count("compress.Succeeded") == 1


@every
def test_no_task_runs_as_root_or_without_the_store(told: dict[str, dict[str, DriverTask]], name: str) -> None:
    ours = {task: given for task, given in told[name].items() if given.container is not None}
    assert ours
    for task, given in ours.items():
        assert given.kubernetes is not None, task
        security = given.kubernetes["securityContext"]
        assert (security["runAsUser"], security["runAsNonRoot"]) == ("65532", True), task
        assert [(m["constant"], m["mountPath"]) for m in given.kubernetes["pvcMount"]] == [
            ("example-store", "/tidemill")
        ], task
        assert [m["mountPath"] for m in given.kubernetes["emptyDirMounts"]] == ["/tmp"], task
        assert {"name": "TIDEMILL_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"} in given.kubernetes[
            "fieldPathAsEnv"
        ], task


@every
def test_the_platform_spec_has_only_what_kfp_knows(documents: dict[str, list[Document]], name: str) -> None:
    """This compiler hands it on unread; later ones refuse what their executor configuration lacks."""
    executors = documents[name][1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for config in executors.values():
        json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    with pytest.raises(json_format.ParseError, match="emptyDirMount"):
        json_format.ParseDict({"emptyDirMount": []}, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_the_time_of_a_run_is_a_whole_constant_which_is_all_that_drivers_replace(
    told: dict[str, dict[str, DriverTask]],
) -> None:
    """KFP's driver replaces an input whose constant equals the placeholder; within a longer text it leaves it."""
    given = told["training"]["locate"].task["inputs"]["parameters"]
    constants = {name: value["runtimeValue"]["constant"] for name, value in given.items() if "runtimeValue" in value}
    assert constants["scheduled"] == "{{$.pipeline_job_schedule_time_utc}}"
    assert constants["created"] == "{{$.pipeline_job_create_time_utc}}"


def test_a_run_gets_the_defaults_and_what_it_was_given(argo: Path, documents: dict[str, list[Document]]) -> None:
    package = written(documents["training"])
    plain = runtime_parameters(compile_workflow(argo, package))
    assert plain["source"] == "s3://example-bucket/loans.csv"
    given = runtime_parameters(compile_workflow(argo, package, {"source": "s3://example-bucket/other.csv"}))
    assert given == {**plain, "source": "s3://example-bucket/other.csv"}


def _unknown_field(documents: list[Document]) -> None:
    documents[0]["root"]["dag"]["task"] = {}


def _unknown_platform_field(documents: list[Document]) -> None:
    documents[1]["platform"] = documents[1].pop("platforms")


def _other_platform(documents: list[Document]) -> None:
    documents[1]["platforms"]["elsewhere"] = documents[1]["platforms"].pop("kubernetes")


def _third_document(documents: list[Document]) -> None:
    documents.append({"platforms": {}})


def _no_name(documents: list[Document]) -> None:
    documents[0]["pipelineInfo"]["name"] = ""


def _custom_job(documents: list[Document]) -> None:
    documents[0]["deploymentSpec"]["executors"]["exec-train"] = {"customJob": {"customJob": {}}}


def _missing_component(documents: list[Document]) -> None:
    del documents[0]["components"]["comp-train"]


def _missing_executor(documents: list[Document]) -> None:
    del documents[0]["deploymentSpec"]["executors"]["exec-train"]


def _unknown_producer(documents: list[Document]) -> None:
    task = tasks(documents[0])["evaluate"]
    task["inputs"]["artifacts"]["model"]["taskOutputArtifact"]["producerTask"] = "trian"


def _artifact_iterator(documents: list[Document]) -> None:
    tasks(documents[0])["evaluate"]["artifactIterator"] = {"itemInput": "model", "items": {"inputArtifact": "model"}}


def _conditional_importer(documents: list[Document]) -> None:
    tasks(documents[0])["importer"]["triggerPolicy"] = {"condition": "true"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_unknown_field, 'pipeline spec: .*unknown field "task"'),
        (_unknown_platform_field, 'platform spec: .*unknown field "platform"'),
        (_other_platform, "platform spec: names no kubernetes"),
        (_third_document, r"expected one or two YAML documents \(got 3\)"),
        (_no_name, "pipelineInfo.name is empty"),
        (_custom_job, "non-container and non-importer executor not implemented"),
        (_missing_component, 'cannot find component ref name="comp-train"'),
        (_missing_executor, r'executor\(label="exec-train"\) not found'),
        (_unknown_producer, 'unknown producer task "trian"'),
        (_artifact_iterator, "artifact iterator not implemented yet"),
        (_conditional_importer, "triggerPolicy.condition on importer task is not supported"),
    ],
)
def test_what_the_backend_cannot_do_it_refuses(
    argo: Path, documents: dict[str, list[Document]], change: Callable[[list[Document]], None], reason: str
) -> None:
    changed = copy.deepcopy(documents["training"])
    change(changed)
    with pytest.raises(Refused, match=reason):
        compile_workflow(argo, written(changed))


def test_the_trials_of_a_round_are_a_loop_whose_results_the_next_round_gets_as_a_list(
    told: dict[str, dict[str, DriverTask]], documents: dict[str, list[Document]]
) -> None:
    loop = told["tuning"]["for-loop-3"].task
    items = loop["parameterIterator"]["items"]["inputParameter"]
    assert loop["inputs"]["parameters"][items] == {
        "taskOutputParameter": {"producerTask": "suggest-2", "outputParameterKey": "Output"}
    }
    assert loop["iteratorPolicy"] == {"parallelismLimit": 2}
    given = told["tuning"]["suggest-3"].task["inputs"]["artifacts"]["results"]["taskOutputArtifact"]
    assert given == {"producerTask": "for-loop-3", "outputArtifactKey": "pipelinechannel--trial-2-result"}
    results = documents["tuning"][0]["components"]["comp-suggest-3"]["inputDefinitions"]["artifacts"]["results"]
    assert results["isArtifactList"] is True
