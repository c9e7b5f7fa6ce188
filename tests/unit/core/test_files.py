"""A reader sees the old content or the new, whatever becomes of the writer."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.files import digest_tree, replaced_directory, sha256_file, write_json, write_text


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_text_is_replaced_and_leaves_no_debris(tmp_path):
    for text in ("old", "newér"):
        write_text(tmp_path / "deep" / "file", text)
    assert (tmp_path / "deep" / "file").read_text(encoding="utf-8") == "newér"
    assert names(tmp_path / "deep") == ["file"]


def test_a_failed_write_leaves_the_old_text(tmp_path):
    write_text(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "file", "\ud800")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_json_is_sorted_readable_and_strict(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1], "a": "é"})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": "é",\n  "b": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"a": float("nan")})


def test_a_directory_takes_its_place_when_the_block_ends_well(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").touch()
    with replaced_directory(target) as beside:
        (beside / "new").touch()
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_directory_is_as_it_was_when_the_block_raises(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileNotFoundError), replaced_directory(target) as beside:
        (beside / "new" / "deep").touch()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["out"]


def test_a_file_in_the_way_of_a_directory_is_replaced(tmp_path):
    """kfp may have made an artefact's path as a file."""
    (tmp_path / "out").touch()
    with replaced_directory(tmp_path / "out") as beside:
        (beside / "new").touch()
    assert names(tmp_path / "out") == ["new"]


WRITER = """
import sys, time
from pathlib import Path
from tidemill.files import replaced_directory
with replaced_directory(Path(sys.argv[1])) as beside:
    (beside / "new").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_the_old_directory_and_the_next_one_removes_its_debris(tmp_path):
    target = tmp_path / "out"
    with replaced_directory(target) as beside:
        (beside / "old").touch()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    with writer, writer.stdout:
        assert writer.stdout.readline() == b"writing\n"
        writer.send_signal(signal.SIGKILL)
    assert names(target) == ["old"]
    assert len(names(tmp_path)) == 2
    with replaced_directory(target) as beside:
        (beside / "newer").touch()
    assert names(target) == ["newer"]
    assert names(tmp_path) == ["out"]


REWRITER = """
import itertools, sys
from pathlib import Path
from tidemill.files import write_text
for i in itertools.count():
    write_text(Path(sys.argv[1]), f"{i % 10}" * 200_000)
"""


def test_a_text_is_whole_however_often_its_writer_is_killed(tmp_path):
    path = tmp_path / "file"
    write_text(path, "x" * 200_000)
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", REWRITER, str(path)])
        before, deadline = path.stat().st_mtime_ns, time.monotonic() + 20
        while path.stat().st_mtime_ns == before and time.monotonic() < deadline:
            time.sleep(0.01)
        writer.kill()
        writer.wait()
        text = path.read_text()
        assert len(text) == 200_000
        assert len(set(text)) == 1


def tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_a_digest_depends_on_names_and_contents_alone(tmp_path):
    files = {"a": b"1", "sub/b": b"2"}
    one, two = tree(tmp_path / "one", files), tree(tmp_path / "two", dict(reversed(files.items())))
    assert digest_tree(one) == digest_tree(two)
    assert digest_tree(one / "a") == sha256_file(one / "a")
    for i, change in enumerate(
        ({"a": b"2", "sub/b": b"2"}, {"a": b"1", "sub/c": b"2"}, {"a": b"1"}, {"a/sub/b": b"1"})
    ):
        assert digest_tree(tree(tmp_path / f"other{i}", change)) != digest_tree(one)


def test_a_digest_leaves_out_what_it_is_told_to_at_any_depth(tmp_path):
    one = tree(tmp_path / "one", {"a": b"1"})
    two = tree(tmp_path / "two", {"a": b"1", "logs/x": b"2", "sub/logs": b"3"})
    assert digest_tree(one) == digest_tree(two, exclude=("logs",))


@given(st.lists(st.binary(max_size=20), min_size=2, max_size=4))
def test_contents_that_move_between_files_change_the_digest(tmp_path_factory, contents):
    root = tmp_path_factory.mktemp("trees")
    one = tree(root / "one", {f"f{i}": c for i, c in enumerate(contents)})
    two = tree(root / "two", {f"f{i}": c for i, c in enumerate(reversed(contents))})
    assert (digest_tree(one) == digest_tree(two)) == (contents == contents[::-1])


def test_where_directories_cannot_be_renamed_files_are_moved_and_the_manifest_comes_last(tmp_path, monkeypatch):
    """Cloud Storage FUSE refuses to rename a directory with EMFILE (gcsfuse issue 655)."""
    rename, moved = os.replace, []

    def refuse_directories(source, target):
        if Path(source).is_dir():
            raise OSError(errno.EMFILE, "Too many open files", str(source))
        rename(source, target)

    move = shutil.move
    monkeypatch.setattr(os, "replace", refuse_directories)
    monkeypatch.setattr(shutil, "move", lambda source, target: (moved.append(Path(target).name), move(source, target)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale").write_text("old")
    with replaced_directory(tmp_path / "out") as directory:
        (directory / "manifest.json").write_text("{}")
        (directory / "train").mkdir()
        (directory / "train" / "part-0").write_text("rows")
        (directory / "empty").mkdir()
    assert moved == ["part-0", "manifest.json"]
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "out",
        "out/empty",
        "out/manifest.json",
        "out/train",
        "out/train/part-0",
    ]


def test_another_failure_to_rename_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EACCES, "no")))
    with pytest.raises(OSError, match="no"), replaced_directory(tmp_path / "out"):
        pass
    assert not any(tmp_path.iterdir())
