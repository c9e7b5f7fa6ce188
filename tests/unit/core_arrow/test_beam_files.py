"""A stage and its workers find each other's files, whether they share a disk or only a place that both reach."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

pytest.importorskip("fsspec", reason="the environment has no fsspec")

from fsspec.core import url_to_fs

from tidemill.beam_files import SamePaths, exchange_at, local_copy, opened
from tidemill.errors import UsageError


@pytest.fixture(params=["disk", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place on a shared volume, and one that has a URI only."""
    return str(tmp_path / "shared") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/temp/"


def test_without_a_place_workers_are_told_the_stage_s_own_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with exchange_at(None) as exchange:
        assert isinstance(exchange, SamePaths)
        assert exchange.given(Path("model")) == str(tmp_path / "model")
        with exchange.made(Path("out")) as there:
            assert there == str(tmp_path / "out")


def test_workers_read_copies_of_files_and_directories(location, tmp_path):
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "variables" / "one").write_bytes(b"1")
    (tmp_path / "rows").write_bytes(b"2")
    with exchange_at(location) as exchange:
        with opened(exchange.given(tmp_path / "rows"), "rb") as file:
            assert file.read() == b"2"
        with local_copy(exchange.given(tmp_path / "model")) as copy:
            assert (copy / "variables" / "one").read_bytes() == b"1"


def test_what_workers_write_comes_back(location, tmp_path):
    with exchange_at(location) as exchange, exchange.made(tmp_path / "out") as there:
        for name in ("train/part", "manifest"):
            with opened(f"{there}/{name}", "wb") as file:
                file.write(name.encode())
        assert not (tmp_path / "out").exists()
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    found = {path.relative_to(tmp_path / "out").as_posix(): path.read_text() for path in files}
    assert found == {"train/part": "train/part", "manifest": "manifest"}


def test_nothing_is_left_behind_even_when_the_stage_fails(location, tmp_path):
    (tmp_path / "rows").write_bytes(b"2")
    filesystem, root = url_to_fs(location)

    def fail() -> None:
        with exchange_at(location) as exchange:
            exchange.given(tmp_path / "rows")
            assert len(filesystem.find(root)) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not filesystem.find(root)


def test_a_place_of_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match=r"URI of a known filesystem .*nowhere"), exchange_at("nowhere://bucket/temp"):
        pass
