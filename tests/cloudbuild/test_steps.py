"""The steps that need no cloud, run in a scratch clone; those that do, with stand-ins for gcloud and the backends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builds import FILES, Build
from workspace import GCLOUD, Clone

BUILDS = {path: Build.read(path) for path in FILES}
MERGE = BUILDS["cloudbuild.yaml"]
REVIEW = BUILDS[".ci/cloudbuild/pull-request.yaml"]
DIGEST = "sha256:" + "0" * 64
COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGES = {
    "version": "0.1.0",
    "lock": "1" * 64,
    "commit": COMMIT,
    "images": {
        name: f"registry.example.com/tidemill/{name}@{DIGEST}"
        for name in ("control", "validation", "tensorflow", "serving")
    },
}
# Reads a command line as `tidemill` does, tells it, and does nothing.
RECORDER = """
import json, os, sys
sys.path.insert(0, {tests!r})
from test_builds import parsed
parsed(sys.argv[1:])
with open(os.environ["CALLS"], "a") as calls: calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1:3] == ["schedule", "list"]: print(os.environ["SCHEDULES_THERE"])
"""


def put_images(clone: Clone) -> None:
    (clone.root / "build" / "images").mkdir(parents=True)
    (clone.root / "build" / "images" / "images.json").write_text(json.dumps(IMAGES))


def test_a_package_is_compiled_and_checked_for_each_target(clone: Clone) -> None:
    put_images(clone)
    done = clone.run(REVIEW, "compile")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("vertex", "kubernetes"):
        text = (clone.root / "build" / "packages" / f"{name}.yaml").read_text()
        assert IMAGES["images"]["tensorflow"] in text
        assert "image: tidemill/" not in text


def test_a_package_that_a_backend_would_refuse_ends_the_build(clone: Clone) -> None:
    put_images(clone)
    done = clone.run(REVIEW, "compile", _CRON="0 3 * *")
    assert done.returncode == 4, done.stdout + done.stderr


def test_a_pull_request_shows_what_it_changes_in_the_compiled_pipelines(clone: Clone) -> None:
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com"]
    clone.command([*git, "branch", "change"])
    base = clone.command(["git", "rev-parse", "--abbrev-ref", "HEAD"]).stdout.strip()
    golden = clone.root / "tests" / "pipelines" / "goldens" / "training.vertex.yaml"
    # A golden of the base that differs, in a repository that stands for the one at GitHub.
    golden.write_text(golden.read_text() + "# of the base\n")
    clone.command([*git, "commit", "--quiet", "--all", "--message", "base"])
    clone.command(["git", "clone", "--quiet", "--bare", ".", str(clone.bin.parent / "origin")])
    clone.command(["git", "checkout", "--quiet", "change"])
    clone.command(["git", "remote", "set-url", "origin", f"file://{clone.bin.parent / 'origin'}"])
    done = clone.run(REVIEW, "goldens", _BASE_BRANCH=base)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "-# of the base" in done.stdout


def test_goldens_that_are_not_renewed_end_the_build(clone: Clone) -> None:
    golden = clone.root / "tests" / "pipelines" / "goldens" / "training.vertex.yaml"
    golden.write_text(golden.read_text() + "# stale\n")
    clone.command(["git", "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-qam", "stale"])
    done = clone.run(REVIEW, "goldens", _BASE_BRANCH="main")
    assert done.returncode == 1
    assert "make goldens" in done.stdout


def test_a_base_that_cannot_be_fetched_is_told(clone: Clone) -> None:
    done = clone.run(REVIEW, "goldens", _BASE_BRANCH="gone")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gone can't be fetched here" in done.stdout


@pytest.fixture
def recorded(clone: Clone, tmp_path: Path) -> Clone:
    (clone.root / ".venv" / "bin" / "tidemill").unlink()
    recorder = clone.stand_in("tidemill", RECORDER.format(tests=str(Path(__file__).parent)))
    (clone.root / ".venv" / "bin" / "tidemill").symlink_to(recorder)
    return clone


def run_recorded(clone: Clone, build: Build, step: str, **environment: str) -> list[list[str]]:
    calls = clone.bin.parent / "calls"
    tests = f"{Path(__file__).parent}"
    done = clone.run(build, step, CALLS=str(calls), SCHEDULES_THERE="[]", **environment)
    assert done.returncode == 0, f"{tests}: {done.stdout}{done.stderr}"
    return [json.loads(line) for line in calls.read_text().splitlines()]


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def test_images_are_built_with_the_layers_of_the_registry(clone: Clone) -> None:
    """By a builder of a pinned image, for docker's own can't export layers."""
    clone.stand_in("docker", "import sys; print('docker', *sys.argv[1:])")
    clone.stand_in(
        "make", "import os, sys; print('make', *sys.argv[1:], *(os.environ[n] for n in ('ENGINE', 'CACHE', 'PUSH')))"
    )
    registry = "registry.example.com/tidemill"
    done = clone.run(MERGE, "images", _REGISTRY=registry, _BUILDKIT=f"registry.example.com/buildkit@{DIGEST}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "docker buildx create --driver docker-container --driver-opt "
        f"image=registry.example.com/buildkit@{DIGEST} --use",
        f"make images docker {registry}/cache 1",
    ]


def test_staging_runs_what_a_build_made_once_and_waits(recorded: Clone) -> None:
    """Another build of the commit has other images: what it promotes must have run itself."""
    (call,) = run_recorded(recorded, MERGE, "staging")
    assert call[:2] == ["submit", "pipelines/problems/lending"]
    assert option(call, "--request-id") == "merge-b-2"
    assert option(call, "--images") == "build/images/images.json"
    assert option(call, "--timeout") == "7200"
    assert "--wait" in call
    assert "--source" not in call


def test_staging_takes_the_table_that_it_is_given(recorded: Clone) -> None:
    (call,) = run_recorded(recorded, MERGE, "staging", _SOURCE="gs://example-bucket/a b.csv")
    assert option(call, "--source") == "gs://example-bucket/a b.csv"


@pytest.mark.parametrize(("there", "verb"), [("[]", "create"), ('[{"name": "lending-training"}]', "update")])
def test_a_schedule_is_made_the_first_time_and_replaced_from_then_on(recorded: Clone, there: str, verb: str) -> None:
    calls = recorded.bin.parent / "calls"
    done = recorded.run(MERGE, "promote", CALLS=str(calls), SCHEDULES_THERE=there)
    assert done.returncode == 0, done.stdout + done.stderr
    _, call = [json.loads(line) for line in calls.read_text().splitlines()]
    assert call[:2] == ["schedule", verb]
    assert option(call, "--target") == "targets/production.yaml"
    assert option(call, "--cron") == "0 3 * * *"
    assert option(call, "--label") == "commit=0123456789ab"


def test_a_backend_that_does_not_answer_promotes_nothing(recorded: Clone) -> None:
    calls = recorded.bin.parent / "calls"
    recorded.stand_in("tidemill", "import sys; sys.exit(5)")
    done = recorded.run(MERGE, "promote", CALLS=str(calls), SCHEDULES_THERE="[]")
    assert done.returncode == 5
    assert not calls.exists()


def test_new_data_is_trained_on_once_whatever_it_is_called(recorded: Clone) -> None:
    name = "loans/2026 $(touch pwned); .parquet"
    (call,) = run_recorded(
        recorded, BUILDS[".ci/cloudbuild/new-data.yaml"], "train", _BUCKET="example-data", _OBJECT=name, _MESSAGE="42"
    )
    assert option(call, "--source") == f"gs://example-data/{name}"
    assert option(call, "--request-id") == "data-42"
    assert not list(recorded.root.glob("**/pwned"))


def vulnerability(severity: str, fix: bool) -> dict[str, Any]:
    issue = {"affectedPackage": "zlib1g", "fixedVersion": {"fullName": "1.3"}}
    return {
        "vulnerability": {
            "effectiveSeverity": severity,
            "fixAvailable": fix,
            "shortDescription": "CVE-2026-0001",
            "packageIssue": [issue],
        }
    }


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([], 0),
        ([vulnerability("CRITICAL", False)], 0),
        ([vulnerability("HIGH", True)], 0),
        ([vulnerability("CRITICAL", True)], 3),
    ],
)
def test_an_image_is_refused_for_what_is_severe_and_could_be_mended(
    clone: Clone, found: list[dict[str, Any]], code: int
) -> None:
    put_images(clone)
    clone.stand_in("gcloud", GCLOUD)
    answers = {
        "artifacts docker images scan registry.example.com/tidemill/": "projects/example-project/scans/1",
        "artifacts docker images list-vulnerabilities projects/example-project/scans/1": found,
    }
    done = clone.run(MERGE, "scan", ANSWERS=json.dumps(answers))
    assert done.returncode == code, done.stdout + done.stderr
    if code == 3:
        assert "CRITICAL CVE-2026-0001: zlib1g → 1.3" in done.stdout


def test_a_scanner_that_fails_is_no_clean_bill(clone: Clone) -> None:
    put_images(clone)
    clone.stand_in("gcloud", GCLOUD)
    done = clone.run(MERGE, "scan", ANSWERS=json.dumps({"artifacts docker images scan": None}))
    assert done.returncode == 5
    assert "PERMISSION_DENIED" in done.stderr


def test_an_image_by_tag_and_an_unknown_severity_are_not_scanned(clone: Clone) -> None:
    put_images(clone)
    assert clone.run(MERGE, "scan", _FAIL_ON="AWFUL").returncode == 4
    by_tag = {**IMAGES, "images": {"control": "registry.example.com/tidemill/control:0.1.0"}}
    (clone.root / "build" / "images" / "images.json").write_text(json.dumps(by_tag))
    done = clone.run(MERGE, "scan")
    assert done.returncode == 4
    assert "expected a reference by digest" in done.stderr


@pytest.mark.parametrize(
    ("tag", "change", "told"),
    [
        ("v0.1.0", {}, None),
        ("v0.2.0", {}, "tag: expected v0.1.0"),
        ("v0.1.0", {"version": "0.0.9"}, "images: expected version 0.1.0"),
        ("v0.1.0", {"commit": "f" * 40}, f"images: expected those of commit {COMMIT}"),
    ],
)
def test_a_tag_names_only_what_was_merged_under_its_commit(
    clone: Clone, tag: str, change: dict[str, str], told: str | None
) -> None:
    (clone.root / "build" / "release").mkdir(parents=True)
    (clone.root / "build" / "release" / "images.json").write_text(json.dumps({**IMAGES, **change}))
    done = clone.run(BUILDS[".ci/cloudbuild/release.yaml"], "version", TAG_NAME=tag)
    assert done.returncode == (0 if told is None else 4), done.stderr
    assert (told or "") in done.stderr


def test_the_package_of_a_release_is_built(clone: Clone) -> None:
    done = clone.run(BUILDS[".ci/cloudbuild/release.yaml"], "wheel")
    assert done.returncode == 0, done.stderr
    assert [path.suffix for path in sorted((clone.root / "build" / "dist").iterdir())] == [".whl", ".gz"]


def test_every_image_of_a_release_gets_the_name_of_its_version(clone: Clone) -> None:
    (clone.root / "build" / "release").mkdir(parents=True)
    (clone.root / "build" / "release" / "images.json").write_text(json.dumps(IMAGES))
    clone.stand_in("gcloud", "import sys; print(*sys.argv[1:])")
    names = BUILDS[".ci/cloudbuild/release.yaml"]
    done = clone.run(names, "names", TAG_NAME="v0.1.0", _REGISTRY="registry.example.com/tidemill")
    assert done.returncode == 0, done.stderr
    expected = f"artifacts docker tags add {IMAGES['images']['control']} registry.example.com/tidemill/control:0.1.0"
    assert expected in done.stdout.splitlines()
    assert len(done.stdout.splitlines()) == 4
