"""Schedules on the KFP fake: one of a name, changed without a moment of none or two, whatever breaks off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import kfp_fake_cron
import pytest
from deployable import compiled
from kfp_fake import KfpFake

from tidemill.errors import PlatformError, UsageError
from tidemill_pipelines.targets.compilation import Package
from tidemill_pipelines.targets.config import TargetConfig, parse_target
from tidemill_pipelines.targets.kubernetes.marks import schedule_mark
from tidemill_pipelines.targets.kubernetes.schedules import Schedules
from tidemill_pipelines.targets.kubernetes.target import KubernetesTarget
from tidemill_pipelines.targets.remote import ScheduleRequest, Submission

CONFIG = """
kind: kubernetes
pipeline_root: s3://example-bucket/tidemill
service_account: tidemill-pipeline
kubernetes: {host: '%s', cron_time_zone: Europe/Berlin}
"""


class Clock:
    """Time that goes on when somebody waits, and by a little with every look."""

    def __init__(self, now: datetime) -> None:
        self.now, self.waited = now, 0.0
        self.passing: Callable[[datetime, datetime], None] = lambda before, after: None

    def tell(self) -> datetime:
        self._go(0.01)
        return self.now

    def pause(self, seconds: float) -> None:
        self.waited += seconds
        self._go(seconds)

    def _go(self, seconds: float) -> None:
        before, self.now = self.now, self.now + timedelta(seconds=seconds)
        self.passing(before, self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 3, 2, 12, 30, 30, tzinfo=UTC))


@pytest.fixture
def config(kfp: KfpFake) -> TargetConfig:
    return parse_target(CONFIG % kfp.address, "target")


@pytest.fixture
def target(config: TargetConfig, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> KubernetesTarget:
    class Timed(KubernetesTarget):
        @property
        def _schedules(self) -> Schedules:
            return Schedules(self._kfp, self._config, clock.tell, clock.pause)

    return Timed(config)


@pytest.fixture
def request_(package: Package) -> ScheduleRequest:
    submission = Submission("lending", package, "unused", {"source": "s3://example-bucket/loans.csv"})
    return ScheduleRequest("nightly", submission, "0 3 * * *", "Europe/Berlin")


def test_what_arrives_is_what_was_asked_for(kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest) -> None:
    start, end = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)
    told = target.create_schedule(replace(request_, max_concurrent=3, catch_up=True, start=start, end=end))
    (sent,) = kfp.sent("POST", "/apis/v2beta1/recurringruns")
    schedule = sent.json["trigger"]["cron_schedule"]
    assert schedule["cron"] == "0 0 3 * * *"
    assert (schedule["start_time"], schedule["end_time"]) == ("2026-04-01T00:00:00+00:00", "2026-12-31T00:00:00+00:00")
    assert (sent.json["max_concurrency"], sent.json["no_catchup"], sent.json["mode"]) == ("3", False, "ENABLE")
    assert sent.json["service_account"] == "tidemill-pipeline"
    assert sent.json["runtime_config"]["pipeline_root"] == "s3://example-bucket/tidemill"
    assert sent.json["pipeline_version_reference"]["pipeline_version_id"] in kfp.versions
    assert (told.cron, told.time_zone, told.state, told.catch_up) == ("0 3 * * *", "Europe/Berlin", "active", True)
    assert told.next_run == datetime(2026, 4, 1, 3, tzinfo=ZoneInfo("Europe/Berlin"))
    assert not told.existed


def test_the_same_is_made_once_and_another_of_its_name_is_refused(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest
) -> None:
    first = target.create_schedule(request_)
    again = target.create_schedule(replace(request_, cron="00 03  * * *"))
    assert (again.id, again.existed, len(kfp.recurring)) == (first.id, True, 1)
    for other in (
        replace(request_, cron="0 4 * * *"),
        replace(request_, time_zone="UTC", cron="15 * * * *"),
        replace(request_, max_concurrent=2),
        replace(request_, catch_up=True),
        replace(request_, submission=replace(request_.submission, package=compiled(greeting="hi"))),
        replace(request_, submission=replace(request_.submission, parameters={"source": "s3://other"})),
    ):
        with pytest.raises(
            UsageError,
            match=r"one of that name that differs(.|\n)*`tidemill schedule update PROBLEM_DIR --name nightly",
        ):
            target.create_schedule(other)
    assert len(kfp.recurring) == 1


def test_an_answer_that_was_lost_makes_no_second_one(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest
) -> None:
    kfp.fail("POST", "/apis/v2beta1/recurringruns", 503, after=True)
    target.create_schedule(request_)
    assert len(kfp.recurring) == 1


def test_of_two_made_at_the_same_moment_the_later_goes(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, race = Schedules._settled, iter([True])

    def settled(self: Schedules, name: str, experiment: str) -> Any:
        found = seen(self, name, experiment)
        if next(race, False):
            target.create_schedule(request_)
        return found

    monkeypatch.setattr(Schedules, "_settled", settled)
    assert target.create_schedule(request_).existed
    assert len(kfp.recurring) == 1


def test_paused_resumed_and_deleted(kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest) -> None:
    target.create_schedule(request_)
    paused = target.pause_schedule("nightly")
    assert (paused.state, paused.next_run) == ("paused", None)
    target.pause_schedule("nightly")
    assert len(kfp.sent("POST", ".*:disable")) == 1
    assert target.resume_schedule("nightly").state == "active"
    assert [s.name for s in target.schedules()] == ["nightly"]
    target.delete_schedule("nightly")
    assert (target.schedules(), kfp.recurring) == ([], {})


def test_what_does_not_exist_is_told_with_what_does(target: KubernetesTarget, request_: ScheduleRequest) -> None:
    assert target.schedules() == []
    target.create_schedule(request_)
    for method in (target.pause_schedule, target.resume_schedule, target.delete_schedule):
        with pytest.raises(UsageError, match="there is none of that name; there is nightly"):
            method("weekly")
    with pytest.raises(UsageError, match="there is none of that name"):
        target.update_schedule(replace(request_, name="weekly"))


def test_those_that_others_made_are_left_alone(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest
) -> None:
    target.create_schedule(request_)
    (ours,) = kfp.recurring.values()
    kfp.recurring["other"] = {**ours, "recurring_run_id": "other", "description": "by hand"}
    assert [s.id for s in target.schedules()] == [ours["recurring_run_id"]]
    target.delete_schedule("nightly")
    assert list(kfp.recurring) == ["other"]


def test_one_that_has_ended_says_so(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest, clock: Clock
) -> None:
    end = clock.now + timedelta(hours=2)
    told = target.create_schedule(replace(request_, end=end))
    assert (told.state, told.next_run) == ("active", None)
    clock.now = end + timedelta(hours=1)
    assert target.schedules()[0].state == "ended"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_concurrent": 11}, "KFP lets 1 to 10 runs"),
        ({"max_concurrent": 0}, "KFP lets 1 to 10 runs"),
        ({"time_zone": "Europe/Berlni"}, "a name of the IANA database"),
        ({"time_zone": "America/New_York"}, "changes with summer time"),
        ({"cron": "0 0 3 * * *"}, "expected five fields"),
        ({"start": datetime(2026, 4, 1)}, "its start needs a time zone"),
        ({"end": datetime(2026, 1, 1, tzinfo=UTC)}, "must end after it starts"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        target.create_schedule(replace(request_, **change))
    assert not kfp.recurring
    assert not kfp.versions


class Controller:
    """What KFP's controller starts while the clock goes on.

    It looks at its schedules every ten seconds. A schedule that is enabled then starts a run for the last time that
    was due since its own last run, or since its creation.
    """

    def __init__(self, kfp: KfpFake, clock: Clock, phase: int) -> None:
        self.kfp, self.phase = kfp, phase
        self.started = list[datetime]()
        self._since = dict[str, datetime]()
        clock.passing = self.passing

    def passing(self, before: datetime, after: datetime) -> None:
        self._look(before, starts=False)
        look = before.replace(second=0, microsecond=0) + timedelta(seconds=self.phase)
        while look <= after:
            if look > before:
                self._look(look, starts=True)
            look += timedelta(seconds=10)

    def _look(self, now: datetime, starts: bool) -> None:
        for identity, job in list(self.kfp.recurring.items()):
            since = self._since.setdefault(identity, now)
            wire = kfp_fake_cron.parse(job["trigger"]["cron_schedule"]["cron"])
            due = [
                time for time in wire.times(since, now + timedelta(seconds=1), "Europe/Berlin") if since < time <= now
            ]
            if starts and due and job["mode"] == "ENABLE":
                self.started.append(due[-1])
                self._since[identity] = due[-1]


@pytest.mark.parametrize("second", [0, 11, 24, 54])
@pytest.mark.parametrize("phase", [1, 9])
def test_a_change_neither_loses_a_run_nor_doubles_one(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest, clock: Clock, second: int, phase: int
) -> None:
    """Every minute is due, the worst case: the change happens in the quiet part of one."""
    clock.now = datetime(2026, 3, 2, 12, 30, second, tzinfo=UTC)
    controller = Controller(kfp, clock, phase)
    minutely = replace(request_, cron="* * * * *")
    target.create_schedule(minutely)
    clock.pause(120)
    changed = target.update_schedule(replace(minutely, max_concurrent=2))
    clock.pause(120)
    assert (changed.max_concurrent, len(kfp.recurring)) == (2, 1)
    begun = [time.minute for time in controller.started]
    assert begun == list(range(begun[0], begun[0] + len(begun)))
    assert len(begun) >= 4
    switches = kfp.sent("POST", ".*:(enable|disable)")
    assert [s.path.rpartition(":")[2] for s in switches] == ["disable", "enable"]
    assert clock.waited - 240 <= 36


def test_a_change_that_had_not_begun_is_undone_so_that_nothing_runs_twice(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest, clock: Clock
) -> None:
    controller = Controller(kfp, clock, phase=5)
    minutely = replace(request_, cron="* * * * *")
    target.create_schedule(minutely)
    kfp.fail("POST", ".*:disable", 500)
    with pytest.raises(PlatformError, match="500"):
        target.update_schedule(replace(minutely, max_concurrent=2))
    clock.pause(180)
    assert target.update_schedule(replace(minutely, max_concurrent=2)).max_concurrent == 2
    clock.pause(120)
    begun = [time.minute for time in controller.started]
    assert begun == list(range(begun[0], begun[0] + len(begun)))


def test_far_from_a_due_time_nobody_waits(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest, clock: Clock
) -> None:
    target.create_schedule(request_)
    target.update_schedule(replace(request_, cron="0 4 * * *"))
    assert clock.waited == 0
    assert [s.cron for s in target.schedules()] == ["0 4 * * *"]


def test_an_equal_change_changes_nothing(kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest) -> None:
    made = target.create_schedule(request_)
    told = target.update_schedule(request_)
    assert (told.id, told.existed) == (made.id, True)


def test_a_paused_one_stays_paused(kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest) -> None:
    target.create_schedule(request_)
    target.pause_schedule("nightly")
    assert target.update_schedule(replace(request_, cron="0 4 * * *")).state == "paused"
    assert (len(kfp.recurring), len(kfp.sent("POST", ".*:enable"))) == (1, 0)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/apis/v2beta1/recurringruns"),
        ("POST", ".*:disable"),
        ("POST", ".*:enable"),
        ("DELETE", ".*"),
    ],
)
def test_a_change_that_broke_off_is_completed_by_the_next_command(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest, method: str, path: str, after: bool
) -> None:
    target.create_schedule(request_)
    changed = replace(request_, cron="0 4 * * *")
    kfp.fail(method, path, 500, after=after)
    with pytest.raises(PlatformError, match="500"):
        target.update_schedule(changed)
    told = target.update_schedule(changed)
    assert (told.cron, told.state, len(kfp.recurring)) == ("0 4 * * *", "active", 1)


def test_what_a_broken_off_change_left_is_shown_as_one(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest
) -> None:
    target.create_schedule(request_)
    kfp.fail("POST", ".*:disable", 500)
    with pytest.raises(PlatformError, match="500"):
        target.update_schedule(replace(request_, cron="0 4 * * *"))
    assert len(kfp.recurring) == 2
    assert [(s.cron, s.state) for s in target.schedules()] == [("0 3 * * *", "active")]
    target.delete_schedule("nightly")
    assert not kfp.recurring


def test_a_run_of_a_schedule_is_found_among_the_runs(
    kfp: KfpFake, target: KubernetesTarget, request_: ScheduleRequest
) -> None:
    made = target.create_schedule(request_)
    due = datetime(2026, 3, 3, 2, tzinfo=UTC)
    first = kfp.fire(made.id, due)
    assert kfp.fire(made.id, due + timedelta(days=1)) is None, "one at a time"
    assert [run.id for run in target.runs(5)] == [first]
    target.pause_schedule("nightly")
    kfp.end(str(first), "SUCCEEDED")
    assert kfp.fire(made.id, due + timedelta(days=2)) is None, "paused"


def test_marks_of_others_are_not_read_as_ours() -> None:
    for text in (None, "", "by hand", "tidemill ", "tidemill []", 'tidemill {"cron": "x"}', "tidemill {"):
        assert schedule_mark(text) is None
