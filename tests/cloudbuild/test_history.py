"""The commit that production runs decides what is compiled and what may be released; git asks a private repository."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from builds import ROOT, Build
from repository import ACCESS_TOKEN, NAME, Repository, served
from workspace import GCLOUD, Clone

MERGE = Build.read("cloudbuild.yaml")
NEW_DATA = Build.read(".ci/cloudbuild/new-data.yaml")
LIST = "builds list --ongoing --project=example-project --region=europe-west1"
RECORD = "storage cat gs://example-records/production/images.json"
TOKEN = {"auth print-access-token": ACCESS_TOKEN}
ABSENT = "!One or more URLs matched no objects."


@dataclass(frozen=True)
class Branch:
    """``first`` – ``second`` – ``third`` on main; ``beside`` also follows ``first``. The build is of ``second``."""

    repository: Repository
    clone: Clone
    first: str
    second: str
    third: str
    beside: str

    def run(self, build: Build, step: str, answers: dict[str, Any], **more: str) -> Any:
        self.clone.stand_in("gcloud", GCLOUD)
        return self.clone.run(
            build,
            step,
            ANSWERS=json.dumps({**TOKEN, **answers}),
            STATE=str(self.clone.bin.parent / "state"),
            CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBUILD=more.pop("api", f"{self.repository.address}/"),
            COMMIT_SHA=self.second,
            _REPOSITORY=more.pop("repository", NAME),
            _RECORDS="example-records",
            TURN_PAUSE_S="0.02",
            TURN_TIMEOUT_S=more.pop("patience", "60"),
            **more,
        )


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    with served(tmp_path) as repository:
        shutil.copytree(ROOT / ".ci" / "cloudbuild", repository.work / ".ci" / "cloudbuild")
        (repository.work / ".gitignore").write_text("build/\n__pycache__/\n")
        first = repository.commit("first")
        beside = repository.commit("beside")
        repository.go_to(first)
        second, third = repository.commit("second"), repository.commit("third")
        (tmp_path / "bin").mkdir()
        clone = Clone(tmp_path / "workspace", tmp_path / "bin")
        repository.clone(second, clone.root)
        yield Branch(repository, clone, first, second, third, beside)


def put_production(branch: Branch, commit: str) -> None:
    (branch.clone.root / "build").mkdir()
    (branch.clone.root / "build" / "production.json").write_text(json.dumps({"commit": commit, "images": {}}))


@pytest.mark.parametrize("which", ["first", "second", "third"])
def test_new_data_is_trained_on_with_the_source_of_productions_images(branch: Branch, which: str) -> None:
    commit = getattr(branch, which)
    put_production(branch, commit)
    done = branch.run(NEW_DATA, "source", {})
    assert done.returncode == 0, done.stdout + done.stderr
    assert branch.clone.command(["git", "rev-parse", "HEAD"]).stdout.strip() == commit
    assert (branch.clone.root / "third").exists() == (which == "third")
    assert not branch.clone.command(["git", "status", "--porcelain"]).stdout


def test_nothing_of_the_source_is_used_before_it_is_that_of_production() -> None:
    assert NEW_DATA.before("source") == {"production"}
    for step in ("builder", "setup", "train"):
        assert "source" in NEW_DATA.before(step)


@pytest.mark.parametrize(
    ("commit", "code", "told"),
    [
        (
            "f" * 40,
            5,
            f"is of commit {'f' * 40}, which can't be checked out: fatal: remote error: upload-pack: not our",
        ),
        ("0123abc-dirty", 4, "commit: expected 40 hex digits (got 0123abc-dirty)"),
    ],
)
def test_a_source_that_cannot_be_had_ends_the_build(branch: Branch, commit: str, code: int, told: str) -> None:
    put_production(branch, commit)
    done = branch.run(NEW_DATA, "source", {})
    assert done.returncode == code
    assert told in done.stderr


@pytest.mark.parametrize(
    ("answers", "repository", "told"),
    [
        ({"auth print-access-token": "of-somebody-else"}, NAME, "403 {"),
        ({"auth print-access-token": None}, NAME, "PERMISSION_DENIED"),
        ({}, "projects/example-project/other", ": 401"),
    ],
)
def test_who_may_not_read_the_repository_is_told_so(
    branch: Branch, answers: dict[str, Any], repository: str, told: str
) -> None:
    put_production(branch, branch.first)
    done = branch.run(NEW_DATA, "source", answers, repository=repository)
    assert done.returncode == 5
    assert told in done.stderr


def test_a_service_that_does_not_answer_is_named(branch: Branch) -> None:
    put_production(branch, branch.first)
    done = branch.run(NEW_DATA, "source", {}, api="http://127.0.0.1:9/")
    assert done.returncode == 5
    assert "http://127.0.0.1:9/v2/" in done.stderr
    assert "Connection refused" in done.stderr


def test_a_mistyped_command_is_told(branch: Branch) -> None:
    done = branch.clone.command(["python3", ".ci/cloudbuild/history.py", "check-out", "x"])
    assert done.returncode == 4
    assert "expected checkout IMAGES.json" in done.stderr


def test_no_token_stays_behind(branch: Branch) -> None:
    put_production(branch, branch.first)
    assert branch.run(NEW_DATA, "source", {}).returncode == 0
    for path in (branch.clone.root / ".git").rglob("*"):
        assert not path.is_file() or b"of-the-repository" not in path.read_bytes(), path


def build(name: str, minute: int, commit: str) -> dict[str, Any]:
    return {"id": name, "createTime": f"2026-11-21T03:{minute:02}:00Z", "substitutions": {"COMMIT_SHA": commit}}


def released(commit: str) -> dict[str, Any]:
    return {RECORD: {"commit": commit}}


@pytest.mark.parametrize(
    ("production", "code", "told"),
    [
        ("first", 0, ""),
        ("second", 0, ""),
        ("third", 3, "production runs commit {third}, which is not within {second}"),
        ("beside", 3, "production runs commit {beside}, which is not within {second}"),
    ],
)
def test_a_build_releases_only_what_holds_the_commit_that_production_runs(
    branch: Branch, production: str, code: int, told: str
) -> None:
    answers = {LIST: [build("b-2", 2, branch.second)], **released(getattr(branch, production))}
    done = branch.run(MERGE, "turn", answers)
    assert done.returncode == code, done.stdout + done.stderr
    assert told.format(**vars(branch)) in done.stdout


def test_the_first_release_has_nothing_to_follow(branch: Branch) -> None:
    done = branch.run(MERGE, "turn", {LIST: [build("b-2", 2, branch.second)], RECORD: ABSENT})
    assert done.returncode == 0, done.stderr
    assert "this is the first release" in done.stdout


def test_a_record_that_cannot_be_read_is_not_one_that_is_absent(branch: Branch) -> None:
    done = branch.run(MERGE, "turn", {LIST: [build("b-2", 2, branch.second)], RECORD: None})
    assert done.returncode == 5
    assert "PERMISSION_DENIED" in done.stderr


def test_history_that_cannot_be_fetched_lets_nothing_through(branch: Branch) -> None:
    answers = {LIST: [build("b-2", 2, branch.second)], **released(branch.first)}
    done = branch.run(MERGE, "turn", {**answers, "auth print-access-token": "of-somebody-else"})
    assert done.returncode == 5
    assert "whose commit is the later one can't be told" in done.stderr


def test_the_record_is_read_when_the_builds_before_have_ended(branch: Branch) -> None:
    """What they released is what counts."""
    own, before = build("b-2", 2, branch.second), build("b-1", 1, branch.third)
    done = branch.run(MERGE, "turn", {LIST: [[before, own], [own]], **released(branch.third)})
    assert done.returncode == 3, done.stdout + done.stderr
    assert "waiting for b-1" in done.stdout


@pytest.mark.parametrize(
    ("theirs", "code", "told"),
    [
        ("third", 3, "overtaken by b-3, whose commit {third} holds this one"),
        ("second", 3, "overtaken by b-3"),
        ("first", 0, ""),
        ("beside", 0, ""),
    ],
)
def test_a_newer_build_overtakes_only_with_a_commit_that_holds_this_one(
    branch: Branch, theirs: str, code: int, told: str
) -> None:
    """An old commit's build that is run again is the newest, and must not end the build of a later commit."""
    ongoing = [build("b-2", 2, branch.second), build("b-3", 3, getattr(branch, theirs))]
    done = branch.run(MERGE, "turn", {LIST: ongoing, **released(branch.first)})
    assert done.returncode == code, done.stdout + done.stderr
    assert told.format(**vars(branch)) in done.stdout


@pytest.mark.parametrize(
    ("minutes", "code", "told"),
    [
        ([{"b-1": 1, "b-2": 2}, {"b-2": 2}], 0, "waiting for b-1"),
        ([{"b-1": 1, "b-2": 2}], 5, "still waiting for b-1"),
        ([{"b-1": 1}], 5, "b-2 is not among the ongoing ones"),
        (None, 5, "PERMISSION_DENIED"),
    ],
)
def test_builds_of_one_trigger_release_one_after_the_other(branch: Branch, minutes: Any, code: int, told: str) -> None:
    ongoing = minutes and [[build(name, m, branch.second) for name, m in at.items()] for at in minutes]
    done = branch.run(
        MERGE, "turn", {LIST: ongoing, **released(branch.first)}, patience="0.2" if "still" in told else "60"
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert told in done.stdout + done.stderr
