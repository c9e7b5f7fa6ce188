"""The images, built once for all tests: the base by debootstrap, the rest by `containers/build.py`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# This directory's own modules, and the scripts that are tried; importlib's mode adds no directory.
sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[2] / "containers")]

import podman_cli
from podman_cli import Images, script

BASE = "localhost/tidemill-base:bookworm"
_PATIENCE_S = 1800
# Settings of a machine that must not find their way into an image.
MACHINES_OWN = {
    "PIP_EXTRA_INDEX_URL": "https://user:secret@index.machines-own.example/simple",
    "UV_EXTRA_INDEX_URL": "https://user:secret@index.machines-own.example/simple",
    "no_proxy": "machines-own.example",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets the first test that needs images wait until they are built."""
    for item in items:
        if {"images", "base"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(_PATIENCE_S))


@pytest.fixture(scope="session")
def registry_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"localhost:{free.getsockname()[1]}"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory, registry_address: str) -> Iterator[None]:
    """Podman and buildah, in working order."""
    if reason := podman_cli.absent():
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in podman_cli.settings(tmp_path_factory.mktemp("engine"), registry_address).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def base(engine: None) -> str:
    """The one that BASE names, or one made without any registry; what an earlier session made serves again."""
    if given := os.environ.get("BASE"):
        return given
    if podman_cli.podman("image", "exists", BASE, check=False).returncode != 0:
        done = script("base", "--name", BASE)
        assert done.returncode == 0, done.stderr
    return BASE


@pytest.fixture(scope="session")
def images(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """Every CPU image; those that TIDEMILL_IMAGES names, the directory of an earlier `make images`, or new ones.

    New ones have names of this session's own: podman forgets the digest of an image whose tag another build takes.
    """
    if earlier := os.environ.get("TIDEMILL_IMAGES"):
        yield Images(Path(earlier), earlier=True)
        return
    directory = tmp_path_factory.mktemp("images")
    registry = f"localhost/tidemill-tests-{os.getpid()}"
    arguments = ("--engine", "podman", "--base", base, "--registry", registry, "--output", str(directory))
    done = script("build", *arguments, **MACHINES_OWN)
    assert done.returncode == 0, done.stderr[-4000:]
    yield Images(directory)
    made = podman_cli.podman("images", "--quiet", "--no-trunc", "--filter", f"reference={registry}/*").stdout.split()
    podman_cli.podman("rmi", "--force", *set(made))
