"""Checkpoints: whole or not there, written beside the training, kept to a number, on any storage."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import ml_dtypes
import numpy as np
import pytest

from tidemill.errors import PlatformError
from tidemill.train import checkpoints
from tidemill.train.checkpoints import NAME, Checkpoints, Progress, directory_of, newest_step, remove_remote

ARRAYS = [np.arange(6.0).reshape(2, 3), np.array(7), np.ones(4, ml_dtypes.bfloat16)]


@pytest.fixture(params=["disk", "memory"])
def directory(request, tmp_path):
    if request.param == "disk":
        yield str(tmp_path / "checkpoints")
        return
    yield f"memory://{tmp_path.name}/checkpoints"
    fsspec.filesystem("memory").store.clear()


def files(directory):
    storage, path = fsspec.core.url_to_fs(directory)
    return {Path(name).name: name for name in storage.ls(path, detail=False)}


def save(store, *steps):
    for step in steps:
        store.save(Progress(steps=step, history=[{"epoch": 1}], resumed=[2]), ARRAYS, [np.full(2, step)])
    store.finish()


def spoil(directory, name, change):
    storage, _ = fsspec.core.url_to_fs(directory)
    path = files(directory)[name]
    storage.pipe_file(path, change(storage.cat_file(path)))


def test_what_is_restored_is_what_was_saved(directory):
    save(Checkpoints(directory, "key"), 3)
    restored = Checkpoints(directory, "key").restore()
    assert restored is not None
    progress, variables, best = restored
    assert progress == Progress(steps=3, history=[{"epoch": 1}], resumed=[2])
    assert [(v.dtype, v.tolist()) for v in variables] == [(v.dtype, v.tolist()) for v in ARRAYS]
    assert [b.tolist() for b in best] == [[3, 3]]


def test_where_nothing_was_saved_nothing_is_restored(directory):
    assert Checkpoints(directory, "key").restore() is None
    assert newest_step(directory) is None


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_are_kept_as_are_asked_for(directory, keep):
    save(Checkpoints(directory, "key", keep), 1, 2, 3, 3, 4, 5)
    steps = [int(NAME.fullmatch(name)["step"]) for name in sorted(files(directory))]
    assert steps == [1, 2, 3, 4, 5][-keep:]
    assert newest_step(directory) == 5


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda content: content[:-1] + bytes([content[-1] ^ 1]), id="the last bit is wrong"),
        pytest.param(lambda content: content[:100] + bytes([content[100] ^ 64]) + content[101:], id="one bit is wrong"),
        pytest.param(lambda content: content[: len(content) // 2], id="half of it is missing"),
        pytest.param(lambda content: b"", id="it is empty"),
    ],
)
def test_a_damaged_one_is_told_and_the_one_before_is_used(directory, change, capsys):
    save(Checkpoints(directory, "key"), 1, 2)
    newest = max(files(directory))
    spoil(directory, newest, change)
    restored = Checkpoints(directory, "key").restore()
    assert restored is not None
    assert restored[0].steps == 1
    assert f"train: {newest} is damaged and not used" in capsys.readouterr().out
    assert newest not in files(directory), "it would count among those that are kept"


def test_one_of_other_inputs_is_told_and_removed(directory, capsys):
    save(Checkpoints(directory, "other"), 5)
    assert Checkpoints(directory, "key").restore() is None
    assert "is of other inputs; it is not used and training starts anew" in capsys.readouterr().out
    assert files(directory) == {}


def test_what_a_killed_writer_left_is_not_used_and_removed(directory):
    save(Checkpoints(directory, "key"), 1)
    storage, path = fsspec.core.url_to_fs(directory)
    storage.pipe_file(f"{path}/checkpoint-0000000002.partial", b"PK half")
    restored = Checkpoints(directory, "key").restore()
    assert restored is not None
    assert restored[0].steps == 1
    assert len(files(directory)) == 1


def test_workers_that_are_not_the_chief_write_and_remove_nothing(directory):
    save(Checkpoints(directory, "other"), 1)
    other = Checkpoints(directory, "key", writes=False)
    save(other, 2)
    assert other.restore() is None
    assert newest_step(directory) == 1


def test_a_training_goes_on_while_a_checkpoint_is_written_and_the_next_save_waits(tmp_path, monkeypatch):
    writing, go_on, moves = threading.Event(), threading.Event(), []
    sync = checkpoints._Hashing.sync

    def slow(self):
        moves.append("begun")
        writing.set()
        assert go_on.wait(20)
        sync(self)
        moves.append("ended")

    monkeypatch.setattr(checkpoints._Hashing, "sync", slow)
    store = Checkpoints(tmp_path, "key")
    progress = Progress(steps=1)
    store.save(progress, ARRAYS, [])
    assert writing.wait(20), "the caller goes on"
    progress.steps = 2  # which must not change what is being written
    assert newest_step(tmp_path) is None
    threading.Timer(0.2, go_on.set).start()
    store.save(progress, ARRAYS, [])
    assert moves[:2] == ["begun", "ended"], "never two at once"
    store.finish()
    restored = store.restore()
    assert restored is not None
    assert restored[0].steps == 2
    assert sorted(int(NAME.fullmatch(n)["step"]) for n in files(str(tmp_path))) == [1, 2]


def test_storage_that_fails_is_told_by_the_next_save_and_the_last_whole_one_remains(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path, "key")
    save(store, 1)

    def full(self):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints._Hashing, "sync", full)
        store.save(Progress(steps=2), ARRAYS, [])
        with pytest.raises(PlatformError, match=r"a checkpoint can't be written \(got OSError: .*No space left"):
            store.finish()
    restored = store.restore()
    assert restored is not None
    assert restored[0].steps == 1
    assert len(files(str(tmp_path))) == 1


def test_storage_that_can_not_be_read_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="the checkpoints can't be read"):
        Checkpoints(tmp_path / "file" / "below", "key").restore()
    with pytest.raises(PlatformError, match="the checkpoints can't be read"):
        newest_step(tmp_path / "file" / "below")


def test_all_are_removed_when_the_training_is_over(directory):
    """Those at an address: what lies in the scratch goes with that."""
    scratch, uri = Path("/scratch"), str(directory)
    address = directory_of(uri, scratch)
    save(Checkpoints(address, "key"), 1, 2)
    save(Checkpoints(f"{uri}/of-another", "key"), 1)
    remove_remote(None, scratch)
    assert newest_step(address) == 2
    remove_remote(uri, scratch)
    remove_remote(uri, scratch)
    assert newest_step(address) is None
    assert newest_step(f"{uri}/of-another") == 1


def test_a_training_is_done_though_its_checkpoints_stay(tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise ConnectionError("no route to the storage")

    uri = f"file://{tmp_path}"
    save(Checkpoints(directory_of(uri, tmp_path), "key"), 1)
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.rm", refuse)
    remove_remote(uri, tmp_path)
    assert "the checkpoints can't be removed: ConnectionError: no route" in capsys.readouterr().err


def test_a_writer_that_is_killed_at_any_moment_leaves_a_whole_one(tmp_path):
    """It saves as fast as it can, and is killed ten times; each time the newest one is whole and follows the last."""
    program = """if True:
        import sys
        import numpy as np
        from tidemill.train.checkpoints import Checkpoints, Progress
        store = Checkpoints(sys.argv[1], "key")
        restored = store.restore()
        step = restored[0].steps if restored else 0
        while True:
            step += 1
            store.save(Progress(steps=step), [np.full(200_000, step)], [])
    """
    last = 0
    for kill in range(10):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
        deadline = time.monotonic() + 30
        while (newest_step(tmp_path) or 0) <= last and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.003 * kill)
        process.kill()
        process.wait()
        store = Checkpoints(tmp_path, "key")
        restored = store.restore()
        assert restored is not None
        progress, (values,), _ = restored
        assert progress.steps > last
        assert (values == progress.steps).all()
        assert not list(tmp_path.glob("*.partial"))
        last = progress.steps
