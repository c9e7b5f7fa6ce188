"""What the train step makes stands on these manifests: valid, admitted, and ended as tidemill's exit codes say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pods import pods, violations
from references import EXTERNAL, unresolved
from schemas import Invalid, Schemas

from tidemill.errors import PlatformError, UserError
from tidemill.jobs.job import TrainingJob, job_name
from tidemill.trainjob.manifest import NODE, STORE, manifest
from tidemill.trainjob.settings import TrainJobSettings
from tidemill_pipelines.targets.config import parse_target
from tidemill_pipelines.targets.kubernetes.release import training_settings

Documents = list[dict[str, Any]]
GPU = "accelerator: {type: nvidia.com/gpu, count: 1, node: {cloud.google.com/gke-accelerator: nvidia-l4}}"
TPU = (
    "accelerator: {type: google.com/tpu, count: 8, node: "
    "{cloud.google.com/gke-tpu-accelerator: tpu-v5-lite-podslice, cloud.google.com/gke-tpu-topology: 2x4}}"
)
KINDS = {"overlays/prod": "workers: 3", "overlays/gpu": f"workers: 2\n  spot: true\n  {GPU}", "overlays/tpu": TPU}
OWNER = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "lending-x7k2p", "uid": "0b1c"}


def trainjob(training: str) -> dict[str, Any]:
    """Returns the TrainJob of a target whose `training` is as given."""
    target = parse_target(
        f"kind: kubernetes\nlabels: {{team: risk}}\ntraining:\n  kind: kubernetes\n  {training}\n", "target.yaml"
    )
    settings = TrainJobSettings.parse(training_settings(target, lambda name: f"registry.example.com/{name}"))
    job = TrainingJob(
        name=f"{job_name('5f0c2a9e-77c1-4b7e-9d3e-6f7b1d0f2a11', 'train')}-12",
        arguments=("--shared", "/tidemill/runs/5f0c/scratch/train"),
        workers=settings.workers,
        shared=Path("/tidemill/runs/5f0c/scratch/train"),
        environment={"TIDEMILL_COLOUR": "blue"},
        labels={"tidemill/run": "5f0c2a9e-77c1-4b7e-9d3e-6f7b1d0f2a11"},
    )
    return manifest(job, settings, OWNER)


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, rendered: dict[str, Documents]) -> tuple[dict[str, Any], Documents]:
    """A TrainJob and the overlay that it is for."""
    return trainjob(KINDS[request.param]), rendered[request.param]


def laid(job: dict[str, Any], runtime: dict[str, Any]) -> dict[str, Any]:
    """Returns the runtime with what the TrainJob says of its nodes, as Trainer's merge by keys makes it."""
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (patch,) = job["spec"]["runtimePatches"]
    (patched,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert patched["name"] == replicated["name"] == container["name"] == NODE
    own = patched["template"]["spec"]["template"]["spec"]
    volumes = {v["name"]: v for v in [*pod["volumes"], *own["volumes"]]}
    trainer = job["spec"]["trainer"]
    merged = {**container, "image": trainer["image"], "resources": trainer["resourcesPerNode"], "args": trainer["args"]}
    spec = {**pod, **own, "volumes": list(volumes.values()), "containers": [merged]}
    template = {**replicated["template"]["spec"]["template"], "spec": spec}
    inner = {**replicated["template"], "spec": {**replicated["template"]["spec"], "template": template}}
    jobset = {**runtime["spec"]["template"]["spec"], "replicatedJobs": [{**replicated, "template": inner}]}
    return {**runtime, "spec": {**runtime["spec"], "template": {"spec": jobset}}}


def runtime_of(job: dict[str, Any], overlay: Documents) -> dict[str, Any]:
    name = job["spec"]["runtimeRef"]["name"]
    (runtime,) = (d for d in overlay if d["kind"] == "TrainingRuntime" and d["metadata"]["name"] == name)
    return runtime


def test_it_is_valid(made: tuple[dict[str, Any], Documents], schemas: Schemas) -> None:
    schemas.validate(made[0])


def test_a_field_of_another_release_of_trainer_is_refused(schemas: Schemas) -> None:
    """What 2.1 called podTemplateOverrides a cluster would drop, and with it the nodes."""
    job = trainjob(KINDS["overlays/gpu"])
    job["spec"]["podTemplateOverrides"] = job["spec"].pop("runtimePatches")
    with pytest.raises(Invalid, match="podTemplateOverrides"):
        schemas.validate(job)


def test_what_trainer_makes_of_it_is_valid_and_restricted(
    made: tuple[dict[str, Any], Documents], schemas: Schemas
) -> None:
    job, overlay = made
    runtime = laid(job, runtime_of(job, overlay))
    schemas.validate(runtime)
    (pod,) = pods([runtime])
    assert violations(pod) == []


def test_it_changes_no_volume_that_the_runtime_has_not(made: tuple[dict[str, Any], Documents]) -> None:
    job, overlay = made
    before = runtime_of(job, overlay)["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    names = [volume["name"] for volume in before["template"]["spec"]["volumes"]]
    assert STORE in names
    after = laid(job, runtime_of(job, overlay))["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert [volume["name"] for volume in after["template"]["spec"]["volumes"]] == names


def test_its_claim_is_mounted_where_the_steps_have_it(made: tuple[dict[str, Any], Documents]) -> None:
    from tidemill_pipelines.targets.compilation import STORE as MOUNT

    job, overlay = made
    (pod,) = pods([laid(job, runtime_of(job, overlay))])
    (container,) = pod.containers
    assert {m["name"]: m["mountPath"] for m in container["volumeMounts"]}[STORE] == MOUNT
    assert all(Path(MOUNT) in Path(word).parents for word in job["spec"]["trainer"]["args"] if word.startswith("/"))


def test_every_name_in_it_resolves(made: tuple[dict[str, Any], Documents], rendered: dict[str, Documents]) -> None:
    job, overlay = made
    assert unresolved([job, *overlay, *rendered["cluster"]]) <= EXTERNAL


def test_its_queue_is_there_and_covers_what_it_asks_for(
    made: tuple[dict[str, Any], Documents], rendered: dict[str, Documents]
) -> None:
    job, overlay = made
    (local,) = (d for d in overlay if d["kind"] == "LocalQueue")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]
    (queue,) = (d for d in rendered["cluster"] if d["kind"] == "ClusterQueue")
    covered = {name for group in queue["spec"]["resourceGroups"] for name in group["coveredResources"]}
    assert set(job["spec"]["trainer"]["resourcesPerNode"]["requests"]) <= covered


def test_nodes_are_chosen_as_the_queues_flavours_choose_them(rendered: dict[str, Documents]) -> None:
    """A job that wants other nodes than its flavour has would be admitted, and never start."""
    flavours = {d["metadata"]["name"]: d.get("spec", {}) for d in rendered["cluster"] if d["kind"] == "ResourceFlavor"}
    for overlay, name in (("overlays/gpu", "tidemill-gpu"), ("overlays/tpu", "tidemill-tpu")):
        (patch,) = trainjob(KINDS[overlay])["spec"]["runtimePatches"]
        (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        spec = replicated["template"]["spec"]["template"]["spec"]
        assert flavours[name]["nodeLabels"].items() <= spec["nodeSelector"].items()
        for toleration in flavours[name]["tolerations"]:
            assert toleration in spec["tolerations"]


def test_spot_nodes_are_chosen_and_tolerated() -> None:
    (patch,) = trainjob(KINDS["overlays/gpu"])["spec"]["runtimePatches"]
    spec = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert spec["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert {t["key"] for t in spec["tolerations"]} == {"cloud.google.com/gke-spot", "nvidia.com/gpu"}


def test_it_asks_for_the_scratch_space_of_the_runtime(made: tuple[dict[str, Any], Documents]) -> None:
    """A TrainJob's resources take the place of the runtime's whole."""
    job, overlay = made
    (pod,) = pods([runtime_of(job, overlay)])
    (container,) = pod.containers
    for bound, amounts in job["spec"]["trainer"]["resourcesPerNode"].items():
        assert amounts["ephemeral-storage"] == container["resources"][bound]["ephemeral-storage"]


def test_the_longest_name_of_a_pod_fits(made: tuple[dict[str, Any], Documents]) -> None:
    name = made[0]["metadata"]["name"]
    assert len(f"{name}-{NODE}-0-99-abcde") <= 63
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), "JobSet makes services of it"


def test_the_account_of_the_step_may_make_it(rendered: dict[str, Documents]) -> None:
    (role,) = (
        d for d in rendered["overlays/prod"] if d["kind"] == "Role" and d["metadata"]["name"] == "tidemill-pipeline"
    )
    granted = {(r["apiGroups"][0], resource): set(r["verbs"]) for r in role["rules"] for resource in r["resources"]}
    assert granted["trainer.kubeflow.org", "trainjobs"] == {"get", "create", "delete"}
    assert granted["", "pods/log"] == {"get"}
    assert granted["", "pods"] >= {"list"}
    assert granted["argoproj.io", "workflows"] >= {"get"}


EXITED = "Container node for pod tidemill/j-node-0-1-x2k4p failed with exit code {} matching FailJob rule at index 0"
TAKEN = "Pod tidemill/j-node-0-1-x2k4p has condition DisruptionTarget matching FailJob rule at index 1"


def answer(runtime: dict[str, Any], code: int, taken: bool = False) -> str:
    """Returns what JobSet does when a node ends so, by what Kubernetes' Job controller says of it.

    Source: the messages of the Job controller's `matchPodFailurePolicy`; JobSet's `findFirstFailedPolicyRuleAndJob`.
    """
    spec = runtime["spec"]["template"]["spec"]
    rules = spec["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    for rule in rules:
        codes = rule.get("onExitCodes")
        if codes and codes["operator"] == "In" and code in codes["values"]:
            reason, message = "PodFailurePolicy", EXITED.format(code)
            break
        if taken and any(c["type"] == "DisruptionTarget" for c in rule.get("onPodConditions", ())):
            reason, message = "PodFailurePolicy", TAKEN
            break
    for rule in spec["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return str(rule["action"])
    return "RestartJobSet"


@pytest.mark.parametrize("overlay", KINDS)
def test_nodes_start_again_unless_it_is_the_users_fault(rendered: dict[str, Documents], overlay: str) -> None:
    for runtime in (d for d in rendered[overlay] if d["kind"] == "TrainingRuntime"):
        assert answer(runtime, UserError.exit_code) == "FailJobSet"
        assert answer(runtime, PlatformError.exit_code) == "RestartJobSetAndIgnoreMaxRestarts"
        assert answer(runtime, 1) == "RestartJobSet", "counts: a defect"
        assert answer(runtime, 137) == "RestartJobSet"
        assert answer(runtime, 137, taken=True) == "RestartJobSetAndIgnoreMaxRestarts"
        spec = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
        assert spec["template"]["spec"]["restartPolicy"] == "Never", "Kubernetes wants that of a podFailurePolicy"


@pytest.mark.parametrize("overlay", KINDS)
def test_jobsets_webhook_takes_the_rules_names(rendered: dict[str, Documents], overlay: str) -> None:
    """It refuses others, and with them every JobSet that Trainer makes of the runtime; the CRD only describes them."""
    for runtime in (d for d in rendered[overlay] if d["kind"] == "TrainingRuntime"):
        for rule in runtime["spec"]["template"]["spec"]["failurePolicy"]["rules"]:
            assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"]), rule["name"]


def test_the_example_is_made_as_the_step_makes_jobs(rendered: dict[str, Documents]) -> None:
    (example,) = (d for d in rendered["examples/training"] if d["kind"] == "TrainJob")
    made = trainjob("workers: 2")
    assert example["apiVersion"] == made["apiVersion"]
    assert example["spec"]["runtimeRef"] == made["spec"]["runtimeRef"]
    assert set(example["spec"]) <= set(made["spec"])
