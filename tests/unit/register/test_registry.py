"""The registry is never half of anything, whoever is killed or runs beside."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tidemill.artifacts import ModelManifest
from tidemill.errors import PlatformError, UsageError
from tidemill.files import digest_tree, write_json
from tidemill.serving.registry import Aliases, Registry, model_names

_KILLED = 137


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", "toy")


def keep(extra: Path, version: int) -> None:
    write_json(extra / "lineage.json", {"version": version})


def test_a_version_has_tensorflow_servings_layout_and_what_is_kept_with_it(
    registry: Registry, models: list[Path]
) -> None:
    assert registry.add(models[0], keep, "run-1") == 1
    directory = registry.directory(1)
    assert {p.name for p in directory.iterdir()} == {
        "saved_model.pb",
        "variables",
        "assets",
        "model.json",
        "assets.extra",
    }
    assert digest_tree(directory, ("model.json", "assets.extra")) == registry.manifest(1).digest
    assert json.loads(registry.extra(1, "lineage.json").read_text()) == {"version": 1}
    assert model_names(registry.path.parent) == ["toy"]


def test_the_life_of_a_champion(registry: Registry, models: list[Path]) -> None:
    assert registry.aliases() == Aliases()
    for i in range(3):
        version = registry.add(models[i], keep, f"run-{i}")
        assert registry.aliases().challenger == version == i + 1
        assert registry.promote(version).champion == version
    aliases = registry.aliases()
    assert (aliases.champion, aliases.challenger, aliases.former) == (3, None, (1, 2))
    assert (aliases.of(3), aliases.of(1)) == (("champion",), ())
    assert registry.rollback().champion == 2
    assert registry.rollback().champion == 1
    with pytest.raises(UsageError, match="no former champion"):
        registry.rollback()
    events = [(e["serial"], e["event"], e["version"]) for e in registry.events()]
    assert events == [
        (1, "registered", 1),
        (2, "promoted", 1),
        (3, "registered", 2),
        (4, "promoted", 2),
        (5, "registered", 3),
        (6, "promoted", 3),
        (7, "rolled_back", 2),
        (8, "rolled_back", 1),
    ]


def test_the_same_model_keeps_its_version_and_what_was_kept(registry: Registry, models: list[Path]) -> None:
    registry.add(models[0], keep, "run-1")
    registry.promote(1)
    registry.add(models[1], keep, "run-2")
    before = digest_tree(registry.path)
    assert registry.add(models[0], lambda extra, version: pytest.fail("kept again"), "run-3") == 1
    assert digest_tree(registry.path) == before


def test_the_same_model_becomes_challenger_again_after_another_did(registry: Registry, models: list[Path]) -> None:
    for i in (0, 1, 0):
        version = registry.add(models[i], keep, f"run-{i}")
        assert registry.aliases().challenger == version
    registry.nominate(2)
    assert registry.aliases().challenger == 2
    registry.nominate(2)
    assert [e["event"] for e in registry.events()].count("nominated") == 1


def test_promoting_the_champion_changes_nothing(registry: Registry, models: list[Path]) -> None:
    registry.promote(registry.add(models[0], keep, "run-1"))
    before = digest_tree(registry.path)
    assert registry.promote(1).champion == 1
    assert digest_tree(registry.path) == before


def test_promoting_one_version_leaves_another_challenger(registry: Registry, models: list[Path]) -> None:
    registry.add(models[0], keep, "run-1")
    registry.add(models[1], keep, "run-2")
    assert registry.promote(1).challenger == 2


def test_a_version_that_does_not_exist_cannot_answer(registry: Registry, models: list[Path]) -> None:
    registry.add(models[0], keep, "run-1")
    with pytest.raises(UsageError, match="no version 7 is registered; there is 1"):
        registry.promote(7)
    with pytest.raises(UsageError, match="no version 7"):
        registry.nominate(7)
    assert registry.aliases().champion is None


def test_the_stamp_changes_with_the_aliases_and_only_with_them(registry: Registry, models: list[Path]) -> None:
    stamps = [registry.aliases_stamp()]
    registry.add(models[0], keep, "run-1")
    stamps.append(registry.aliases_stamp())
    assert registry.aliases_stamp() == stamps[-1]
    registry.promote(1)
    stamps.append(registry.aliases_stamp())
    assert len(set(stamps)) == 3


def test_a_registry_that_cannot_be_written_is_the_platforms_fault(tmp_path: Path, models: list[Path]) -> None:
    (tmp_path / "registry").write_text("a file")
    with pytest.raises(PlatformError, match="cannot be written"):
        Registry(tmp_path / "registry", "toy").add(models[0], keep, "run-1")


def _add(root: Path, model: Path, barrier: Any) -> None:
    barrier.wait()
    Registry(root, "toy").add(model, keep, model.name)


def test_concurrent_registrations_get_different_versions(registry: Registry, models: list[Path]) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(models))
    processes = [context.Process(target=_add, args=(registry.path.parent, m, barrier)) for m in models]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert registry.versions() == list(range(1, len(models) + 1))
    registered = {e["run_id"]: e["version"] for e in registry.events()}
    assert registered == {
        m.name: next(v for v in registry.versions() if registry.manifest(v).digest == ModelManifest.read(m).digest)
        for m in models
    }


def _killed_at(line: int, work: Callable[[], object]) -> bool:
    """Runs ``work`` in a fork that dies, as by SIGKILL, at the n-th line of the package; False if it ended before."""
    child = os.fork()
    if child == 0:
        lines = 0

        def count(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal lines
            if "tidemill" not in frame.f_code.co_filename and "shutil" not in frame.f_code.co_filename:
                return None
            lines += event == "line"
            if lines == line:
                os._exit(_KILLED)
            return count

        sys.settrace(count)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == _KILLED


def _release(registry: Registry, model: Path) -> None:
    registry.promote(registry.add(model, keep, "run"))


def test_whatever_the_moment_of_a_kill_the_next_try_ends_as_the_first_would_have(
    tmp_path: Path, models: list[Path]
) -> None:
    line, kills = 1, 0
    while True:
        registry = Registry(tmp_path / f"at{line}", "toy")
        _release(registry, models[0])
        killed = _killed_at(line, lambda registry=registry: _release(registry, models[1]))
        # A reader sees one of the states before, between and after, each of them whole.
        aliases = registry.aliases()
        assert aliases.champion in (1, 2)
        for version in registry.versions():
            assert digest_tree(registry.directory(version), ("model.json", "assets.extra")) == (
                registry.manifest(version).digest
            )
            assert registry.extra(version, "lineage.json").is_file()
        _release(registry, models[1])
        registry.nominate(2)  # any writer completes the log
        assert (registry.aliases().champion, registry.aliases().challenger) == (2, None)
        assert registry.versions() == [1, 2]
        events = [(e["serial"], e["event"], e["version"]) for e in registry.events()]
        assert events == [(1, "registered", 1), (2, "promoted", 1), (3, "registered", 2), (4, "promoted", 2)]
        names = {p.name for p in registry.path.iterdir()}
        assert names == {"1", "2", "aliases.json", "events.jsonl", ".lock"}
        if not killed:
            break
        kills += 1
        line += 11 if line > 40 else 1
    assert kills > 40


def test_all_of_a_version_is_on_the_disk_before_it_has_its_number(
    registry: Registry, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not leave a version of empty files that an alias names."""
    flushed: set[int] = set()
    fsync, rename = os.fsync, os.rename

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    def checked(source: Path, target: Path) -> None:
        assert {p.stat().st_ino for p in [source, *source.rglob("*")]} <= flushed
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "rename", checked)
    assert registry.add(models[0], keep, "run-1") == 1


def test_an_event_cut_short_is_written_again(registry: Registry, models: list[Path]) -> None:
    registry.add(models[0], keep, "run-1")
    log = registry.path / "events.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) // 2])
    assert registry.events() == []
    registry.promote(1)
    assert [e["event"] for e in registry.events()] == ["registered", "promoted"]
    assert log.read_bytes().startswith(whole)
