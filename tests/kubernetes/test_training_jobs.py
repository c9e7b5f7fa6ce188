"""TrainJobs over HTTP, by the unmodified client: made or found, told apart, read, ended; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_fake import ClusterFake
from trainer_fake import COMPLETE, RUNNING, STARTING, SUSPENDED, Look, Script

from tidemill.errors import PlatformError, TidemillError, UsageError
from tidemill.jobs.job import Denied, JobStatus, TrainingJob
from tidemill.kserve.cluster import Cluster
from tidemill.trainjob.launcher import TrainJobs
from tidemill.trainjob.settings import TrainJobSettings
from tidemill.trainjob.workflow import Workflow

SETTINGS = TrainJobSettings(
    namespace="tidemill", image="registry.example.com/tensorflow@sha256:ab", workers=2, queue="tidemill-training"
)
NAME = "tidemill-train-0123456789ab"
EXITED = {"containerStatuses": [{"name": "node", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}
PULLING = {"containerStatuses": [{"name": "node", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}
HOMELESS = {
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    ]
}


@pytest.fixture
def client(cluster: ClusterFake) -> Any:
    with Cluster("tidemill", pause=lambda seconds: None) as made:
        yield made


@pytest.fixture
def jobs(client: Cluster) -> TrainJobs:
    return TrainJobs(client, SETTINGS)


def job(shared: Path = Path("/tidemill/runs/r/scratch/train")) -> TrainingJob:
    return TrainingJob(NAME, ("--shared", str(shared)), 2, shared)


def seen(cluster: ClusterFake, jobs: TrainJobs, *looks: Look) -> list[JobStatus]:
    """Returns what the launcher makes of each look."""
    cluster.plays[NAME] = Script(*looks)
    id = jobs.submit(job())
    return [jobs.status(id) for _ in looks]


def test_a_job_is_made_once(cluster: ClusterFake, jobs: TrainJobs) -> None:
    assert [jobs.submit(job()), jobs.submit(job())] == [NAME, NAME]
    assert cluster.did == [f"create trainjobs {NAME}"]


def test_a_job_whose_making_was_answered_by_a_failure_is_found(cluster: ClusterFake, jobs: TrainJobs) -> None:
    cluster.fail("POST", r".*/trainjobs", 503, after=True)
    assert jobs.submit(job()) == NAME
    assert cluster.did == [f"create trainjobs {NAME}"]


def test_a_job_goes_from_its_queue_to_its_end(cluster: ClusterFake, jobs: TrainJobs) -> None:
    states = [s.state for s in seen(cluster, jobs, SUSPENDED, STARTING, RUNNING, COMPLETE)]
    assert states == ["pending", "pending", "running", "succeeded"]


def test_a_job_in_the_queue_says_what_kueue_says(cluster: ClusterFake, jobs: TrainJobs) -> None:
    words = "couldn't assign flavors to pod set node: insufficient unused quota for nvidia.com/gpu"
    about = {"kind": "Workload", "name": f"trainjob-{NAME}-3f9a1"}
    cluster.events.append({"type": "Warning", "metadata": {}, "involvedObject": about, "message": words})
    (status,) = seen(cluster, jobs, SUSPENDED)
    assert status.detail == f"waits for a place in queue tidemill-training: {words}"


def test_without_the_right_to_events_the_queue_is_named(cluster: ClusterFake, jobs: TrainJobs) -> None:
    cluster.forbidden.add(("list", "events"))
    (status,) = seen(cluster, jobs, SUSPENDED)
    assert status.detail == "waits for a place in queue tidemill-training"


@pytest.mark.parametrize(
    ("says", "words"), [(PULLING, "worker-1: ImagePullBackOff"), (HOMELESS, "worker-1: Unschedulable 0/3 nodes")]
)
def test_a_node_that_does_not_start_says_why(cluster: ClusterFake, jobs: TrainJobs, says: Any, words: str) -> None:
    (status,) = seen(cluster, jobs, Look(pods={0: "Running", 1: ("Pending", says)}))
    assert status.state == "pending"
    assert (status.detail or "").startswith(words)


def test_a_failed_job_says_which_node_ended_how(cluster: ClusterFake, jobs: TrainJobs) -> None:
    failed = Look("Failed", "ReachedMaxRestarts", "jobset failed", pods={0: "Failed", 1: ("Failed", EXITED)})
    (status,) = seen(cluster, jobs, failed)
    assert status == JobStatus("failed", "ReachedMaxRestarts: jobset failed; worker-1: OOMKilled, exit code 137")


def test_a_job_over_its_deadline_has_failed(cluster: ClusterFake, jobs: TrainJobs) -> None:
    (status,) = seen(cluster, jobs, Look("Failed", "DeadlineExceeded", "TrainJob exceeded its activeDeadlineSeconds"))
    assert status.state == "failed"
    assert "DeadlineExceeded" in (status.detail or "")


def test_nodes_that_start_again_are_not_running(cluster: ClusterFake, jobs: TrainJobs) -> None:
    assert [s.state for s in seen(cluster, jobs, RUNNING, STARTING, RUNNING)] == ["running", "pending", "running"]


def test_how_often_the_nodes_were_started_again_is_known(cluster: ClusterFake, jobs: TrainJobs) -> None:
    seen(cluster, jobs, RUNNING)
    assert jobs.status(NAME).restarts == 0
    cluster.node(cluster.objects["tidemill", "trainjobs", NAME], 0, 7, "Running")
    assert jobs.status(NAME) == JobStatus("running", restarts=7)


def test_a_job_that_is_gone_was_cancelled(cluster: ClusterFake, jobs: TrainJobs) -> None:
    assert jobs.status(NAME).state == "cancelled"


def test_a_cancelled_job_is_gone_when_its_pods_are(cluster: ClusterFake, jobs: TrainJobs) -> None:
    seen(cluster, jobs, RUNNING, RUNNING)
    jobs.cancel(NAME)
    assert [jobs.status(NAME).state for _ in range(2)] == ["pending", "cancelled"]
    assert cluster.pods == []
    jobs.cancel(NAME)


def test_a_name_is_not_taken_from_a_job_that_is_ending(cluster: ClusterFake, jobs: TrainJobs) -> None:
    jobs.submit(job())
    jobs.cancel(NAME)
    with pytest.raises(PlatformError, match="is ending"):
        jobs.submit(job())
    assert jobs.submit(job()) == NAME, "it is gone by now"


def test_each_line_of_each_node_is_told_once(cluster: ClusterFake, jobs: TrainJobs) -> None:
    """Kubernetes gives lines by whole seconds; several fall into one, two even on the same moment."""
    looks = [
        Look(
            ready=True,
            pods={0: "Running", 1: "Running"},
            prints={0: [f"{look}-{n}" for n in range(look + 1)], 1: ["x"]},
        )
        for look in range(6)
    ]
    cluster.plays[NAME] = Script(*looks)
    id, told = jobs.submit(job()), []
    for _ in looks:
        jobs.status(id)
        told += list(jobs.logs(id))
    assert [t for t in told if t.startswith("chief")] == [f"chief: {k}-{n}" for k in range(6) for n in range(k + 1)]
    assert told.count("worker-1: x") == 6
    assert list(jobs.logs(id)) == []


def test_an_empty_line_and_one_in_another_script_come_through(cluster: ClusterFake, jobs: TrainJobs) -> None:
    cluster.plays[NAME] = Script(Look(ready=True, prints={0: ["", "épochs 1"]}))
    jobs.status(jobs.submit(job()))
    assert list(jobs.logs(NAME)) == ["chief: ", "chief: épochs 1"]


def test_a_node_that_has_not_started_has_no_log_yet(cluster: ClusterFake, jobs: TrainJobs) -> None:
    seen(cluster, jobs, STARTING)
    assert list(jobs.logs(NAME)) == []


def test_without_the_right_to_logs_it_is_told_once_how_to_see_them(cluster: ClusterFake, jobs: TrainJobs) -> None:
    right = ("get", "pods/log")
    cluster.forbidden.add(right)
    cluster.plays[NAME] = Script(Look(ready=True, prints={0: ["step 1"], 1: []}), RUNNING)
    jobs.status(jobs.submit(job()))
    why, how = "\n".join(jobs.logs(NAME)).split("\n  see them with: ")
    assert "grant `get pods/log` in namespace tidemill" in why
    assert how == f"kubectl logs -n tidemill -l jobset.sigs.k8s.io/jobset-name={NAME} -c node --prefix --tail=-1"
    assert list(jobs.logs(NAME)) == []
    cluster.forbidden.remove(right)
    assert list(jobs.logs(NAME)) == ["chief: step 1"], "from when the right is granted"


def refusals() -> dict[str, tuple[Callable[[ClusterFake], Any], type[TidemillError], str]]:
    """What goes wrong, and what is said of it."""
    return {
        "no right to make one": (lambda c: c.forbidden.add(("create", "trainjobs")), Denied, "create trainjobs"),
        "no Trainer": (lambda c: c.kinds.discard("trainjobs"), Denied, "install Kubeflow Trainer"),
        "no runtime": (lambda c: c.runtimes.clear(), UsageError, "must be created before the TrainJob"),
        "who asks is unknown": (lambda c: setattr(c, "token", "another"), Denied, "not known"),
        "the server fails": (lambda c: c.fail("POST", r".*/trainjobs", 500, 9), PlatformError, "the server failed"),
        "too many requests": (lambda c: c.fail("POST", r".*/trainjobs", 429, 9), PlatformError, "too much"),
    }


@pytest.mark.parametrize("what", refusals())
def test_what_is_refused_says_whose_turn_it_is(cluster: ClusterFake, jobs: TrainJobs, what: str) -> None:
    spoil, kind, words = refusals()[what]
    spoil(cluster)
    with pytest.raises(kind, match=words) as caught:
        jobs.submit(job())
    assert type(caught.value) is kind
    assert cluster.did == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"runtime": "another"}, "must be created before"),
        ({"labels": {"team": "not a label!"}}, "metadata.labels"),
    ],
)
def test_the_fake_refuses_what_the_server_would(
    cluster: ClusterFake, client: Cluster, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        TrainJobs(client, SETTINGS.model_copy(update=change)).submit(job())


def test_an_unknown_field_is_refused(cluster: ClusterFake, client: Cluster) -> None:
    from tidemill.trainjob.manifest import TRAINJOBS, manifest

    value = manifest(job(), SETTINGS)
    value["spec"]["podTemplateOverrides"] = []
    with pytest.raises(UsageError, match=r'unknown field "spec\.podTemplateOverrides"'):
        client.create(TRAINJOBS, value)


@pytest.mark.parametrize(
    ("spec", "cancelled"),
    [
        ({}, False),
        ({"activeDeadlineSeconds": 3600}, False),
        ({"activeDeadlineSeconds": 0}, True),
        ({"shutdown": "Terminate"}, True),
    ],
)
def test_a_run_is_cancelled_when_its_workflow_says_so(
    cluster: ClusterFake, client: Cluster, spec: dict[str, Any], cancelled: bool
) -> None:
    cluster.workflow("lending-x7k2p", **spec)
    assert Workflow(client, "lending-x7k2p").cancelled() is cancelled


def test_a_deleted_run_is_cancelled(cluster: ClusterFake, client: Cluster) -> None:
    assert Workflow(client, "lending-x7k2p").cancelled()


@pytest.mark.parametrize("trouble", ["forbidden", "outage"])
def test_a_run_of_which_nothing_is_known_is_not_cancelled(cluster: ClusterFake, client: Cluster, trouble: str) -> None:
    if trouble == "forbidden":
        cluster.forbidden.add(("get", "workflows"))
    else:
        cluster.fail("GET", r".*/workflows/.*", 503, 9)
    assert not Workflow(client, "lending-x7k2p").cancelled()


def test_a_job_is_deleted_with_its_run(cluster: ClusterFake, client: Cluster) -> None:
    cluster.workflow("lending-x7k2p")
    jobs = TrainJobs(client, SETTINGS, Workflow(client, "lending-x7k2p").owner())
    jobs.submit(job())
    cluster.delete_workflow("lending-x7k2p")
    assert jobs.status(NAME).state == "cancelled"


def test_settings_are_read_strictly() -> None:
    given = {"namespace": "tidemill", "image": "i", "workers": 2.0, "deadline_s": 60.0}
    assert TrainJobSettings.parse(given).workers == 2
    with pytest.raises(UsageError, match="wrokers") as caught:
        TrainJobSettings.parse({**given, "wrokers": 3, "deadline_s": "soon"})
    assert "deadline_s" in str(caught.value)


def test_the_rights_it_needs_are_those_of_the_role(cluster: ClusterFake, client: Cluster) -> None:
    """The requests of a whole life of a job, held against manifests/base/accounts/pipeline.yaml."""
    import yaml

    cluster.workflow("w")
    workflow = Workflow(client, "w")
    jobs = TrainJobs(client, SETTINGS, workflow.owner())
    seen(cluster, jobs, SUSPENDED, STARTING, RUNNING)
    list(jobs.logs(NAME))
    workflow.cancelled()
    jobs.cancel(NAME)
    path = Path(__file__).parents[2] / "manifests" / "base" / "accounts" / "pipeline.yaml"
    (role,) = (d for d in yaml.safe_load_all(path.read_text()) if d["kind"] == "Role")
    granted = {(verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert cluster.asked <= granted
    assert {("create", "trainjobs"), ("delete", "trainjobs"), ("get", "pods/log")} <= cluster.asked
