"""Heartbeats as their watcher understands them: who hangs, who is slow, and who is only waiting for others."""

from __future__ import annotations

import errno
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tidemill.jobs.heartbeats import SLOW_STEPS, Heartbeat, Watch, forget_heartbeats
from tidemill.train import heartbeats
from tidemill.train.heartbeats import Heart


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def told(watch, clock, shared, *beats, seconds=1.0):
    """Has the workers say something, and the watcher look after so many seconds."""
    for beat in beats:
        beat.write(shared)
    clock.now += seconds
    return watch.look()


def test_workers_that_get_on_do_not_hang(tmp_path, clock):
    watch = Watch(tmp_path, 2, 10, clock)
    for i in range(1, 8):
        beats = [Heartbeat(worker, count=i, progress=i, phase="step", step=i) for worker in (0, 1)]
        assert told(watch, clock, tmp_path, *beats, seconds=5) is None


def test_a_heartbeat_that_another_machine_replaces_meanwhile_is_read_the_next_time(tmp_path, monkeypatch):
    Heartbeat(0, count=1).write(tmp_path)

    def fail(number):
        def read_text(self):
            raise OSError(number, "while it was read")

        monkeypatch.setattr(Path, "read_text", read_text)

    fail(errno.ESTALE)
    assert Heartbeat.read(tmp_path, 0) is None
    fail(errno.EIO)
    with pytest.raises(OSError, match="while it was read"):
        Heartbeat.read(tmp_path, 0)


def test_a_worker_that_never_said_anything_is_named(tmp_path, clock):
    watch = Watch(tmp_path, 2, 10, clock)
    chief = Heartbeat(0, count=1, progress=1)
    for i in range(1, 11):
        hang = told(watch, clock, tmp_path, replace(chief, count=i))
    assert hang is not None
    assert (hang.workers, hang.reason) == (
        (1,),
        "worker-1 got nothing done for 10 s while it started, without a sign of life",
    )


@pytest.mark.parametrize(
    ("phase", "where"),
    [
        ("input", "while it waited for the rows of step 8"),
        ("evaluation", "in the evaluation after step 7"),
        ("ending", "at the end, after step 7"),
    ],
)
def test_the_one_that_is_not_at_a_step_holds_up_those_that_are(tmp_path, clock, phase, where):
    watch = Watch(tmp_path, 3, 10, clock)
    beats = [Heartbeat(worker, progress=9, phase="step", step=7) for worker in (0, 1)]
    for i in range(13):
        if i == 2:  # it hangs later than the others began to wait for it
            beats.append(Heartbeat(2, progress=9, phase=phase, step=7))
        hang = told(watch, clock, tmp_path, *(replace(beat, count=i) for beat in beats))
        if hang:
            break
    assert hang is not None
    assert (hang.workers, hang.reason) == ((2,), f"worker-2 got nothing done for 8 s {where}")


def test_where_all_wait_in_a_step_the_ones_behind_are_named(tmp_path, clock):
    watch = Watch(tmp_path, 3, 10, clock)
    for i in range(12):
        beats = [Heartbeat(worker, count=i, progress=5, phase="step", step=7 - (worker == 1)) for worker in range(3)]
        hang = told(watch, clock, tmp_path, *beats)
    assert hang is not None
    assert hang.workers == (1,)
    assert hang.reason.endswith("within step 7")


def test_a_worker_that_has_ended_is_not_waited_for(tmp_path, clock):
    watch = Watch(tmp_path, 2, 10, clock)
    for i in range(30):
        chief = Heartbeat(0, count=i, progress=i, phase="ending")
        assert told(watch, clock, tmp_path, chief, Heartbeat(1, count=1, progress=1, phase="ended")) is None


def test_clocks_that_differ_between_machines_do_not_matter(tmp_path, clock):
    """Nothing that a worker writes is a time."""
    assert not {name for name in Heartbeat.__dataclass_fields__ if "time" in name or name.endswith("_at")}
    Heartbeat(0, count=1).write(tmp_path)
    assert Heartbeat.read(tmp_path, 0) == Heartbeat(0, count=1)
    forget_heartbeats(tmp_path, 2)
    assert Heartbeat.read(tmp_path, 0) is None


def figures(worker, *, input_ms=1.0, cpu_ms=20.0, steps=SLOW_STEPS):
    seconds = steps * 0.03
    return Heartbeat(
        worker, count=1, steps=steps, input_s=steps * input_ms / 1000, cpu_s=steps * cpu_ms / 1000, seconds=seconds
    )


def test_a_straggler_is_named_once_with_its_figures(tmp_path, clock):
    watch = Watch(tmp_path, 3, 10, clock)
    told(watch, clock, tmp_path, figures(0), figures(1, input_ms=12), figures(2))
    assert [str(s) for s in watch.stragglers()] == [
        "worker-1 is a straggler: 12.0 ms of input per step, the median is 1.0 ms"
    ]
    assert watch.stragglers() == []


def test_of_two_workers_the_slower_one_is_the_straggler(tmp_path, clock):
    watch = Watch(tmp_path, 2, 10, clock)
    told(watch, clock, tmp_path, figures(0, cpu_ms=60), figures(1))
    assert [str(s) for s in watch.stragglers()] == [
        "chief is a straggler: 60.0 ms of computing per step, the median is 20.0 ms"
    ]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(figures(1, input_ms=1.9), id="less than twice the median"),
        pytest.param(figures(1, input_ms=3.5), id="less than a tenth of a step"),
        pytest.param(figures(1, input_ms=50, steps=SLOW_STEPS - 1), id="too few steps"),
    ],
)
def test_what_is_not_worth_a_warning_is_not_told(tmp_path, clock, other):
    watch = Watch(tmp_path, 2, 10, clock)
    told(watch, clock, tmp_path, figures(0), other)
    assert watch.stragglers() == []


def test_a_heart_beats_while_its_process_computes_and_says_when_it_has_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeats, "INTERVAL_S", 0.05)
    heart = Heart(3)
    with heart.beating(tmp_path):
        heart.at("input")
        time.sleep(0.1)
        heart.at("step")
        heart.stepped(40, 8)
        heart.at("step")
        first = awaited(tmp_path, lambda beat: beat.phase == "step")
        later = awaited(tmp_path, lambda beat: beat.count > first.count)
        assert later.progress == first.progress
    last = Heartbeat.read(tmp_path, 3)
    assert last is not None
    assert (last.phase, last.step, last.steps) == ("ended", 40, 8)
    assert 0.1 <= last.input_s < 1


def awaited(shared, condition):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        beat = Heartbeat.read(shared, 3)
        if beat and condition(beat):
            return beat
        time.sleep(0.01)
    raise AssertionError(f"still {beat}")


def test_a_heartbeat_that_cannot_be_written_is_told_once_and_ends_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(heartbeats, "INTERVAL_S", 0.01)
    (tmp_path / "heartbeats").write_text("a file where the directory should be")
    with Heart().beating(tmp_path):
        time.sleep(0.1)
    assert capfd.readouterr().err.count("train: can't write a heartbeat: ") == 1
