"""Training as a custom job: what arrives at Vertex AI, what is found again, and what the job's states and logs say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tidemill.errors import PlatformError, UsageError
from tidemill.jobs.job import Denied, TrainingJob
from tidemill.vertex.custom_jobs import CustomJobs, custom_job
from tidemill.vertex.job_logs import JobLogs, worker_name
from tidemill.vertex.training import Accelerator, ReductionServer, TrainingSettings, VertexTraining

PARENT = "projects/example-project/locations/europe-west1"
IMAGE = "europe-west1-docker.pkg.dev/example-project/tidemill/tensorflow@sha256:00"
REDUCER = "registry.example.com/training/reductionserver:1"
ACCOUNT = "tidemill-pipeline@example-project.iam.gserviceaccount.com"
NETWORK = "projects/123456789012/global/networks/example"
KEY = "projects/example-project/locations/europe-west1/keyRings/r/cryptoKeys/k"
TENSORBOARD = f"{PARENT}/tensorboards/42"
RESERVATION = "projects/example-project/zones/europe-west1-b/reservations/night"
SHARED = Path("/gcs/example-bucket/root/runs/run-7/scratch/train")
ARGUMENTS = ("--bundle", "/gcs/example-bucket/b.zip", "--shared", str(SHARED))


def settings(training: dict[str, Any] | None = None, **changes: Any) -> TrainingSettings:
    return TrainingSettings.parse({"training": training or {}, "location": PARENT, "image": IMAGE, **changes})


def job(name: str = "tidemill-train-0a1b", workers: int = 1, **changes: Any) -> TrainingJob:
    return TrainingJob(**{"name": name, "arguments": ARGUMENTS, "workers": workers, "shared": SHARED, **changes})


@pytest.fixture
def launcher(fake: Any, clients: Any) -> Any:
    """Makes a launcher that leads to the fake."""

    def make(training: dict[str, Any] | None = None, **changes: Any) -> CustomJobs:
        return CustomJobs(clients, settings(training, **changes), JobLogs(clients.location, fake.logging))

    return make


def test_everything_that_can_be_asked_for_arrives(launcher: Any, fake: Any) -> None:
    training = {
        "workers": 3,
        "accelerator": {"type": "NVIDIA_TESLA_T4", "count": 2},
        "reduction_server": {"replicas": 4, "image": REDUCER},
        "timeout_s": 86400,
        "tensorboard": TENSORBOARD,
        "reserved_ip_ranges": ["vertex"],
        "reservation": RESERVATION,
    }
    started = launcher(
        training, labels={"team": "risk"}, service_account=ACCOUNT, network=NETWORK, cmek_key=KEY
    ).submit(job(workers=3, environment={"B": "2", "A": "1"}, labels={"tidemill-run": "run-7"}))
    assert started.startswith(f"{PARENT}/customJobs/")
    (request,) = fake.requests("CreateCustomJob")
    assert request["parent"] == PARENT
    asked = request["custom_job"]
    content = asked["labels"].pop("tidemill-content")
    assert len(content) == 32
    worker = {
        "machine_spec": {
            "machine_type": "n1-standard-8",
            "accelerator_type": "NVIDIA_TESLA_T4",
            "accelerator_count": 2,
            "reservation_affinity": {
                "reservation_affinity_type": "SPECIFIC_RESERVATION",
                "key": "compute.googleapis.com/reservation-name",
                "values": [RESERVATION],
            },
        },
        "container_spec": {
            "image_uri": IMAGE,
            "command": ["python3", "-m", "tidemill.train.worker"],
            "args": list(ARGUMENTS),
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        },
    }
    assert asked == {
        "display_name": "tidemill-train-0a1b",
        "labels": {"team": "risk", "tidemill-run": "run-7", "tidemill-job": "tidemill-train-0a1b"},
        "encryption_spec": {"kms_key_name": KEY},
        "job_spec": {
            "worker_pool_specs": [
                {**worker, "replica_count": "1"},
                {**worker, "replica_count": "2"},
                {
                    "machine_spec": {"machine_type": "n1-highcpu-16"},
                    "container_spec": {"image_uri": REDUCER},
                    "replica_count": "4",
                },
            ],
            "scheduling": {"strategy": "STANDARD", "timeout": "86400s", "restart_job_on_worker_restart": True},
            "base_output_directory": {"output_uri_prefix": "gs://example-bucket/root/runs/run-7/scratch/train"},
            "service_account": ACCOUNT,
            "network": NETWORK,
            "reserved_ip_ranges": ["vertex"],
            "tensorboard": TENSORBOARD,
        },
    }


@pytest.mark.parametrize(
    ("training", "machine"),
    [
        ({"machine": "ct5lp-hightpu-1t"}, {"machine_type": "ct5lp-hightpu-1t", "tpu_topology": "1x1"}),
        ({"machine": "ct5lp-hightpu-4t"}, {"machine_type": "ct5lp-hightpu-4t", "tpu_topology": "2x2"}),
        ({"machine": "ct5lp-hightpu-8t"}, {"machine_type": "ct5lp-hightpu-8t", "tpu_topology": "2x4"}),
        (
            {"machine": "a2-highgpu-8g"},
            {"machine_type": "a2-highgpu-8g", "accelerator_type": "NVIDIA_TESLA_A100", "accelerator_count": 8},
        ),
        (
            {"machine": "g2-standard-24"},
            {"machine_type": "g2-standard-24", "accelerator_type": "NVIDIA_L4", "accelerator_count": 2},
        ),
        (
            {"reservation": "any"},
            {
                "machine_type": "n1-standard-8",
                "reservation_affinity": {"reservation_affinity_type": "ANY_RESERVATION"},
            },
        ),
    ],
)
def test_a_machine_says_what_it_has(launcher: Any, fake: Any, training: Any, machine: Any) -> None:
    launcher(training).submit(job())
    (request,) = fake.requests("CreateCustomJob")
    (pool,) = request["custom_job"]["job_spec"]["worker_pool_specs"]
    assert (pool["machine_spec"], pool["replica_count"]) == (machine, "1")


@pytest.mark.parametrize(
    ("training", "scheduling"),
    [
        ({}, {"strategy": "STANDARD"}),
        ({"retries": False}, {"strategy": "STANDARD", "disable_retries": True}),
        ({"strategy": "spot"}, {"strategy": "SPOT", "restart_job_on_worker_restart": True}),
        ({"strategy": "spot", "retries": False}, {"strategy": "SPOT", "disable_retries": True}),
        (
            {"strategy": "flex_start", "machine": "a2-highgpu-1g", "max_wait_s": 0, "timeout_s": 604800},
            {"strategy": "FLEX_START", "max_wait_duration": "0s", "timeout": "604800s"},
        ),
    ],
)
def test_machines_are_come_by_as_asked(launcher: Any, fake: Any, training: Any, scheduling: Any) -> None:
    launcher(training).submit(job())
    (request,) = fake.requests("CreateCustomJob")
    assert request["custom_job"]["job_spec"]["scheduling"] == scheduling


def test_a_job_on_a_persistent_resource_has_its_network_and_key(launcher: Any, fake: Any) -> None:
    fake.set(persistent_resources={"night": (NETWORK, KEY)})
    launcher({"persistent_resource": "night"}, network=NETWORK, cmek_key=KEY).submit(job())
    (request,) = fake.requests("CreateCustomJob")
    assert request["custom_job"]["job_spec"]["persistent_resource_id"] == "night"
    with pytest.raises(UsageError, match="network and CMEK must be those of the PersistentResource"):
        launcher({"persistent_resource": "night"}).submit(job("other"))
    with pytest.raises(UsageError, match="PersistentResource day does not exist"):
        launcher({"persistent_resource": "day"}).submit(job("other"))


TPU = {"machine": "ct5lp-hightpu-4t"}
FLEX = {"strategy": "flex_start", "machine": "a2-highgpu-1g"}
SERVER = {"reduction_server": {"replicas": 1, "image": REDUCER}, "workers": 2}
T4 = {"accelerator": {"type": "NVIDIA_TESLA_T4", "count": 1}}
# What the target's file may not say, our words, and the fake's, where it is the one to know.
RULES: dict[str, tuple[dict[str, Any], str, str]] = {
    "spot reservation": ({"strategy": "spot", "reservation": "any"}, "come from a reservation", "consume reserv"),
    "spot persistent": ({"strategy": "spot", "persistent_resource": "night"}, "job's own", "no scheduling strategy"),
    "flex without GPU": ({"strategy": "flex_start"}, "not for no GPU", "FLEX_START requires one"),
    "flex of another GPU": ({"strategy": "flex_start", **T4}, "not for NVIDIA_TESLA_T4", "FLEX_START requires one"),
    "flex TPU": (TPU | {"strategy": "flex_start"}, "GPUs, not TPUs", "FLEX_START requires one"),
    "flex reservation": (FLEX | {"reservation": RESERVATION}, "can't use a reservation", "cannot consume"),
    "flex servers": (FLEX | SERVER, "same machine in all pools", "same machine spec"),
    "flex persistent": (FLEX | {"persistent_resource": "night"}, "job's own", "no scheduling strategy"),
    "wait without flex": ({"max_wait_s": 60}, "of flex_start only", "FLEX_START only"),
    "more than a week": ({"timeout_s": 604801}, "less than or equal to 604800", "at most 604800s"),
    "persistent reservation": ({"persistent_resource": "night", "reservation": "any"}, "there already", "consume"),
    "persistent TPU": (TPU | {"persistent_resource": "night"}, "has no TPUs", "do not support TPUs"),
    "servers without GPU": (SERVER, "there are none", "workers with GPUs"),
    "two TPU slices": (TPU | {"workers": 2}, "must be 1 on TPUs", "replica_count 1"),
    "other TPUs": ({"machine": "cloud-tpu"}, "TPU v5e", "'cloud-tpu' is not supported"),
    "TPUs twice": (TPU | {"accelerator": {"type": "TPU_V5_LITEPOD"}}, "leave `accelerator` out", "cannot be attached"),
    "no such machine": ({"machine": "a2-highgpu-3g"}, "there is no machine a2-highgpu-3g", "is not supported"),
    "other GPUs": ({"machine": "a2-highgpu-1g", **T4}, "has 1 x NVIDIA_TESLA_A100", "cannot be attached"),
    "GPUs of their own machines": ({"accelerator": {"type": "NVIDIA_L4"}}, "must be one of", "cannot be attached"),
    "GPUs of n1": ({"machine": "n2-standard-8", **T4}, "n1 machines only", "cannot be attached"),
    "three GPUs": ({"accelerator": {"type": "NVIDIA_TESLA_T4", "count": 3}}, "not 3", "cannot be attached"),
}


@pytest.mark.parametrize("rule", RULES)
def test_what_vertex_ai_refuses_is_refused_before_it_is_asked(rule: str) -> None:
    training, told, _ = RULES[rule]
    with pytest.raises(ValidationError, match=told):
        VertexTraining.model_validate(training)
    with pytest.raises(UsageError, match=told):
        settings(training)


@pytest.mark.parametrize("rule", RULES)
def test_the_service_itself_refuses_it_too(rule: str, clients: Any, fake: Any) -> None:
    """The rules past our own validation: ``model_construct`` makes settings that were never looked at."""
    training, _, refused = RULES[rule]
    fake.set(persistent_resources={"night": ("", "")})
    kinds = {"accelerator": Accelerator, "reduction_server": ReductionServer}
    given = {name: kinds[name](**value) if name in kinds else value for name, value in training.items()}
    unchecked = VertexTraining.model_construct(**given)
    told = TrainingSettings.model_construct(training=unchecked, location=PARENT, image=IMAGE)
    with pytest.raises(UsageError, match=refused):
        CustomJobs(clients, told).submit(job(workers=unchecked.workers))


def test_a_reduction_server_for_one_machine_is_refused_and_is_no_second_pool(clients: Any, fake: Any) -> None:
    with pytest.raises(UsageError, match="`workers` must be 2 or more"):
        settings(T4 | SERVER | {"workers": 1})
    wanted = custom_job(settings(T4 | SERVER), job(workers=2))
    del wanted["job_spec"]["worker_pool_specs"][1]
    with pytest.raises(UsageError, match="needs a second worker pool"):
        clients.once("job", clients.jobs.create_custom_job, {"parent": PARENT, "custom_job": wanted})


@pytest.mark.parametrize(
    ("machine", "strategy", "refused"),
    [
        ({"machine_type": "ct5lp-hightpu-4t", "tpu_topology": "4x4"}, "SPOT", "not supported with TPU Pods"),
        ({"machine_type": "ct5lp-hightpu-4t", "tpu_topology": "3x3"}, "STANDARD", "TPU topology '3x3'"),
        ({"machine_type": "ct5lp-hightpu-4t"}, "STANDARD", "tpu_topology is required"),
    ],
)
def test_the_service_refuses_slices_that_we_cannot_even_ask_for(
    clients: Any, fake: Any, machine: Any, strategy: str, refused: str
) -> None:
    wanted = custom_job(settings(TPU), job())
    wanted["job_spec"]["worker_pool_specs"][0]["machine_spec"] = machine
    wanted["job_spec"]["scheduling"] = {"strategy": strategy}
    with pytest.raises(UsageError, match=refused):
        clients.once("job", clients.jobs.create_custom_job, {"parent": PARENT, "custom_job": wanted})


def test_settings_that_do_not_fit_their_place_are_told_at_once() -> None:
    training = {
        "tensorboard": TENSORBOARD.replace("europe", "us"),
        "reservation": RESERVATION.replace("europe", "us"),
        "reserved_ip_ranges": ["x"],
    }
    with pytest.raises(UsageError) as told:
        settings(training)
    for part in ("needs a `service_account`", "must be in europe-west1", "in a zone of europe-west1", "vertex.network"):
        assert part in str(told.value)
    with pytest.raises(UsageError, match=r"training\.workers: Input should be greater"):
        settings({"workers": 0})
    assert settings({"workers": 2.0}).training.workers == 2  # as KFP hands it over


def test_the_same_asked_for_twice_is_one_job(launcher: Any, fake: Any) -> None:
    fake.refuse("CreateCustomJob", "UNAVAILABLE", "the connection broke", done=True)
    first = launcher().submit(job())
    assert launcher().submit(job()) == first
    assert launcher().submit(job("another")) != first
    assert len(fake.requests("CreateCustomJob")) == 2


def test_a_job_that_failed_is_followed_by_another(launcher: Any, fake: Any) -> None:
    fake.set(failing_jobs=["The replica workerpool0-0 exited with a non-zero status of 1."])
    asked = launcher()
    first = asked.submit(job())
    states = [asked.status(first) for _ in range(2)]
    assert [status.state for status in states] == ["running", "failed"]
    assert states[1].detail == "JOB_STATE_FAILED: The replica workerpool0-0 exited with a non-zero status of 1."
    assert asked.submit(job()) != first


def test_no_second_job_of_a_name_runs_beside_the_first(launcher: Any, fake: Any) -> None:
    """A job of the same task with other arguments would write the same checkpoints."""
    fake.set(held=True)
    asked = launcher()
    first = asked.submit(job())
    second = asked.submit(job(arguments=("--bundle", "other")))
    assert second != first
    assert (asked.status(first).state, asked.status(second).state) == ("cancelled", "running")


def test_a_job_that_is_cancelled_ends_and_one_that_has_ended_stays(launcher: Any, fake: Any) -> None:
    fake.set(held=True)
    asked = launcher()
    started = asked.submit(job())
    assert asked.status(started).state == "running"
    asked.cancel(started)
    assert asked.status(started).state == "cancelled"
    asked.cancel(started)
    assert [request["name"] for request in fake.requests("CancelCustomJob")] == [started, started]


def test_a_refused_cancellation_is_told_unless_the_job_is_ending(launcher: Any, fake: Any) -> None:
    fake.set(held=True)
    asked = launcher()
    started = asked.submit(job())
    fake.refuse("CancelCustomJob", "FAILED_PRECONDITION", "The job cannot be cancelled.")
    with pytest.raises(UsageError, match="cannot be cancelled"):
        asked.cancel(started)
    asked.cancel(started)
    fake.refuse("CancelCustomJob", "FAILED_PRECONDITION", "The job is being cancelled.")
    asked.cancel(started)


def test_a_job_that_takes_long_to_end_is_asked_for_again_later(launcher: Any, fake: Any) -> None:
    """The one of its name that is being cancelled writes the same checkpoints until it has ended."""
    fake.set(held=True, slow_cancellations=True)
    asked = launcher()
    first = asked.submit(job())
    with pytest.raises(PlatformError, match=f"{first}, which was cancelled, must end first"):
        asked.submit(job(arguments=("--bundle", "other")))
    fake.set(slow_cancellations=False)
    assert asked.submit(job(arguments=("--bundle", "other"))) != first


def test_a_job_that_is_gone_was_cancelled(launcher: Any) -> None:
    assert launcher().status(f"{PARENT}/customJobs/7").state == "cancelled"


def test_what_is_not_permitted_is_denied_with_the_role_that_is_missing(launcher: Any, fake: Any) -> None:
    where = f"//aiplatform.googleapis.com/{PARENT}"
    fake.refuse("CreateCustomJob", "PERMISSION_DENIED", f"Permission 'aiplatform.customJobs.create' denied on {where}")
    with pytest.raises(Denied, match=r"customJobs\.create: grant roles/aiplatform\.user in project example"):
        launcher().submit(job())
    fake.refuse("ListCustomJobs", "PERMISSION_DENIED", f"Permission 'aiplatform.customJobs.list' denied on {where}")
    with pytest.raises(Denied, match=r"customJobs\.list"):
        launcher().submit(job())
    fake.refuse("CreateCustomJob", "PERMISSION_DENIED", "The caller lacks iam.serviceAccounts.actAs on the account")
    with pytest.raises(Denied, match=r"roles/iam\.serviceAccountUser"):
        launcher().submit(job())


def test_a_quota_that_is_used_up_may_be_free_later(launcher: Any, fake: Any) -> None:
    fake.set(unavailable_accelerators={"NVIDIA_TESLA_T4"})
    with pytest.raises(PlatformError, match=r"the project's quotas .*\n.*CustomModelTrainingNvidia.*europe-west1"):
        launcher(T4).submit(job())
    fake.set(unavailable_accelerators=set())
    assert launcher(T4).submit(job())


def test_an_outage_is_waited_for(launcher: Any, fake: Any) -> None:
    asked = launcher()
    started = asked.submit(job())
    fake.refuse("GetCustomJob", "UNAVAILABLE", times=3)
    assert asked.status(started).state == "running"


def test_a_directory_that_the_workers_would_not_see_is_refused(launcher: Any) -> None:
    with pytest.raises(UsageError, match=r"must be below /gcs .*/data/shared"):
        launcher().submit(job(shared=Path("/data/shared")))


def test_the_place_is_a_page_of_the_console(launcher: Any) -> None:
    place = launcher().place(f"{PARENT}/customJobs/77")
    assert place.endswith("/vertex-ai/locations/europe-west1/training/77?project=example-project")


def entry(second: int, text: str, task: str = "workerpool0-0", **changes: Any) -> dict[str, Any]:
    return {
        "insertId": f"{second}-{text}",
        "timestamp": f"2026-01-01T00:00:{second:02d}.123456789Z",
        "resource": {"type": "ml_job", "labels": {"job_id": "1", "task_name": task}},
        "jsonPayload": {"message": text},
        **changes,
    }


def test_logs_are_told_once_and_late_ones_are_not_lost(launcher: Any, fake: Any) -> None:
    asked = launcher()
    started = asked.submit(job())
    number = started.rsplit("/", 1)[-1]
    fake.ask("log", number, [entry(3, "three"), entry(1, "one"), entry(2, "two\nlines", "workerpool1-0")])
    assert list(asked.logs(started)) == ["worker-0: one", "worker-1: two", "worker-1: lines", "worker-0: three"]
    assert list(asked.logs(started)) == []
    fake.ask("log", number, [entry(2, "late", "workerpool2-1"), entry(4, "", textPayload="plain", jsonPayload={})])
    assert list(asked.logs(started)) == ["reducer-1: late", "worker-0: plain"]
    assert 'timestamp>="2025-12-31T23:59:03+00:00"' in fake.requests("entries:list")[-1]["filter"]


def test_who_may_not_read_logs_is_told_once_how_to_see_them(launcher: Any, fake: Any) -> None:
    denied = (403, "PERMISSION_DENIED", "Permission 'logging.logEntries.list' denied on resource (or it may not exist)")
    fake.set(log_refusals=[denied])
    asked = launcher()
    told = "\n".join(asked.logs(f"{PARENT}/customJobs/77"))
    assert "it takes logging.logEntries.list: grant roles/logging.viewer in project example-project" in told
    assert 'gcloud logging read \'resource.type="ml_job" AND resource.labels.job_id="77"\'' in told
    assert list(asked.logs(f"{PARENT}/customJobs/77")) == []
    assert len(fake.requests("entries:list")) == 1


def test_logs_that_were_asked_for_too_often_come_with_the_next_look(launcher: Any, fake: Any) -> None:
    asked = launcher()
    number = asked.submit(job()).rsplit("/", 1)[-1]
    fake.ask("log", number, [entry(1, "one")])
    fake.set(log_refusals=[(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Read requests'")])
    with pytest.raises(PlatformError, match="quotas"):
        list(asked.logs(number))
    assert list(asked.logs(number)) == ["worker-0: one"]


def test_replicas_are_called_as_their_records_are() -> None:
    names = ("workerpool0-0", "workerpool1-0", "workerpool1-1", "workerpool2-3", "service")
    assert [worker_name(name) for name in names] == ["worker-0", "worker-1", "worker-2", "reducer-3", "service"]
