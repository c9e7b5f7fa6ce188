"""Every check finds what it is for, in a package that differs from a clean one in that alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tidemill.errors import UsageError
from tidemill_pipelines.targets.checking import sizes
from tidemill_pipelines.targets.checking.findings import Finding
from tidemill_pipelines.targets.checking.subject import Plan, Subject
from tidemill_pipelines.targets.checking.table import CHECKS, documentation, findings
from tidemill_pipelines.targets.compilation import ImagesFile
from tidemill_pipelines.targets.config import KINDS

V, K = "vertex", "kubernetes"
Sample = Any  # conftest's class, which importlib's mode gives no name to import by
Break = Callable[[Sample], Subject]


SMALL: Final = {"cpu": 1, "memory": "2Gi"}
GPU: Final = {"type": "nvidia.com/gpu", "node": {"cloud.google.com/gke-accelerator": "nvidia-l4"}}
NEEDS: Final = ("training-needs",)


class Case(NamedTuple):
    """A way to break the clean package.

    Attributes:
        task: that the finding names; None for the package as a whole.
        cure: what the finding's cure says.
        along: ids of other checks that find the same fault from their side.
    """

    id: str
    kind: str
    broken: Break
    task: str | None
    cure: str
    along: tuple[str, ...] = ()


def change(where: Callable[[Sample], dict[str, Any]], **values: Any) -> Break:
    """Sets keys of a part of the package."""

    def broken(sample: Sample) -> Subject:
        where(sample).update(values)
        return sample.subject()

    return broken


def target(**settings: Any) -> Break:
    """Compiles for the example and checks against another target."""
    return lambda sample: sample.subject(settings)


def train(**values: Any) -> Break:
    return change(lambda s: s.resources("train"), **values)


def platform(**values: Any) -> Break:
    return change(lambda s: s.platform("train"), **values)


def parameter(name: str, value: Any) -> Break:
    def broken(sample: Sample) -> Subject:
        sample.parameter(name, value)
        return sample.subject()

    return broken


def retry(task: str, **policy: Any) -> Break:
    return change(lambda s: s.group[task].setdefault("retryPolicy", {}), **policy)


def image(reference: str) -> Break:
    return change(lambda s: s.container("train"), image=reference)


def planned(*plan: Any) -> Break:
    return lambda sample: sample.subject(plan=Plan(*plan))


def accelerated(kind: str, count: str = "1", environment: str | None = None, **sizes: Any) -> Break:
    def broken(sample: Sample) -> Subject:
        asked = {"accelerator": {"type": kind, "resourceType": kind, "count": count, "resourceCount": count}}
        sample.resources("train").update(asked | sizes)
        if environment:
            container = sample.container("train")
            container["image"] = container["image"].replace("/tensorflow@", f"/{environment}@")
        return sample.subject()

    return broken


def of_gpu(kind: str, count: str = "1") -> Break:
    return accelerated(kind, count, "tensorflow-gpu")


def without_size(sample: Sample) -> Subject:
    for key in ("cpuLimit", "memoryLimit", "resourceCpuLimit", "resourceMemoryLimit"):
        del sample.resources("train")[key]
    return sample.subject()


def without_size_and_gpu(sample: Sample) -> Subject:
    of_gpu("NVIDIA_L4")(sample)
    return without_size(sample)


def half(sample: Sample) -> Subject:
    for key in ("memoryLimit", "resourceMemoryLimit"):
        del sample.resources("train")[key]
    return sample.subject()


def by_job(
    stage: Mapping[str, Any] = SMALL, timeout: int = 180_000, tried_once: bool = False, kind: str = K, **training: Any
) -> Break:
    """Trains on machines of its own, which the task watches.

    Args:
        stage: what `stages.train` says.
        timeout: of a try, in seconds.
    """

    def broken(sample: Sample) -> Subject:
        limits = {"resourceCpuLimit": str(stage["cpu"]), "resourceMemoryLimit": stage["memory"]}
        sample.resources("train").update(limits)
        if kind == K:
            sample.platform("train")["activeDeadlineSeconds"] = str(timeout)
        if tried_once:
            sample.group["train"].pop("retryPolicy")
        return sample.subject({"stages": {"train": dict(stage)}, "training": {"kind": kind, **training}})

    return broken


def third_document(sample: Sample) -> Subject:
    sample.documents.append({"platforms": {"kubernetes": {}}})
    return sample.subject()


def misspelt_platform(sample: Sample) -> Subject:
    sample.documents[1]["platforms"]["kubernets"] = sample.documents[1]["platforms"].pop("kubernetes")
    return sample.subject({"stages": None, "defaults": {}})


def other_platform(sample: Sample) -> Subject:
    sample.documents[1]["platforms"]["openshift"] = {}
    return sample.subject()


def renamed_task(sample: Sample) -> Subject:
    sample.group["t" * 120] = sample.group.pop("locate")
    return sample.subject()


def alone(sample: Sample) -> Subject:
    tasks = sample.spec["root"]["dag"]["tasks"]
    tasks["report"].pop("dependentTasks")
    del tasks["exit-handler-1"]
    return sample.subject()


def executor(kind: str) -> Break:
    def broken(sample: Sample) -> Subject:
        executors = sample.spec["deploymentSpec"]["executors"]
        executors["exec-train"] = {kind: {}}
        sample.platform("train").clear() if sample.kind == K else None
        return sample.subject()

    return broken


def twin(sample: Sample) -> Subject:
    """A second component with the container of the first and another interface."""
    executors, components = sample.spec["deploymentSpec"]["executors"], sample.spec["components"]
    executors["exec-gate-2"]["container"] = copy.deepcopy(executors["exec-gate"]["container"])
    components["comp-gate-2"]["inputDefinitions"]["parameters"] = {"limit": {"parameterType": "STRING"}}
    return sample.subject()


def importer(sample: Sample) -> dict[str, Any]:
    return sample.group["importer"]


def metadata(sample: Sample) -> Subject:
    sample.spec["deploymentSpec"]["executors"]["exec-importer"]["importer"]["metadata"] = {"notes": "x" * 200_000}
    return sample.subject()


def collected(sample: Sample) -> Subject:
    items = json.dumps(list(range(101)))
    sample.group["ingest"]["parameterIterator"] = {"itemInput": "i", "items": {"raw": items}}
    return sample.subject()


def constant(value: str) -> Break:
    def broken(sample: Sample) -> Subject:
        parameters = sample.group["train"]["inputs"].setdefault("parameters", {})
        parameters["api_key"] = {"runtimeValue": {"constant": value}}
        return sample.subject()

    return broken


def variable(name: str, value: str) -> Break:
    def broken(sample: Sample) -> Subject:
        sample.container("train")["env"].append({"name": name, "value": value})
        return sample.subject()

    return broken


def labelled(**labels: str) -> Break:
    return lambda sample: sample.subject(labels=labels)


def other_images(sample: Sample) -> Subject:
    return sample.subject(images=ImagesFile("0.1.0", "", "", {"control": "registry.example.com/control@sha256:0"}))


def command(text: str) -> Break:
    return change(lambda s: s.container("train"), command=["sh", "-c", text])


def large(number: int) -> Break:
    """Many components of ten thousand bytes each."""

    def broken(sample: Sample) -> Subject:
        component = sample.spec["components"]["comp-train"]
        for i in range(number):
            sample.spec["components"][f"comp-more-{i}"] = {**component, "notes": "x" * 10_000}
        return sample.subject()

    return broken


def uncached(sample: Sample) -> Subject:
    sample.group["register"]["cachingOptions"] = {"enableCache": True}
    return sample.subject()


KEY = "AIza" + "Sy0123456789" * 2 + "abcdefghijk"
LONG = "x" * 10_001
CASES = [
    Case("second-document", V, platform(), None, "compile for this target"),
    Case("unknown-document", K, third_document, None, "compile for this target"),
    Case("unknown-document", K, misspelt_platform, None, "compile for this target", ("other-platform",)),
    Case("schema-version", K, change(lambda s: s.spec, schemaVersion="2.0.0"), None, "SDK 2.x"),
    Case("pipeline-name", K, change(lambda s: s.spec["pipelineInfo"], name="Lending"), None, "a-z"),
    Case("pipeline-name", V, change(lambda s: s.spec["pipelineInfo"], name="l" * 114), None, "shorten"),
    Case("task-name-too-long", K, renamed_task, "locate", "shorten"),
    Case("task-alone", K, alone, None, "one more task"),
    Case("custom-job", K, executor("customJob"), "train", "with a container"),
    Case("resolver", V, executor("resolver"), "train", "find_champion"),
    Case("conditional-importer", K, change(importer, triggerPolicy={"condition": "1 == 1"}), "importer", "outside"),
    Case("artifact-iterator", K, change(importer, artifactIterator={}), "importer", "over parameters"),
    Case("shared-container", K, twin, "model-gate", "environment variable"),
    Case("platform-feature", V, platform(pvcMount=[]), "train", "/gcs", ("second-document",)),
    Case("platform-feature", V, platform(secretAsEnv=[]), "train", "Secret Manager", ("second-document",)),
    Case("platform-feature", V, platform(noSuch=[]), "train", "leave it out", ("second-document",)),
    Case("unknown-feature", K, platform(nodeSelectors={}), "train", "did you mean nodeSelector?"),
    Case("unknown-feature", K, platform(runtimeClass="x"), "train", "leave it out"),
    Case("unread-feature", K, platform(enabledSharedMemory={"size": "1Gi"}), "train", "empty_dir_mount"),
    Case("unread-feature", K, platform(podAffinity=[]), "train", "node affinity"),
    Case("other-platform", K, other_platform, None, "compile for this target"),
    Case("pull-policy", K, platform(imagePullPolicy="Sometimes"), "train", "Always"),
    Case("runs-as-root", K, platform(securityContext={"runAsUser": "0"}), "train", "65532"),
    Case("host-access", K, platform(pvcMount=[{"hostPath": "/"}]), "train", "volume claim"),
    Case("root-missing", V, target(pipeline_root=None), None, "gs://"),
    Case("root-missing", K, target(pipeline_root=None), None, "s3://"),
    Case("root-scheme", V, target(pipeline_root="s3://b/r"), None, "gs://BUCKET", ("compiled-elsewhere",)),
    Case("root-scheme", K, target(pipeline_root="/data"), None, "minio://", ("compiled-elsewhere",)),
    Case("compiled-elsewhere", V, target(pipeline_root="gs://other/root"), None, "compile again"),
    Case("source-local", V, parameter("source", "loans.csv"), None, "--source gs://"),
    Case("source-local", K, parameter("source", "/gone/loans.csv"), None, "--source"),
    Case("project-missing", V, target(vertex={"region": "europe-west1"}), None, "target's file"),
    Case("host-missing", K, target(kubernetes={}), None, "https://"),
    Case("service-account-missing", V, target(service_account=None), None, "make one"),
    Case("service-account-missing", K, target(service_account=None), None, "make one"),
    Case("service-account-name", V, target(service_account="tidemill"), None, "iam.gserviceaccount.com"),
    Case("service-account-name", K, target(service_account="a@b.c"), None, "ServiceAccount"),
    Case(
        "network-name",
        V,
        target(vertex={"project": "p", "region": "r", "network": "projects/p/global/networks/n"}),
        None,
        "<number>",
    ),
    Case("key-name", V, target(vertex={"project": "p", "region": "r", "cmek_key": "key"}), None, "cryptoKeys"),
    Case(
        "key-name",
        V,
        target(vertex={"project": "p", "region": "r", "cmek_key": "projects/p/locations/q/keyRings/k/cryptoKeys/k"}),
        None,
        "run's region",
    ),
    Case("image-mutable", V, image("registry.example.com/tensorflow:latest"), "train", "--images"),
    Case("image-mutable", K, image("registry.example.com:5000/tensorflow"), "train", "--images"),
    Case("image-not-pinned", K, image("registry.example.com/tensorflow:0.1.0"), "train", "make images"),
    Case("image-without-registry", V, image("tidemill/tensorflow@sha256:" + "0" * 64), "train", "images.registry"),
    Case("image-digest", K, image("registry.example.com/t:1@sha256:abc"), "train", "--images", ("image-not-pinned",)),
    Case("image-other", K, other_images, "train", "compile again"),
    Case("request-ignored", V, train(resourceCpuRequest="1"), "train", "limits"),
    Case("limit-by-parameter", V, train(resourceCpuLimit="{{$.inputs.parameters['cpu']}}"), "train", "constant"),
    Case("limit-too-large", V, train(resourceCpuLimit="97"), "train", "at most 96"),
    Case("limit-too-large", V, train(resourceMemoryLimit="582Gi"), "train", "624G"),
    Case("machine-by-default", V, without_size, "train", "defaults"),
    Case("half-a-size", V, half, "train", "`memory`"),
    Case("resources-missing", K, without_size, "train", "defaults"),
    Case("quantity", K, train(resourceMemoryLimit="16 GB"), "train", "16Gi"),
    Case("machine-unknown", V, target(defaults={"machine": "x9-huge-2"}), "ingest", "`cpu` and `memory`"),
    Case("spot-ignored", V, target(defaults={"spot": True}), "train", "custom job"),
    Case("timeout-ignored", V, target(defaults={"timeout_s": 60}), "train", "--timeout"),
    Case("accelerator-unknown", V, of_gpu("nvidia-tesla-t4"), "train", "NVIDIA_TESLA_T4"),
    Case("accelerator-unknown", V, of_gpu("NVIDIA_TESLA_K80"), "train", "NVIDIA"),
    Case("accelerator-unknown", V, accelerated("TPU_V6E", "1", "tensorflow-tpu"), "train", "TPU"),
    Case("accelerator-unknown", V, of_gpu("FPGA"), "train", "use one of"),
    Case("accelerator-count", V, of_gpu("NVIDIA_TESLA_T4", "3"), "train", "1, 2, 4", ("accelerator-quota",)),
    Case(
        "accelerator-count",
        V,
        accelerated("TPU_V3", "4", "tensorflow-tpu"),
        "train",
        "ask for 8",
        ("accelerator-quota",),
    ),
    Case("accelerator-quota", V, of_gpu("NVIDIA_L4", "2"), "train", "Quotas"),
    Case(
        "accelerator-without-size",
        V,
        without_size_and_gpu,
        "train",
        "`cpu` and `memory`",
        ("accelerator-quota", "machine-by-default"),
    ),
    Case("accelerator-resource", K, of_gpu("NVIDIA_TESLA_T4"), "train", "nvidia.com/gpu"),
    Case("accelerator-image", K, accelerated("nvidia.com/gpu"), "train", "tensorflow-gpu"),
    Case("accelerator-image", K, accelerated("google.com/tpu", "4", "tensorflow-gpu"), "train", "tensorflow-tpu"),
    Case(
        "accelerator-image",
        V,
        accelerated("NVIDIA_L4", "1", "serving"),
        "train",
        "leave it out",
        ("accelerator-quota",),
    ),
    Case("training-accelerator", K, by_job(stage={**SMALL, "accelerator": GPU}), "train", "`training`", NEEDS),
    Case(
        "training-accelerator",
        V,
        by_job(stage={**SMALL, "accelerator": {"type": "NVIDIA_L4"}}, kind=V),
        "train",
        "`training`",
    ),
    Case("training-task-size", K, by_job(stage={"cpu": 8, "memory": "32Gi"}), "train", "2Gi", NEEDS),
    Case("training-deadline", K, by_job(timeout=600), "train", "timeout_s", NEEDS),
    Case("training-deadline", K, by_job(timeout=172_799), "train", "172800 or more", NEEDS),
    Case("training-deadline", K, by_job(timeout=2999, deadline_s=1000, max_restarts=2), "train", "3000 or", NEEDS),
    Case("training-spot", K, by_job(tried_once=True, spot=True, max_restarts=0), "train", "max_restarts", NEEDS),
    Case("training-resource", K, by_job(accelerator={"type": "NVIDIA_L4"}), "train", "nvidia.com/gpu", NEEDS),
    Case("training-tpu-topology", K, by_job(accelerator={"type": "google.com/tpu", "count": 8}), "train", "2x4", NEEDS),
    Case("training-needs", K, by_job(accelerator=GPU), "train", "manifests/README.md"),
    Case("training-quota", V, by_job(kind=V, machine="a2-highgpu-2g", workers=3), "train", "Quotas"),
    Case(
        "training-plugin",
        V,
        by_job(kind=V, machine="a2-highgpu-2g", workers=3, reduction_server={"replicas": 2, "image": "reducer"}),
        "train",
        "google-reduction-server",
        ("training-quota",),
    ),
    Case(
        "parameter-missing",
        V,
        change(lambda s: s.spec["root"]["inputDefinitions"]["parameters"], extra={"parameterType": "STRING"}),
        None,
        "when compiling",
    ),
    Case("parameter-type", K, parameter("endpoints", 3), None, "default"),
    Case("parameter-type", V, parameter("endpoints", True), None, "default"),
    Case("parameter-too-long", V, parameter("endpoints", LONG), None, "bundle"),
    Case("parameters-too-long", K, parameter("endpoints", LONG), None, "bundle"),
    Case("secret-in-parameter", V, parameter("endpoints", KEY), None, "secret store"),
    Case("secret-in-parameter", K, parameter("source", "https://u:hidden@example.com/t.csv"), None, "secret store"),
    Case("secret-in-parameter", K, constant("0123456789"), "train", "secret store"),
    Case("secret-in-environment", V, variable("DB_PASSWORD", "hidden"), "train", "secret store"),
    Case("secret-in-environment", K, variable("KEY", "-----BEGIN PRIVATE KEY-----"), "train", "secret store"),
    Case("artifact-metadata", V, metadata, "importer", "a file"),
    Case("too-many-artifacts", V, collected, "transform", "at most 100"),
    Case("retry-window", K, retry("train", maxRetryCount=1, backoffMaxDuration="3600s"), "train", "a timeout"),
    Case("retry-window", K, retry("ingest", maxRetryCount=3, backoffMaxDuration="7200s"), "ingest", "a timeout"),
    Case("gate-retried", V, retry("gate-2", maxRetryCount=1), "model-gate", "set_retry"),
    Case("retries-too-many", V, retry("train", maxRetryCount=11), "train", "at most 10"),
    Case("retry-pause", V, retry("train", backoffMaxDuration="3601s"), "train", "3600s"),
    Case("retry-factor", V, retry("train", backoffFactor=0.5), "train", "whole number"),
    Case("retry-factor", K, retry("train", backoffFactor=1.5), "train", "whole number"),
    Case(
        "retry-of-group",
        K,
        change(lambda s: s.spec["root"]["dag"]["tasks"]["exit-handler-1"], retryPolicy={"maxRetryCount": 2}),
        "release",
        "its tasks",
    ),
    Case("cached-though-impure", V, uncached, "register", "set_caching_options"),
    Case("label-syntax", K, target(labels={"team": "risk-"}), None, "first and last"),
    Case("label-syntax", V, labelled(Team="risk"), None, "a-z"),
    Case("label-syntax", K, platform(podMetadata={"labels": {"a": "b c"}}), "train", "letters"),
    Case("label-reserved", V, labelled(**{"goog-env": "x"}), None, "another key"),
    Case("label-reserved", K, platform(podMetadata={"labels": {"pipeline/runid": "x"}}), "train", "another key"),
    Case("label-number", V, target(labels={f"l{i}": "x" for i in range(61)}), None, "at most 60"),
    Case("cron-seconds-first", V, planned("0 0 3 * * *"), None, "'0 3 * * *'"),
    Case("cron-invalid", K, planned("0 25 * * *"), None, "0 3 * * *"),
    Case("cron-invalid", V, planned("@daily"), None, "0 3 * * *"),
    Case("time-zone-unknown", V, planned("0 3 * * *", "Europe/Berlim"), None, "Europe/Berlin"),
    Case("cron-zone", K, planned("0 3 * * *", "Europe/Berlin"), None, "time"),
    Case("source-template", V, parameter("source", "gs://b/{{ schedule.tme }}.csv"), None, "days(1)"),
    Case("source-template", K, parameter("source", "s3://b/{% if x %}.csv"), None, "days(1)"),
    Case("concurrency", K, planned("0 3 * * *", "UTC", 11), None, "1 to 10"),
    Case("workflow-too-large", K, large(160), None, "divide"),
    Case("workflow-large", K, large(80), None, "divide"),
    Case(
        "component-too-large",
        K,
        change(lambda s: s.spec["components"]["comp-train"], notes="x" * (128 << 10)),
        "train",
        "divide",
    ),
    Case("argument-too-long", V, command("x" * (128 << 10)), "train", "in the package"),
    Case("installs-at-run-time", V, command("python3 -m pip install --quiet 'pandas'"), "train", "packages_to_install"),
    Case("installs-at-run-time", K, command("apt-get -y install curl"), "train", "image"),
]


def told(subject: Subject) -> list[Finding]:
    return findings(subject)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_in_what_the_shipped_examples_make(kind: str, clean: Callable[[str], Subject]) -> None:
    assert told(clean(kind)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_in_five_fields_is_none_of_the_faults(kind: str, sample: Callable[[str], Sample]) -> None:
    assert told(sample(kind).subject(plan=Plan("*/15 3 * * 1-5", "UTC", 2))) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.id}-{case.kind}")
def test_the_fault_is_found_where_it_is_and_alone(case: Case, sample: Callable[[str], Sample]) -> None:
    found = told(case.broken(sample(case.kind)))
    ours = [finding for finding in found if finding.id == case.id]
    assert case.task in [finding.task for finding in ours]
    assert all(case.cure in finding.cure for finding in ours if finding.task == case.task)
    assert {finding.id for finding in found} == {case.id, *case.along}


def test_every_check_has_a_package_in_which_it_finds_something() -> None:
    # The file that KFP refuses for its size is made in a test of its own.
    assert {check.id for check in CHECKS} - {case.id for case in CASES} == {"package-too-large"}


def test_a_file_that_is_too_large_is_found(sample: Callable[[str], Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_UPLOAD", 1_000)
    (found,) = told(sample(K).subject())
    assert (found.id, found.severity) == ("package-too-large", "error")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_says_nothing_where_it_doesnt_belong(check: Any, sample: Callable[[str], Sample]) -> None:
    (other,) = set(KINDS) - set(check.kinds) or {None}
    if other is not None:
        assert list(check.findings(sample(other).subject())) == []


def test_ids_are_names_and_stand_once() -> None:
    ids = [check.id for check in CHECKS]
    assert len(ids) == len(set(ids))
    assert all(each.replace("-", "").isalpha() and each == each.lower() for each in ids)


def test_errors_come_first(sample: Callable[[str], Sample]) -> None:
    broken = sample(V)
    of_gpu("NVIDIA_L4")(broken)
    image("registry.example.com/tensorflow-gpu:1")(broken)
    found = told(train(resourceCpuLimit="97")(broken))
    assert [finding.severity for finding in found] == ["error", "warning", "note"]


def test_the_quota_is_named(sample: Callable[[str], Sample]) -> None:
    (found,) = told(of_gpu("NVIDIA_TESLA_T4", "2")(sample(V)))
    assert "aiplatform.googleapis.com/custom_model_training_nvidia_t4_gpus" in found.what
    assert "in europe-west1 to be at least 2" in found.what
    (unnamed,) = told(of_gpu("NVIDIA_B200", "8")(sample(V)))
    assert "custom training with NVIDIA_B200" in unnamed.what


@pytest.mark.parametrize(
    ("training", "what"),
    [
        ({"machine": "a2-highgpu-2g", "workers": 3}, "need the quota aiplatform.googleapis.com/custom_model_training_"),
        ({"machine": "a2-highgpu-2g", "workers": 3}, "nvidia_a100_gpus in europe-west1 to be at least 6"),
        ({"machine": "ct5lp-hightpu-8t", "strategy": "spot"}, "need the preemptible quota beside aiplatform"),
        ({"machine": "ct5lp-hightpu-8t", "strategy": "spot"}, "tpu_v5e in europe-west1 to be at least 8"),
        ({"machine": "a4-highgpu-8g"}, "custom training with NVIDIA_B200 in europe-west1 to be at least 8"),
    ],
)
def test_the_quota_of_a_training_job_is_named(
    sample: Callable[[str], Sample], training: Mapping[str, Any], what: str
) -> None:
    (found,) = told(by_job(kind=V, **training)(sample(V)))
    assert what in found.what


@pytest.mark.parametrize(
    "training",
    [
        {"machine": "n1-standard-8", "workers": 2},
        {"machine": "a2-highgpu-2g", "persistent_resource": "night"},
    ],
)
def test_machines_without_accelerators_or_that_are_there_need_no_quota(
    sample: Callable[[str], Sample], training: Mapping[str, Any]
) -> None:
    assert told(by_job(kind=V, **training)(sample(V))) == []


def test_a_schedules_pipeline_has_a_shorter_name_on_vertex(sample: Callable[[str], Sample]) -> None:
    named = sample(V)
    named.spec["pipelineInfo"]["name"] = "l" * 65
    assert told(named.subject()) == []
    assert [f.id for f in told(named.subject(plan=Plan("0 3 * * *")))] == ["pipeline-name"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_file", "secret"),
        ("max_tokens", "4096"),
        ("secret_name", "db"),
        ("password", ""),
        ("password", "{{$.inputs.parameters['x']}}"),
        ("tokenizer", "words"),
        ("source", "gs://example-bucket/a:b@c.csv"),
    ],
)
def test_what_only_sounds_like_a_secret_is_none(name: str, value: str, sample: Callable[[str], Sample]) -> None:
    assert told(variable(name, value)(sample(V))) == []


@pytest.mark.parametrize(
    "value",
    [
        '{"type": "service_account", "project_id": "p"}',
        "ya29." + "a" * 30,
        "AKIA" + "A1" * 8,
        "ghp_" + "a" * 36,
        "github_pat_" + "a" * 50,
        "xoxb-0123456789-abc",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghijklmn",
    ],
)
def test_secrets_are_known_by_their_looks(value: str, sample: Callable[[str], Sample]) -> None:
    assert [f.id for f in told(variable("VALUE", value)(sample(V)))] == ["secret-in-environment"]


def test_a_file_that_refers_to_nothing_is_refused(sample: Callable[[str], Sample]) -> None:
    broken = sample(V)
    del broken.spec["components"]["comp-train"]
    with pytest.raises(UsageError, match="task train: refers to a component that the file has not"):
        told(broken.subject())


def test_the_table_is_current() -> None:
    """``python -m tidemill_pipelines.targets.checking > pipelines/targets/CHECKS.md`` renews it."""
    table = Path(__file__).parents[3] / "pipelines" / "targets" / "CHECKS.md"
    assert table.read_text(encoding="utf-8") == documentation()
