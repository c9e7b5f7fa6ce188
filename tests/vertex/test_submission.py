"""Runs on Vertex AI: one per request id, all that the target's file says of them on the wire."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from vertex_fake import PARENT

from tidemill.errors import PlatformError, UsageError
from tidemill_pipelines.targets.compilation import Package
from tidemill_pipelines.targets.config import TargetConfig
from tidemill_pipelines.targets.vertex.jobs import job_id, token
from tidemill_pipelines.targets.vertex.target import VertexTarget


def test_what_arrives_is_the_pipeline_and_all_that_the_target_says(target: Any, fake: Any, submission: Any) -> None:
    run = target.submit(submission(labels={"commit": "c0ffee"}, parameters={"limit": 0.7}))
    (request,) = fake.requests("CreatePipelineJob")
    job = request["pipeline_job"]
    assert request["parent"] == PARENT
    assert request["pipeline_job_id"] == run.id == "tidemill-build-7"
    assert job["pipeline_spec"] == submission().package.spec  # not a character more or less than what was compiled
    assert job["display_name"] == run.name == "toy-training"
    assert job["labels"] == {
        "team": "risk",
        "cost-centre": "4711",
        "commit": "c0ffee",
        "tidemill-name": "toy-training",
        "tidemill-request": "build-7",
        "tidemill-content": submission(parameters={"limit": 0.7}).digest,
    }
    assert job["service_account"] == "tidemill-pipeline@example-project.iam.gserviceaccount.com"
    assert job["network"] == "projects/123456789012/global/networks/example"
    key = "projects/example-project/locations/europe-west1/keyRings/example/cryptoKeys/tidemill"
    assert job["encryption_spec"] == {"kms_key_name": key}
    assert job["runtime_config"] == {
        "gcs_output_directory": "gs://example-bucket/root",
        "parameter_values": {"limit": 0.7},
    }
    assert run.url == (
        "https://console.cloud.google.com/vertex-ai/locations/europe-west1/pipelines/runs/tidemill-build-7"
        "?project=example-project"
    )
    assert (run.state, run.existed, run.request_id) == ("pending", False, "build-7")


def test_nothing_but_the_one_call_is_made(target: Any, fake: Any, submission: Any) -> None:
    """The high-level SDK asks for the bucket's owner first, which needs two more services and their permissions."""
    target.submit(submission())
    assert [entry["method"] for entry in fake.requests()] == ["PipelineService/CreatePipelineJob"]
    assert fake.requests()[0]["routing"] == f"parent={PARENT}"


def test_a_request_id_is_of_one_content_alone(target: Any, fake: Any, submission: Any) -> None:
    """A build that is made anew must not take the old build's run for its own."""
    target.submit(submission(parameters={"limit": 0.7}))
    with pytest.raises(UsageError, match="must be of one content alone") as told:
        target.submit(submission(parameters={"limit": 0.8}))
    assert "another --request-id" in str(told.value)
    assert target.submit(submission(parameters={"limit": 0.7})).existed


def test_the_same_request_id_makes_one_run(target: Any, fake: Any, submission: Any) -> None:
    first, second = target.submit(submission()), target.submit(submission(name="another-name"))
    assert (first.existed, second.existed) == (False, True)
    assert second.id == first.id
    assert len(target.runs(10)) == 1
    assert target.submit(submission("build-8")).existed is False


def test_two_at_once_make_one_run(target: Any, submission: Any) -> None:
    runs: list[Any] = []
    threads = [threading.Thread(target=lambda: runs.append(target.submit(submission()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run.existed for run in runs) == [False, True, True, True]


def test_a_submission_whose_answer_was_lost_is_found_again(target: Any, fake: Any, submission: Any) -> None:
    fake.refuse("CreatePipelineJob", "UNAVAILABLE", "the connection broke", done=True)
    run = target.submit(submission())
    assert run.state == "pending"
    assert len(target.runs(10)) == 1


def test_a_service_that_is_unavailable_for_a_moment_is_asked_again(target: Any, fake: Any, submission: Any) -> None:
    fake.refuse("CreatePipelineJob", "UNAVAILABLE", times=2)
    assert target.submit(submission()).existed is False
    assert len(fake.requests("CreatePipelineJob")) == 3


def test_one_that_stays_unavailable_is_told_in_time(target: Any, fake: Any, submission: Any) -> None:
    fake.refuse("CreatePipelineJob", "UNAVAILABLE", "the service is drowning", times=1000)
    with pytest.raises(PlatformError, match="the service is drowning") as raised:
        target.submit(submission())
    assert raised.value.retryable


@pytest.mark.parametrize(
    ("request_id", "expected"),
    [
        ("build-7", "build-7"),
        ("Build 7", "build-7-"),
        ("x" * 80, "x" * 40 + "-"),
        ("-", ""),
        ("ümläut", "ml-ut-"),
    ],
)
def test_any_request_id_is_a_legal_job_id(request_id: str, expected: str) -> None:
    made = job_id(request_id)
    assert made.startswith(f"tidemill-{expected}")
    assert len(token(request_id)) <= 63
    assert made == made.lower()
    assert " " not in made


def test_request_ids_that_look_alike_stay_apart() -> None:
    assert len({job_id(each) for each in ("a b", "a-b", "A b", "a_b", "a  b")}) == 5


def test_caching_is_left_to_the_stages_or_off_for_all(target: Any, fake: Any, submission: Any, package: Any) -> None:
    target.submit(submission("one"))
    target.submit(submission("two", cache=False))
    left, off = (r["pipeline_job"]["pipeline_spec"]["root"]["dag"]["tasks"] for r in fake.requests("CreatePipelineJob"))
    assert {name: task["cachingOptions"] for name, task in left.items()} == {
        "first": {"enableCache": True},
        "second": {},
    }
    assert {name: task["cachingOptions"] for name, task in off.items()} == {"first": {}, "second": {}}
    assert package.spec["root"]["dag"]["tasks"]["first"]["cachingOptions"] == {"enableCache": True}


def test_a_run_goes_through_its_states_with_its_tasks(target: Any, submission: Any) -> None:
    run = target.submit(submission())
    seen = [target.run(run.id) for _ in range(4)]
    assert [each.state for each in seen] == ["pending", "running", "running", "succeeded"]
    assert [[(t.name, t.state) for t in each.tasks] for each in seen] == [
        [("first", "pending"), ("second", "pending")],
        [("first", "running"), ("second", "pending")],
        [("first", "succeeded"), ("second", "running")],
        [("first", "succeeded"), ("second", "succeeded")],
    ]
    assert all(task.started and task.ended and task.started <= task.ended for task in seen[-1].tasks)
    assert seen[-1].ended is not None
    assert seen[-1].ended.tzinfo is not None


def test_a_failed_task_tells_the_backends_words_and_where_its_output_is(
    target: Any, fake: Any, submission: Any
) -> None:
    fake.set(failing_tasks={"second": "The replica exited with a non-zero status of 3."})
    run = target.submit(submission())
    for _ in range(4):
        ended = target.run(run.id)
    assert ended.state == "failed"
    assert ended.error == "The second task failed: The replica exited with a non-zero status of 3."
    assert [(t.name, t.state, t.error) for t in ended.tasks] == [
        ("first", "succeeded", None),
        ("second", "failed", "The replica exited with a non-zero status of 3."),
    ]
    lines = list(target.logs(run.id, "second"))
    assert lines[0] == "second: failed"
    assert "status of 3" in lines[1]
    assert lines[2].startswith('  gcloud logging read \'resource.type="ml_job" AND resource.labels.job_id="')
    assert "--project=example-project" in lines[2]
    with pytest.raises(UsageError, match=r"task third: .* has no such task; there are first, second"):
        list(target.logs(run.id, "third"))


def test_runs_are_listed_the_newest_first_and_page_by_page(target: Any, fake: Any, submission: Any) -> None:
    fake.set(job_limit=200)
    for number in range(105):
        target.submit(submission(f"build-{number}"))
    runs = target.runs(103)
    assert [run.id for run in runs] == [f"tidemill-build-{number}" for number in range(104, 1, -1)]
    assert len(fake.requests("ListPipelineJobs")) == 2
    assert len(target.runs(5)) == 5
    assert all("pipeline_spec" not in r["read_mask"] for r in fake.requests("ListPipelineJobs"))


def test_a_run_is_cancelled_once_and_an_ended_one_stays_as_it_is(target: Any, fake: Any, submission: Any) -> None:
    run = target.submit(submission())
    target.run(run.id)
    assert target.cancel(run.id).state == "cancelling"
    ended = target.run(run.id)
    assert ended.state == "cancelled"
    assert [task.state for task in ended.tasks] == ["succeeded", "cancelled"]
    assert target.cancel(run.id).state == "cancelled"
    assert len(fake.requests("CancelPipelineJob")) == 1


def test_a_run_that_ends_while_it_is_being_cancelled_is_no_error(target: Any, fake: Any, submission: Any) -> None:
    run = target.submit(submission())
    fake.refuse("CancelPipelineJob", "FAILED_PRECONDITION", "The PipelineJob is in state PIPELINE_STATE_SUCCEEDED.")
    assert target.cancel(run.id).state in ("pending", "running")


def test_a_run_that_does_not_exist_is_told(target: Any) -> None:
    with pytest.raises(UsageError, match="run nothing: does not exist"):
        target.run("nothing")


def test_files_are_uploaded_once(target: Any, fake: Any) -> None:
    files = {f"gs://example-bucket/root/bundles/{n}.tar": bytes([n, 13, 10, 45, 45, n]) * 99 for n in range(6)}
    target.stage(files)
    assert fake.objects() == files
    target.stage(dict.fromkeys(files, b"something else"))  # their names are digests: what is there is the same
    assert fake.objects() == files


def test_uploads_that_are_refused_say_by_what_right(target: Any) -> None:
    with pytest.raises(PlatformError, match=r"storage\.objects\.create: grant roles/storage\.objectUser on the bucket"):
        target.stage({"gs://foreign-bucket/x": b""})
    with pytest.raises(UsageError, match="does not exist"):
        target.stage({"gs://no-such-bucket/x": b""})
    with pytest.raises(UsageError, match="expected gs://<bucket>/<object>"):
        target.stage({"s3://example-bucket/x": b""})


def test_a_second_document_is_refused_before_anything_is_sent(target: Any, fake: Any, submission: Any) -> None:
    second = Package(f"{submission().package.text}\n---\nplatforms: {{kubernetes: {{}}}}\n")
    with pytest.raises(UsageError, match="takes one YAML document") as raised:
        target.submit(submission(package=second))
    assert "--target vertex" in str(raised.value.remedy)
    assert fake.requests() == []


def test_roots_and_parameters_are_refused_before_anything_is_sent(
    fake: Any, clients: Any, config: Any, submission: Any, package: Any
) -> None:
    elsewhere = VertexTarget(config.model_copy(update={"pipeline_root": "s3://example-bucket"}), clients)
    with pytest.raises(UsageError, match="pipeline_root must begin with gs://"):
        elsewhere.submit(submission())
    with pytest.raises(UsageError, match="has no parameter sauce; there are limit, source"):
        VertexTarget(config, clients).submit(submission(parameters={"sauce": "x"}))
    assert fake.requests() == []


def test_a_target_without_project_and_region_says_so() -> None:
    with pytest.raises(UsageError, match=r"needs vertex\.project and vertex\.region"):
        VertexTarget(TargetConfig(kind="vertex"))
