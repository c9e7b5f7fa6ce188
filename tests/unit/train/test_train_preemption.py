"""A training that is told to end saves where it stands, says so by its exit code, and goes on from there.

test_train_kills.py has the same with two workers, of which one is told.
"""

from __future__ import annotations

import os
import signal

import fsspec
import pytest

from tidemill.artifacts import ModelManifest
from tidemill.errors import Preempted, ProblemError
from tidemill.jobs.job import CHECKPOINTS
from tidemill.train.checkpoints import Checkpoints, directory_of
from tidemill.train.history import write_history
from tidemill.train.preemption import Notice, listening
from tidemill.train.run import run
from tidemill.train.steps import Steps
from tidemill.train.task import train

TRAINING = {
    "model": "linear",
    "max_epochs": 4,
    "batch_size": 32,
    "learning_rate": 0.01,
    "checkpoint_every_steps": 8,
    "steps_per_execution": 1,
}


def weights_of(paths):
    return ModelManifest.read(paths["model"]).lineage["weights"]


@pytest.fixture
def told_after(monkeypatch):
    """Returns a function that has this process told to end in the n-th call from now."""

    def told_after(calls, number=signal.SIGTERM):
        original = Steps.train

        def counted(self, *arguments):
            nonlocal calls
            calls -= 1
            if calls == 0:
                os.kill(os.getpid(), number)
            return original(self, *arguments)

        monkeypatch.setattr(Steps, "train", counted)

    return told_after


def task_of(inputs, name):
    paths = inputs.arguments(name)
    scratch = paths.pop("checkpoints")
    scratch.mkdir(parents=True)
    return {**{key: str(path) for key, path in paths.items()}, "scratch": scratch}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_after_the_step_that_it_is_in_and_a_retry_goes_on_with_the_next(make_inputs, told_after, number):
    inputs = make_inputs(rows=600, training=TRAINING)
    uninterrupted = inputs.arguments("uninterrupted")
    run(**uninterrupted)
    paths = task_of(inputs, "told")
    told_after(31, number)
    with pytest.raises(Preempted, match=rf"before it was done, with all saved at step 31 \(got signal {number.name}\)"):
        train(**paths)
    assert Preempted.exit_code == 5
    assert not (inputs.directory / "told" / "model").exists()
    report = train(**paths)
    assert report.resumed_from_step == 31
    assert report.resumed == (31,)
    assert report.steps == 76
    assert weights_of({"model": inputs.directory / "told" / "model"}) == weights_of(uninterrupted)


def test_it_goes_on_from_checkpoints_in_remote_storage_and_leaves_none_there(make_inputs, told_after):
    inputs = make_inputs(rows=300, training={**TRAINING, "checkpoint_uri": "memory://bucket/checkpoints"})
    paths = task_of(inputs, "remote")
    told_after(13)
    with pytest.raises(Preempted, match="saved at step 13"):
        train(**paths)
    storage = fsspec.filesystem("memory")
    assert len(storage.find("/bucket/checkpoints")) == 2
    assert list((inputs.directory / "remote" / "checkpoints").iterdir()) == []
    assert train(**paths).resumed_from_step == 13
    assert storage.find("/bucket/checkpoints") == []


def test_trainings_that_share_an_address_have_directories_of_their_own(tmp_path):
    one, other = (directory_of("gs://bucket/runs/", tmp_path / name / CHECKPOINTS) for name in ("one", "other"))
    assert one.startswith("gs://bucket/runs/")
    assert "//" not in one.removeprefix("gs://")
    assert one != other
    assert directory_of(None, tmp_path) == str(tmp_path / "train")


def test_an_address_that_nothing_here_can_open_is_refused():
    with pytest.raises(ProblemError, match=r"training.checkpoint_uri: must be an address that .* \(got nowhere://x"):
        Checkpoints("nowhere://x", "key")


def test_outside_of_its_steps_a_training_ends_at_once():
    with listening() as notice:
        with pytest.raises(Preempted, match=r"was told to end before it was done .*SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert notice.asked


def test_within_its_steps_it_says_itself_when_and_begins_nothing_after():
    done = []

    def work(notice):
        with notice.deferred():
            with notice.deferred():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("after")

    with listening() as notice, pytest.raises(Preempted):
        work(notice)
    assert done == ["inner", "outer"]


def test_what_is_done_is_not_undone_by_a_signal_that_comes_too_late():
    with listening() as notice:
        with notice.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            notice.done()
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.asked


def test_told_to_end_after_the_last_step_a_training_keeps_its_remote_checkpoints_for_the_retry(
    make_inputs, monkeypatch
):
    """It is told while it writes the history; the retry takes no step again."""
    inputs = make_inputs(rows=300, training={**TRAINING, "checkpoint_uri": "memory://bucket/late"})
    paths = task_of(inputs, "late")
    original = write_history

    def told(*arguments):
        monkeypatch.setattr("tidemill.train.run.write_history", original)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("tidemill.train.run.write_history", told)
    with pytest.raises(Preempted):
        train(**paths)
    storage = fsspec.filesystem("memory")
    assert len(storage.find("/bucket/late")) == 2
    report = train(**paths)
    assert report.resumed_from_step == report.steps
    assert storage.find("/bucket/late") == []


def test_a_worker_that_others_make_end_says_so():
    assert "another worker was told to end" in str(Notice().preempted(7))


def test_signals_mean_what_they_did_before_when_it_is_over():
    before = signal.getsignal(signal.SIGTERM)
    with listening():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
