"""Podman for the tests: settings that work in a virtual machine without systemd, single containers, and its socket."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ("control", "validation", "tensorflow", "serving")
# Cgroups that podman makes itself, limits that need no CAP_SYS_RESOURCE, no bridge to set up.
CONTAINERS_CONF = """
[containers]
netns = "host"
default_ulimits = ["nofile=1024:20000", "nproc=10000:10000"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
"""


@dataclass(frozen=True)
class Images:
    """What `containers/build.py` made: ``directory`` has images.json and the bills of materials.

    Attributes:
        earlier: whether they were made before, of another commit perhaps.
    """

    directory: Path
    earlier: bool = False

    @property
    def file(self) -> dict[str, Any]:
        return dict(json.loads((self.directory / "images.json").read_text()))

    def __getitem__(self, environment: str) -> str:
        return self.file["images"][environment]


def script(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of containers/ as `make` does: with a Python in which nothing is installed."""
    return subprocess.run(
        [sys.executable, "-E", "-S", str(ROOT / "containers" / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def absent() -> str | None:
    """Returns why images can't be built here, or None if they can."""
    if os.geteuid() != 0:
        return "needs root: debootstrap and containers without user namespaces"
    missing = [tool for tool in ("podman", "buildah", "debootstrap", "runc") if shutil.which(tool) is None]
    return f"needs {', '.join(missing)}: see .ci/packages" if missing else None


def settings(directory: Path, registry: str) -> dict[str, str]:
    """Returns the environment in which podman and buildah work here; ``registry`` may speak plain HTTP.

    Images and containers lie in ``directory``, where no other session meets them: equal layers have equal names, so
    that in one store whoever tidies up takes away what another is building on.
    """
    (directory / "containers.conf").write_text(CONTAINERS_CONF)
    (directory / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    storage = f'[storage]\ndriver = "overlay"\ngraphroot = "{directory}/storage"\nrunroot = "{directory}/running"\n'
    (directory / "storage.conf").write_text(storage)
    return {
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_CONF": str(directory / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(directory / "registries.conf"),
        **({} if os.environ.get("TIDEMILL_IMAGES") else {"CONTAINERS_STORAGE_CONF": str(directory / "storage.conf")}),
    }


def empty(directory: Path) -> None:
    """Removes the store of a session, several gigabytes."""
    podman("rm", "--all", "--force")
    podman("rmi", "--all", "--force")
    subprocess.run(["umount", "--quiet", str(directory / "storage" / "overlay")])
    shutil.rmtree(directory)


def podman(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


def inspect(reference: str) -> dict[str, Any]:
    return dict(json.loads(podman("image", "inspect", reference).stdout)[0])


def run(
    reference: str,
    *command: str,
    mounts: Mapping[Path, str] | None = None,
    options: Sequence[str] = (),
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Runs a command as a cluster would: read-only root, /tmp alone writable, no capabilities, no network.

    Args:
        mounts: where directories of this machine are seen, by directory.
    """
    restricted = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    volumes = [f"--volume={outside}:{inside}" for outside, inside in (mounts or {}).items()]
    return podman("run", "--rm", "--network=none", *restricted, *volumes, *options, reference, *command, check=check)


@contextlib.contextmanager
def socket(directory: Path) -> Iterator[str]:
    """Yields the address of podman's API, which the docker client speaks to."""
    path = directory / "podman.sock"
    with (directory / "service.log").open("wb") as log:
        service = subprocess.Popen(["podman", "system", "service", "--time=0", f"unix://{path}"], stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not path.exists():
            assert service.poll() is None, (directory / "service.log").read_text()
            assert time.monotonic() < deadline, "podman's API did not come up"
            time.sleep(0.05)
        yield f"unix://{path}"
    finally:
        service.terminate()
        service.wait(20)
