"""What the manifests are held against: kustomize, the CRDs that clusters have, and promtool.

Each comes at test time from a package registry, pinned here by version and hash, into a directory that git ignores:
``$TIDEMILL_TOOLS``, else ``.venvs/tools``. What is there already is not fetched again. Where a tool cannot be had the
tests skip and say why, unless ``TIDEMILL_REQUIRE_TOOLS=1`` makes that a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DIRECTORY: Final = Path(os.environ.get("TIDEMILL_TOOLS", ROOT / ".venvs" / "tools")).resolve()
_TIMEOUT_S: Final = 240


class Missing(Exception):
    """A tool cannot be had on this machine; the message says why."""


@dataclass(frozen=True)
class Module:
    """A Go module at one version.

    Attributes:
        sum: hash of its files, as in a go.sum.
        crds: the CRDs in it that our manifests are instances of.
    """

    path: str
    version: str
    sum: str
    crds: tuple[str, ...] = ()


KUSTOMIZE: Final = Module(
    "sigs.k8s.io/kustomize/kustomize/v5", "v5.8.1", "h1:Pgsg5psubpVEy7Nf6S89PARg5VmmWUC1l9dC6Dl4PG0="
)
CRDS: Final = (
    Module(
        "github.com/kserve/kserve",
        "v0.17.0",
        "h1:IaynaBFzVQz1Xyrw5n3ncqzd5Y7L1RkO+YWvVwwtMQE=",
        (
            "config/crd/full/serving.kserve.io_inferenceservices.yaml",
            "config/crd/full/serving.kserve.io_servingruntimes.yaml",
        ),
    ),
    Module(
        "sigs.k8s.io/gateway-api",
        "v1.4.1",
        "h1:NPxFutNkKNa8UfLd2CMlEuhIPMQgDQ6DXNKG9sHbJU8=",
        (
            "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
            "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        ),
    ),
    Module(
        "sigs.k8s.io/kueue",
        "v0.18.2",
        "h1:hnONSDkjUN1kp+Yxc+SzjmwNb57RjFYF7qQmkn9ijxA=",
        (
            "config/components/crd/bases/kueue.x-k8s.io_clusterqueues.yaml",
            "config/components/crd/bases/kueue.x-k8s.io_localqueues.yaml",
            "config/components/crd/bases/kueue.x-k8s.io_resourceflavors.yaml",
        ),
    ),
    Module(
        "github.com/kubeflow/trainer/v2",
        "v2.2.0",
        "h1:whChZckEtycLo1UKH/M0hiNaCUozbLvf9JrgmMv+TAg=",
        (
            "manifests/base/crds/trainer.kubeflow.org_trainingruntimes.yaml",
            "manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml",
        ),
    ),
    Module(
        "sigs.k8s.io/jobset",
        "v0.11.0",
        "h1:1r2uTNQmylnqG/WCSSDADgNkHryvyUaCNCOgvSPWpN8=",
        ("config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml",),
    ),
    Module(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        (
            "example/prometheus-operator-crd-full/monitoring.coreos.com_prometheusrules.yaml",
            "example/prometheus-operator-crd-full/monitoring.coreos.com_servicemonitors.yaml",
        ),
    ),
)


def kustomize() -> Path:
    """Returns the kustomize binary, built the first time (about half a minute).

    Raises:
        Missing: if there is no Go, or no way to its proxy.
    """
    binary = DIRECTORY / "bin" / f"kustomize-{KUSTOMIZE.version}"
    if not binary.exists():
        _checked(KUSTOMIZE)
        with _Workshop() as made:
            _go("install", f"{KUSTOMIZE.path}@{KUSTOMIZE.version}", GOBIN=str(made))
            binary.parent.mkdir(parents=True, exist_ok=True)
            os.replace(made / "kustomize", binary)
    return binary


def crds() -> list[Path]:
    """Returns the files of the pinned CRDs, fetched the first time (57 MiB, five to twenty seconds).

    Raises:
        Missing: as `kustomize`.
    """
    files: list[Path] = []
    for module in CRDS:
        kept = DIRECTORY / "crds" / f"{module.path.replace('/', '_')}@{module.version}"
        if not kept.is_dir():
            archive = _checked(module)
            with _Workshop() as made, zipfile.ZipFile(archive) as content:
                for name in module.crds:
                    (made / Path(name).name).write_bytes(content.read(f"{module.path}@{module.version}/{name}"))
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(made, kept, dirs_exist_ok=True)
        files += [kept / Path(name).name for name in module.crds]
    return files


def promtool() -> Path:
    """Returns promtool: the machine's, or that of Debian's package, unpacked without being installed.

    Raises:
        Missing: if neither can be had.
    """
    if installed := shutil.which("promtool"):
        return Path(installed)
    binary = DIRECTORY / "bin" / "promtool"
    if not binary.exists():
        if shutil.which("apt-get") is None:
            raise Missing("no promtool, and no apt-get to fetch Debian's prometheus package with")
        with _Workshop() as made:
            _run(["apt-get", "download", "prometheus"], cwd=made)
            (package,) = made.glob("prometheus_*.deb")
            _run(["dpkg-deb", "--extract", package.name, "unpacked"], cwd=made)
            binary.parent.mkdir(parents=True, exist_ok=True)
            os.replace(made / "unpacked" / "usr" / "bin" / "promtool", binary)
    return binary


def available(tool: Callable[[], Any]) -> Any:
    """Returns what ``tool`` returns, or skips where it cannot be had."""
    try:
        return tool()
    except Missing as reason:
        if os.environ.get("TIDEMILL_REQUIRE_TOOLS") == "1":
            raise
        pytest.skip(str(reason))


def _checked(module: Module) -> Path:
    """Downloads a module and returns its archive, once its hash is the pinned one."""
    told = json.loads(_go("mod", "download", "-json", f"{module.path}@{module.version}"))
    if told["Sum"] != module.sum:
        raise AssertionError(f"{module.path}@{module.version}: expected {module.sum} (got {told['Sum']})")
    return Path(told["Zip"])


def _go(*arguments: str, **environment: str) -> str:
    if shutil.which("go") is None:
        raise Missing("no Go: kustomize and the CRDs come through its module proxy")
    with _Workshop() as elsewhere:  # outside of any module, whose go.mod would have a say
        return _run(["go", *arguments], elsewhere, {"GOFLAGS": "-modcacherw", "GOWORK": "off", **environment})


def _run(command: list[str], cwd: Path, environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{' '.join(command[:4])} took more than {_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise Missing(f"{' '.join(command[:4])} failed: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


class _Workshop(tempfile.TemporaryDirectory):
    """A directory beside the tools, so that what is made in it can be renamed into place."""

    def __init__(self) -> None:
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        super().__init__(dir=DIRECTORY, prefix=".making-")

    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())
