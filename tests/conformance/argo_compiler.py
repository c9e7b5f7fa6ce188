"""KFP's own backend compiler as a command, and the schema of what it emits.

Both come through Go's module proxy at test time: the compiler as `argo/` asks for it (pinned by its go.sum), the schema
from Argo's own module. They are kept in the directory of `tests/manifests/tools.py` and not fetched again.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from go_programs import built, go
from tools import DIRECTORY, Module

SOURCE: Final = Path(__file__).parent / "argo"
ARGO: Final = Module(
    "github.com/argoproj/argo-workflows/v3", "v3.7.3", "h1:b0o03RTLXIL7lQunDEvLoDTeI5TbfXe2obGaItvvifk="
)
_CRD: Final = "manifests/base/crds/full/argoproj.io_workflows.yaml"


class Refused(Exception):
    """KFP's backend would not take the pipeline; the message is its own."""


def compiler() -> Path:
    """Returns the compiler's binary, built the first time (two to four minutes with all downloads).

    Raises:
        Missing: if there is no Go, or no way to its proxy.
    """
    return built(SOURCE)


def workflow_crd() -> dict[str, Any]:
    """Returns the CustomResourceDefinition of Argo's Workflow with its full schema, fetched the first time (10 MiB).

    Raises:
        Missing: as `compiler`.
    """
    kept = DIRECTORY / "crds" / f"{ARGO.path.replace('/', '_')}@{ARGO.version}.yaml"
    if not kept.exists():
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        told = json.loads(go("mod", "download", "-json", f"{ARGO.path}@{ARGO.version}", cwd=DIRECTORY))
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
