"""Each disagreement between images, lock, images.json, bills of materials and components is found."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import check
import podman_cli
import pytest
from engine import Built
from podman_cli import Images, script

LOCK, COMMIT = "a" * 64, "b" * 40
NAMED = check.component_images()


def evidence(name: str) -> check.Evidence:
    labels = {
        "org.opencontainers.image.title": f"tidemill/{name}",
        "org.opencontainers.image.version": "0.1.0",
        "org.opencontainers.image.revision": COMMIT,
        "tidemill.environment": name,
        "tidemill.lock.sha256": LOCK,
    }
    variables = {"TIDEMILL_GIT_COMMIT": COMMIT, "TIDEMILL_LOCK_SHA256": LOCK}
    built = Built(f"localhost/tidemill/{name}@sha256:{'0' * 64}", check.USER, labels, variables, None)
    told = {"environment": name, "git-commit": COMMIT, "lock-sha256": LOCK}
    properties = [{"name": f"tidemill:{key}", "value": value} for key, value in told.items()]
    component = {"name": "Absl_Py", "version": "1.4.0", "purl": "pkg:pypi/absl-py@1.4.0"}
    debian = {"name": "libc6", "version": "2.36", "purl": "pkg:deb/debian/libc6@2.36"}
    bom = {"metadata": {"component": {"properties": properties}}, "components": [component, debian]}
    return check.Evidence(built, bom, {"absl-py": "1.4.0"})


def agreeing() -> tuple[dict[str, Any], dict[str, check.Evidence]]:
    names = podman_cli.ENVIRONMENTS
    images = {name: f"localhost/tidemill/{name}@sha256:{'0' * 64}" for name in names}
    file = {"version": "0.1.0", "lock": LOCK, "commit": COMMIT, "images": images}
    return file, {name: evidence(name) for name in names}


def test_what_agrees_is_not_complained_of() -> None:
    file, seen = agreeing()
    assert list(check.disagreements(file, LOCK, NAMED, seen)) == []


def set_key(key: str, value: str) -> Callable[[dict[str, Any]], None]:
    return lambda file: file.update({key: value})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (set_key("version", "0.0.9"), "images.json: version is 0.0.9"),
        (set_key("version", "0.0.9"), "components: they name tidemill/control:0.1.0"),
        (set_key("lock", "c" * 64), f"images.json: lock is {'c' * 64}, and uv.lock's sha256 is {LOCK}"),
        (set_key("commit", "d" * 40), f"control: label org.opencontainers.image.revision is {COMMIT}"),
        (lambda file: file["images"].pop("serving"), "images.json: lacks serving"),
        (lambda file: file["images"].update(other="x/other@sha256:1"), "images.json: other is no image"),
        (
            lambda file: file["images"].update(serving="x/serving:0.1.0"),
            "images.json: x/serving:0.1.0 is not by digest",
        ),
        (lambda file: file["images"].update(serving=file["images"]["control"]), "images.json: serving is said to be"),
    ],
)
def test_a_fault_of_the_file_is_found(spoil: Callable[[dict[str, Any]], None], told: str) -> None:
    file, seen = agreeing()
    spoil(file)
    assert any(told in finding for finding in check.disagreements(file, LOCK, NAMED, seen))


def labelled(key: str) -> Callable[[check.Evidence], check.Evidence]:
    def spoil(of: check.Evidence) -> check.Evidence:
        return replace(of, built=replace(of.built, labels={**of.built.labels, key: "wrong"}))

    return spoil


def with_variable(key: str) -> Callable[[check.Evidence], check.Evidence]:
    def spoil(of: check.Evidence) -> check.Evidence:
        return replace(of, built=replace(of.built, environment={**of.built.environment, key: "wrong"}))

    return spoil


def with_property(index: int) -> Callable[[check.Evidence], check.Evidence]:
    def spoil(of: check.Evidence) -> check.Evidence:
        bom = copy.deepcopy(dict(of.bom or {}))
        bom["metadata"]["component"]["properties"][index]["value"] = "wrong"
        return replace(of, bom=bom)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (labelled("org.opencontainers.image.title"), "label org.opencontainers.image.title is wrong"),
        (labelled("org.opencontainers.image.version"), "label org.opencontainers.image.version is wrong"),
        (labelled("org.opencontainers.image.revision"), "label org.opencontainers.image.revision is wrong"),
        (labelled("tidemill.environment"), "label tidemill.environment is wrong"),
        (labelled("tidemill.lock.sha256"), "label tidemill.lock.sha256 is wrong"),
        (with_variable("TIDEMILL_GIT_COMMIT"), "TIDEMILL_GIT_COMMIT is wrong"),
        (with_variable("TIDEMILL_LOCK_SHA256"), "TIDEMILL_LOCK_SHA256 is wrong"),
        (lambda of: replace(of, built=replace(of.built, user="")), "runs as root, expected 65532:65532"),
        (lambda of: replace(of, bom=None), "has no bill of materials"),
        (with_property(0), "control.cdx.json: environment is wrong"),
        (with_property(1), "control.cdx.json: git-commit is wrong"),
        (with_property(2), "control.cdx.json: lock-sha256 is wrong"),
        (lambda of: replace(of, installed={"absl-py": "2"}), "absl-py is 2 in the image and 1.4.0 in uv.lock"),
        (lambda of: replace(of, installed={}), "absl-py is nothing in the image and 1.4.0 in uv.lock"),
        (
            lambda of: replace(of, installed={**of.installed, "pip": "25"}),
            "pip is 25 in the image and nothing in uv.lock",
        ),
    ],
)
def test_a_fault_of_an_image_is_found(spoil: Callable[[check.Evidence], check.Evidence], told: str) -> None:
    file, seen = agreeing()
    seen["control"] = spoil(seen["control"])
    findings = list(check.disagreements(file, LOCK, NAMED, seen))
    assert len(findings) == 1
    assert told in findings[0]


@pytest.mark.parametrize("text", ["", "[]", '{"version": "0.1.0"}', '{"version":1,"lock":1,"commit":1,"images":[]}'])
def test_a_file_that_make_images_did_not_write_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "images.json").write_text(text)
    done = script("check", "--directory", str(tmp_path))
    assert done.returncode == 4
    assert "`make images` writes it" in done.stderr


def test_real_images_agree(images: Images) -> None:
    if images.earlier:
        pytest.skip("these images may be of another lock")
    done = script("check", "--engine", "podman", "--directory", str(images.directory))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_real_image_that_was_altered_is_found(images: Images, tmp_path: Path) -> None:
    """Changed behind the file's back, it gets a digest of its own; named by that, it says of itself what is wrong."""
    altered = "localhost/altered/control:0.1.0"
    container = podman_cli.podman("create", images["control"]).stdout.strip()
    changes = ["--change=LABEL tidemill.lock.sha256=another", "--change=USER root"]
    podman_cli.podman("commit", "--format=docker", *changes, container, altered)
    podman_cli.podman("rm", container)
    shutil.copytree(images.directory, tmp_path, dirs_exist_ok=True)
    digest = podman_cli.inspect(altered)["Digest"]
    file = {**images.file, "images": {**images.file["images"], "control": f"localhost/altered/control@{digest}"}}
    (tmp_path / "images.json").write_text(json.dumps(file))
    done = script("check", "--engine", "podman", "--directory", str(tmp_path))
    podman_cli.podman("rmi", altered)
    assert done.returncode == 3
    assert "control: label tidemill.lock.sha256 is another" in done.stderr
    assert "control: runs as root" in done.stderr


def test_a_digest_that_no_image_has_is_told(images: Images, tmp_path: Path) -> None:
    wrong = f"localhost/tidemill/control@sha256:{'0' * 64}"
    (tmp_path / "images.json").write_text(json.dumps({**images.file, "images": {"control": wrong}}))
    done = script("check", "--engine", "podman", "--directory", str(tmp_path))
    assert done.returncode == 5
    assert wrong in done.stderr
