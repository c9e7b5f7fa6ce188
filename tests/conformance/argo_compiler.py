"""KFP's own backend compiler as a command, and the schema of what it emits.

Both come through Go's module proxy at test time: the compiler as `argo/` asks for it (pinned by its go.sum), the schema
from Argo's own module. They are kept in the directory of `tests/manifests/tools.py` and not fetched again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from tools import DIRECTORY, Missing, Module

SOURCE: Final = Path(__file__).parent / "argo"
ARGO: Final = Module(
    "github.com/argoproj/argo-workflows/v3", "v3.7.3", "h1:b0o03RTLXIL7lQunDEvLoDTeI5TbfXe2obGaItvvifk="
)
_CRD: Final = "manifests/base/crds/full/argoproj.io_workflows.yaml"
_BUILD_TIMEOUT_S: Final = 280


class Refused(Exception):
    """KFP's backend would not take the pipeline; the message is its own."""


def compiler() -> Path:
    """Returns the compiler's binary, built the first time (two minutes with all downloads).

    Raises:
        Missing: if there is no Go, or no way to its proxy.
    """
    made_from = b"".join((SOURCE / name).read_bytes() for name in ("go.mod", "go.sum", "main.go"))
    binary = DIRECTORY / "bin" / f"argo-{hashlib.sha256(made_from).hexdigest()[:16]}"
    if not binary.exists():
        _go("mod", "download", cwd=SOURCE)
        binary.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=DIRECTORY, prefix=".making-") as beside:
            made = Path(beside) / "argo"
            build = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(made), "."]
            done = subprocess.run(build, cwd=SOURCE, env=_environment(), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            os.replace(made, binary)
    return binary


def workflow_crd() -> dict[str, Any]:
    """Returns the CustomResourceDefinition of Argo's Workflow with its full schema, fetched the first time (10 MiB).

    Raises:
        Missing: as `compiler`.
    """
    kept = DIRECTORY / "crds" / f"{ARGO.path.replace('/', '_')}@{ARGO.version}.yaml"
    if not kept.exists():
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        told = json.loads(_go("mod", "download", "-json", f"{ARGO.path}@{ARGO.version}", cwd=DIRECTORY))
        assert told["Sum"] == ARGO.sum, f"{ARGO.path}@{ARGO.version}: expected {ARGO.sum} (got {told['Sum']})"
        kept.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(told["Zip"]) as archive, tempfile.TemporaryDirectory(dir=DIRECTORY) as beside:
            made = Path(beside) / kept.name
            made.write_bytes(archive.read(f"{ARGO.path}@{ARGO.version}/{_CRD}"))
            os.replace(made, kept)
    crd: dict[str, Any] = yaml.load(kept.read_text(), Loader=yaml.CSafeLoader)
    return crd


def compile_workflow(binary: Path, package: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the Argo Workflow that KFP's backend makes of a package, without what Go prints of unset times.

    Raises:
        Refused: with the backend's reason.
    """
    with tempfile.TemporaryDirectory() as beside:
        files = [Path(beside) / "package.yaml"]
        files[0].write_text(package, encoding="utf-8")
        if parameters is not None:
            files.append(Path(beside) / "parameters.json")
            files[1].write_text(json.dumps(parameters), encoding="utf-8")
        done = subprocess.run([str(binary), *map(str, files)], capture_output=True, text=True, timeout=60)
    if done.returncode == 1:
        raise Refused(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    workflow: dict[str, Any] = json.loads(done.stdout)
    assert workflow.pop("status") == {"startedAt": None, "finishedAt": None}
    assert workflow["metadata"].pop("creationTimestamp") is None
    return workflow


def _environment() -> dict[str, str]:
    return {**os.environ, "GOFLAGS": "-modcacherw -buildvcs=false", "GOWORK": "off", "CGO_ENABLED": "0"}


def _go(*arguments: str, cwd: Path) -> str:
    if shutil.which("go") is None:
        raise Missing("no Go: KFP's compiler comes as a Go module")
    try:
        done = subprocess.run(
            ["go", *arguments], cwd=cwd, env=_environment(), capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"go {' '.join(arguments[:2])} took more than {_BUILD_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise Missing(f"go {' '.join(arguments[:2])} failed: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout
