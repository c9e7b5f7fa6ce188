"""What a job reads is laid where its workers see it, once and whole; what it makes comes back whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.errors import PlatformError
from tidemill.files import digest_tree
from tidemill.jobs.handover import Artefacts, handed_back, handed_over


@pytest.fixture
def artefacts(tmp_path: Path) -> Artefacts:
    """A bundle that is a file, as KFP hands it over, and directories; one of them with a manifest."""
    given = tmp_path / "given"
    (given / "transformed" / "train").mkdir(parents=True)
    (given / "transformed" / "manifest.json").write_text('{"rows": {"train": 2}}')
    (given / "transformed" / "train" / "part-0.parquet").write_bytes(b"two rows")
    (given / "graph" / "empty").mkdir(parents=True)
    (given / "graph" / "saved_model.pb").write_bytes(b"graph")
    (given / "bundle").write_bytes(b"PK")
    made = tmp_path / "made"
    return Artefacts(given / "bundle", given / "transformed", given / "graph", made / "model", made / "history")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "r" / "scratch" / "train"


def files(path: Path) -> Iterator[tuple[str, int]]:
    yield from ((p.relative_to(path).as_posix(), p.stat().st_ino) for p in sorted(path.rglob("*")))


def test_the_workers_have_the_same_content_below_the_shared_directory(artefacts: Artefacts, shared: Path) -> None:
    placed = handed_over(artefacts, shared)
    for name in ("bundle", "transformed", "transform_graph"):
        own, theirs = getattr(artefacts, name), getattr(placed, name)
        assert shared in theirs.parents
        assert digest_tree(theirs) == digest_tree(own)
    assert shared in placed.model.parents
    assert shared in placed.history.parents


def test_a_retry_finds_what_is_there(artefacts: Artefacts, shared: Path) -> None:
    placed, before = handed_over(artefacts, shared), list(files(shared))
    assert handed_over(artefacts, shared) == placed
    assert list(files(shared)) == before


def test_other_content_is_laid_elsewhere(artefacts: Artefacts, shared: Path) -> None:
    first = handed_over(artefacts, shared)
    (artefacts.transformed / "manifest.json").write_text('{"rows": {"train": 3}}')
    (artefacts.transform_graph / "saved_model.pb").write_bytes(b"another")
    second = handed_over(artefacts, shared)
    assert first.transformed != second.transformed
    assert first.transform_graph != second.transform_graph
    assert first.bundle == second.bundle


def test_a_copy_that_was_cut_off_is_made_anew(
    artefacts: Artefacts, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    copy, left = shutil.copyfile, iter(range(2))

    def interrupted(source: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        return copy(source, target)

    monkeypatch.setattr("tidemill.jobs.handover.shutil.copyfile", interrupted)
    with pytest.raises(OSError, match="No space"):
        handed_over(artefacts, shared)
    monkeypatch.undo()
    placed = handed_over(artefacts, shared)
    assert digest_tree(placed.transformed) == digest_tree(artefacts.transformed)
    assert not list(shared.rglob("*.partial"))


def test_model_and_history_come_back(artefacts: Artefacts, shared: Path) -> None:
    placed = handed_over(artefacts, shared)
    (placed.model / "saved_model").mkdir(parents=True)
    (placed.model / "model.json").write_text("{}")
    placed.history.mkdir()
    (placed.history / "history.json").write_text("[]")
    handed_back(placed, artefacts)
    assert (artefacts.model / "saved_model").is_dir()
    assert (artefacts.history / "history.json").read_text() == "[]"


def test_a_job_that_ended_well_and_left_nothing_is_the_platforms_fault(artefacts: Artefacts, shared: Path) -> None:
    with pytest.raises(PlatformError, match="after a training that ended well"):
        handed_back(handed_over(artefacts, shared), artefacts)


def test_the_workers_arguments_are_the_workers(artefacts: Artefacts, shared: Path) -> None:
    """Held against the parser of ``tidemill.train.worker``, which needs no TensorFlow for it."""
    from tidemill.train.worker import _parser

    whole = Artefacts(**{**vars(artefacts), "champion": shared / "c", "hyperparameters": shared / "h"})
    parsed = vars(_parser().parse_args([str(word) for word in whole.arguments(shared)]))
    assert {name: path for name, path in parsed.items() if path is not None} == {**vars(whole), "shared": shared}
    assert "--champion" not in artefacts.arguments(shared)
