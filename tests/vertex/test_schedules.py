"""Schedules on Vertex AI: one per name, five fields and a time zone, limits, policies and times on the wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from vertex_fake import PARENT

from tidemill.errors import UsageError

SOON = datetime(2099, 1, 1, tzinfo=UTC)


@pytest.fixture
def asked(submission: Any) -> Callable[..., Any]:
    from tidemill_pipelines.targets.remote import ScheduleRequest

    def make(**changes: Any) -> Any:
        given = {"name": "nightly", "submission": submission(), "cron": "30 3 * * 1-5", "time_zone": "Europe/Berlin"}
        return ScheduleRequest(**{**given, **changes})

    return make


def test_what_arrives_is_the_schedule_and_the_run_that_it_makes(target: Any, fake: Any, asked: Any) -> None:
    end = SOON + timedelta(days=365)
    made = target.create_schedule(asked(max_concurrent=2, catch_up=True, start=SOON, end=end))
    (request,) = fake.requests("CreateSchedule")
    assert request["parent"] == PARENT
    schedule = request["schedule"]
    run = schedule.pop("create_pipeline_job_request")
    assert schedule == {
        "display_name": "nightly",
        "cron": "TZ=Europe/Berlin 30 3 * * 1-5",
        "max_concurrent_run_count": "2",
        "max_concurrent_active_run_count": "2",
        "allow_queueing": True,
        "start_time": "2099-01-01T00:00:00Z",
        "end_time": "2100-01-01T00:00:00Z",
    }
    assert run["parent"] == PARENT
    job = run["pipeline_job"]
    assert job["pipeline_spec"] == asked().submission.package.spec
    assert job["service_account"] == "tidemill-pipeline@example-project.iam.gserviceaccount.com"
    assert job["network"] == "projects/123456789012/global/networks/example"
    assert job["encryption_spec"]["kms_key_name"].endswith("/cryptoKeys/tidemill")
    assert job["runtime_config"]["gcs_output_directory"] == "gs://example-bucket/root"
    assert job["labels"] == {
        "team": "risk",
        "cost-centre": "4711",
        "tidemill-name": "toy-training",
        "tidemill-catch-up": "true",
        "tidemill-package": asked().submission.package.digest[:63],
        "tidemill-schedule": "nightly",
    }
    assert (made.cron, made.time_zone, made.max_concurrent, made.catch_up) == ("30 3 * * 1-5", "Europe/Berlin", 2, True)
    assert (made.start, made.end) == (SOON, end)
    assert (made.state, made.existed) == ("active", False)
    assert made.next_run == datetime(2099, 1, 1, 2, 30, tzinfo=UTC)  # a Thursday; Berlin is an hour ahead


def test_runs_that_are_too_many_are_left_out_unless_they_are_to_be_made_up_for(
    target: Any, fake: Any, asked: Any
) -> None:
    target.create_schedule(asked(name="one", catch_up=False))
    target.create_schedule(asked(name="two", catch_up=True))
    queueing = [r["schedule"].get("allow_queueing", False) for r in fake.requests("CreateSchedule")]
    assert queueing == [False, True]


def test_the_equal_schedule_is_found_and_a_differing_one_refused(target: Any, fake: Any, asked: Any) -> None:
    first = target.create_schedule(asked())
    again = target.create_schedule(asked(cron="30  3 * * mon-fri"))  # the same times, spelt otherwise
    assert (again.id, again.existed) == (first.id, True)
    for change, named in (
        ({"cron": "0 4 * * *"}, "cron"),
        ({"time_zone": "UTC"}, "cron"),
        ({"max_concurrent": 3}, "max_concurrent_run_count"),
        ({"catch_up": True}, "allow_queueing"),
        ({"end": SOON}, "end_time"),
        ({"submission": replace(asked().submission, parameters={"limit": 0.9})}, "run: runtime_config"),
        ({"submission": replace(asked().submission, cache=False, name="other")}, "run: display_name"),
    ):
        with pytest.raises(UsageError, match=f"schedule nightly: exists already, and differs .*{named}") as raised:
            target.create_schedule(asked(**change))
        assert "tidemill schedule update" in str(raised.value.remedy)
    assert len(fake.requests("CreateSchedule")) == 1


def test_a_changed_pipeline_is_a_differing_schedule(target: Any, asked: Any, package: Any) -> None:
    target.create_schedule(asked())
    other = replace(asked().submission, package=type(package)(package.text.replace("rows.csv", "more.csv")))
    with pytest.raises(UsageError, match="run: labels"):
        target.create_schedule(asked(submission=other))


def test_a_creation_whose_answer_was_lost_makes_no_second_schedule(target: Any, fake: Any, asked: Any) -> None:
    """Vertex AI has no id for schedules that a client could give: display names may repeat."""
    fake.refuse("CreateSchedule", "UNAVAILABLE", "the connection broke", done=True)
    made = target.create_schedule(asked())
    assert made.state == "active"
    assert [schedule.id for schedule in target.schedules()] == [made.id]
    assert len(fake.requests("CreateSchedule")) == 1


def test_a_creation_is_tried_again_while_the_service_is_unavailable(target: Any, fake: Any, asked: Any) -> None:
    fake.refuse("CreateSchedule", "UNAVAILABLE", times=2)
    target.create_schedule(asked())
    assert len(fake.requests("CreateSchedule")) == 3
    assert len(target.schedules()) == 1


def test_an_update_replaces_in_place(target: Any, fake: Any, asked: Any) -> None:
    made = target.create_schedule(asked())
    submission = replace(asked().submission, parameters={"limit": 0.9})
    changed = target.update_schedule(asked(cron="0 4 * * *", max_concurrent=3, submission=submission))
    assert (changed.id, changed.cron, changed.max_concurrent) == (made.id, "0 4 * * *", 3)
    assert changed.parameters == {"limit": 0.9}
    (request,) = fake.requests("UpdateSchedule")
    assert request["update_mask"] == (
        "allowQueueing,createPipelineJobRequest,cron,maxConcurrentActiveRunCount,maxConcurrentRunCount"
    )
    assert [schedule.id for schedule in target.schedules()] == [made.id]
    assert target.create_schedule(asked(cron="0 4 * * *", max_concurrent=3, submission=submission)).existed


def test_an_end_cannot_be_taken_away(target: Any, fake: Any, asked: Any) -> None:
    target.create_schedule(asked(end=SOON))
    with pytest.raises(UsageError, match="its end cannot be taken away again"):
        target.update_schedule(asked())
    assert target.update_schedule(asked(end=SOON + timedelta(days=1))).end == SOON + timedelta(days=1)


def test_pausing_and_resuming_are_repeatable_and_keep_the_policy(target: Any, fake: Any, asked: Any) -> None:
    for name, catch_up in (("lenient", True), ("strict", False)):
        target.create_schedule(asked(name=name, catch_up=catch_up))
        assert target.pause_schedule(name).state == "paused"
        paused = target.pause_schedule(name)
        assert (paused.state, paused.next_run, paused.catch_up) == ("paused", None, catch_up)
        assert target.resume_schedule(name).state == "active"
        assert target.resume_schedule(name).next_run is not None
    assert [r.get("catch_up", False) for r in fake.requests("ResumeSchedule")] == [True, False]
    assert len(fake.requests("PauseSchedule")) == 2


def test_a_deleted_schedule_is_gone_and_its_name_free(target: Any, asked: Any) -> None:
    first = target.create_schedule(asked())
    target.delete_schedule("nightly")
    assert target.schedules() == []
    assert target.create_schedule(asked()).id != first.id


def test_one_that_has_ended_does_not_hinder_another_of_its_name(target: Any, fake: Any, asked: Any) -> None:
    target.create_schedule(asked())
    fake.ask("complete_schedule", "nightly")
    assert [schedule.state for schedule in target.schedules()] == ["ended"]
    assert target.create_schedule(asked(cron="1 1 * * *")).existed is False
    target.delete_schedule("nightly")
    assert target.schedules() == []


@pytest.mark.parametrize("call", ["pause_schedule", "resume_schedule", "delete_schedule"])
def test_a_schedule_that_does_not_exist_is_told_with_those_that_do(target: Any, asked: Any, call: str) -> None:
    target.create_schedule(asked(name="weekly"))
    with pytest.raises(UsageError, match=r"schedule nightly: there is none of that name .*are weekly"):
        getattr(target, call)("nightly")
    with pytest.raises(UsageError, match="there is none of that name"):
        target.update_schedule(asked())


def test_names_with_quotes_are_found(target: Any, asked: Any) -> None:
    name = 'the "nightly" \\ one'
    assert target.create_schedule(asked(name=name)).existed is False
    assert target.create_schedule(asked(name=name)).existed is True


def test_two_of_one_name_made_elsewhere_are_not_guessed_between(
    target: Any, asked: Any, clients: Any, config: Any
) -> None:
    from tidemill_pipelines.targets.vertex.schedules import vertex_schedule

    for _ in range(2):
        schedule = vertex_schedule(asked(), config, PARENT)
        clients.schedules.create_schedule(request={"parent": PARENT, "schedule": schedule})
    with pytest.raises(UsageError, match="several have that name"):
        target.pause_schedule("nightly")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cron": "0 0 3 * * *"}, "expected five fields"),
        ({"cron": "61 3 * * *"}, "minute: expected 0 to 59"),
        ({"time_zone": "Europe/Atlantis"}, "time zone Europe/Atlantis"),
        ({"start": datetime(2099, 1, 1)}, "the start needs a time zone"),
        ({"start": SOON, "end": SOON}, "the end must be after the start"),
    ],
)
def test_times_that_cannot_be_meant_are_refused_before_anything_is_sent(
    target: Any, fake: Any, asked: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        target.create_schedule(asked(**change))
    assert fake.requests() == []
