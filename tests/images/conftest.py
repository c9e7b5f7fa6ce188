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
    """Podman and buildah, in working order, with a store of this session's own."""
    if reason := podman_cli.absent():
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("engine")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in podman_cli.settings(directory, registry_address).items():
            patch.setenv(name, value)
        yield
        if not os.environ.get("TIDEMILL_IMAGES"):
            podman_cli.empty(directory)


@pytest.fixture(scope="session")
def base(engine: None) -> str:
    """The one that BASE names, or one made without any registry."""
    if given := os.environ.get("BASE"):
        return given
    done = script("base", "--name", BASE)
    assert done.returncode == 0, done.stderr
    return BASE


@pytest.fixture(scope="session")
def images(base: str, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Every CPU image; those that TIDEMILL_IMAGES names, the directory of an earlier `make images`, or new ones."""
    if earlier := os.environ.get("TIDEMILL_IMAGES"):
        return Images(Path(earlier), earlier=True)
    directory = tmp_path_factory.mktemp("images")
    # Names that no test builds again: podman forgets the digest of an image whose tag another build takes.
    arguments = ("--engine", "podman", "--base", base, "--registry", "localhost/tidemill-tests")
    done = script("build", *arguments, "--output", str(directory), **MACHINES_OWN)
    assert done.returncode == 0, done.stderr[-4000:]
    return Images(directory)
