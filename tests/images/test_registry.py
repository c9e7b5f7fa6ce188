"""Images through a real registry: pushed, named by its digest, pulled by that; and the same from the same source."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import podman_cli
import pytest
from engine import Engine, Recipe
from podman_cli import Images, script

CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {storage}}}}}
http: {{addr: "{address}"}}
"""


@pytest.fixture(scope="module")
def registry(engine: None, registry_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Debian's docker-registry."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry: see .ci/packages")
    directory = tmp_path_factory.mktemp("registry")
    config = directory / "config.yml"
    config.write_text(CONFIG.format(storage=directory / "storage", address=registry_address))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        _await(f"http://{registry_address}/v2/", process)
        yield registry_address
    finally:
        process.terminate()
        process.wait(20)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            assert process.poll() is None, "the registry ended"
            assert time.monotonic() < deadline, "the registry did not come up"
            time.sleep(0.1)
        else:
            return


def test_what_is_pushed_is_named_by_the_digest_that_the_registry_has(base: str, registry: str, tmp_path: Path) -> None:
    arguments = ("control", "--engine", "podman", "--base", base, "--registry", f"{registry}/ml", "--push")
    done = script("build", *arguments, "--commit", "f" * 40, "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    reference = json.loads((tmp_path / "images.json").read_text())["images"]["control"]
    repository, digest = reference.split("@")
    assert repository == f"{registry}/ml/control"
    request = urllib.request.Request(f"http://{registry}/v2/ml/control/manifests/{digest}", method="HEAD")
    request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
    with urllib.request.urlopen(request) as response:
        assert response.headers["Docker-Content-Digest"] == digest
    podman_cli.podman("rmi", f"{repository}:0.1.0")
    podman_cli.podman("pull", reference)
    assert (
        podman_cli.run(reference, "python3", "-c", "import tidemill; print(tidemill.__version__)").stdout == "0.1.0\n"
    )
    podman_cli.podman("rmi", reference)


def _elsewhere(name: str, directory: Path, short: Path) -> Engine:
    """Returns an engine with a storage of its own, which is empty."""
    storage = f"--storage-driver vfs --root {directory / name}-storage --runroot {short / name}"
    command = directory / f"{name}-elsewhere"
    command.write_text(f'#!/bin/sh\nexec {name} {storage} "$@"\n')
    command.chmod(0o755)
    return Engine(str(command))


def test_layers_of_the_cache_are_taken_by_a_machine_that_has_none(
    registry: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Those of stages that are not in the image, too."""
    (tmp_path / "content").write_text("x")
    file = tmp_path / "Containerfile"
    file.write_text(
        "FROM scratch AS one\nCOPY content /one\nFROM scratch\nCOPY --from=one /one /two\nCOPY content /three\n"
    )
    cache = f"{registry}/cache/tiny"
    recipe = Recipe(reference="localhost/tiny:1", context=tmp_path, containerfile=file, epoch=0, cache=cache)
    with tempfile.TemporaryDirectory() as short:  # podman takes no long ones for --runroot
        first, second = (_elsewhere(name, tmp_path, Path(short)) for name in ("podman", "buildah"))
        first.build(recipe)
        said = capfd.readouterr().err
        second.build(recipe)
        said_then = capfd.readouterr().err
    with urllib.request.urlopen(f"http://{registry}/v2/cache/tiny/tags/list") as response:
        kept = set(json.load(response)["tags"])
    assert len(kept) == 3
    assert (said.count("Cache pulled"), said.count("Pushing cache")) == (0, 3)
    assert (said_then.count("Cache pulled"), said_then.count("Pushing cache")) == (3, 0)


def test_the_same_source_gives_the_same_image(images: Images, base: str, tmp_path: Path) -> None:
    """By another engine, and all of it anew: nothing is kept of the first build but downloads."""
    if images.earlier:
        pytest.skip("these images may be of another commit")
    registry = images["control"].rpartition("/")[0]
    arguments = ("control", "--engine", "buildah", "--base", base, "--registry", registry)
    done = script("build", *arguments, "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "images.json").read_text())["images"]["control"] == images["control"]
