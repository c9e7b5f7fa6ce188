"""The bill of materials of an image, as CycloneDX 1.5: what uv.lock put into it, and what its base has of Debian."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from project import ROOT, VERSION, PlatformError, Source

_NAMESPACE: Final = uuid.UUID("6f2f6e7e-3f5a-5d0c-9d0e-7469646d696c")
_RAW_PYTHON: Final = "/usr/local/bin/python3.11"
PROBE: Final = (
    "import importlib.metadata, json, os, pathlib, platform, sys; "
    "print(json.dumps({"
    "'dpkg': pathlib.Path('/var/lib/dpkg/status').read_text(), "
    "'system': platform.freedesktop_os_release(), "
    "'python': platform.python_version(), "
    "'interpreter': os.path.realpath(sys.executable), "
    "'installed': {d.name: d.version for d in importlib.metadata.distributions()}}))"
)
"""What is run inside an image to see what is in it; its result is `describe`'s ``inside``."""


def describe(
    image: str, extras: Sequence[str], source: Source, reference: str, inside: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the bill of materials of an image; the same for the same lock, base and commit.

    Args:
        extras: the extras of pyproject.toml that the image was installed with.
        reference: of the image, with its digest.
        inside: what :data:`PROBE` printed in it.

    Raises:
        PlatformError: if uv doesn't tell what the lock holds.
    """
    bom = _locked(extras)
    system = inside["system"]
    root = {
        "type": "container",
        "bom-ref": "image",
        "name": f"tidemill/{image}",
        "version": VERSION,
        "purl": f"pkg:oci/{image}@{quote(reference.rpartition('@')[2], safe='')}",
        "properties": [
            {"name": "tidemill:environment", "value": image},
            {"name": "tidemill:git-commit", "value": source.commit},
            {"name": "tidemill:lock-sha256", "value": source.lock},
        ],
    }
    project = {**bom["metadata"]["component"], "purl": f"pkg:pypi/tidemill@{VERSION}"}
    base = [
        {
            "type": "operating-system",
            "bom-ref": "operating-system",
            "name": system["ID"],
            "version": system["VERSION_ID"],
        },
        *_debian(inside["dpkg"], f"{system['ID']}-{system['VERSION_ID']}"),
    ]
    if inside["interpreter"] == _RAW_PYTHON:  # the official Python images compile theirs: dpkg knows nothing of it
        base.append({"type": "platform", "bom-ref": "python", "name": "python", "version": inside["python"]})
        base[-1]["cpe"] = f"cpe:2.3:a:python:python:{inside['python']}:*:*:*:*:*:*:*"
    for component in bom["components"]:
        component["externalReferences"] = _installable(component.get("externalReferences", []))
    bom["metadata"] |= {"timestamp": source.created, "component": root}
    bom["components"] = [project, *bom["components"], *base]
    contents = [project["bom-ref"], *(component["bom-ref"] for component in base)]
    bom["dependencies"] = [{"ref": "image", "dependsOn": contents}, *bom["dependencies"]]
    bom.pop("serialNumber")
    content = hashlib.sha256(json.dumps(bom, sort_keys=True).encode()).hexdigest()
    return {**bom, "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}"}


def _locked(extras: Sequence[str]) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("setup_environments", ROOT / ".ci" / "setup.py")
    if spec is None or spec.loader is None:
        raise PlatformError(".ci/setup.py", "cannot be loaded")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    command = [setup.find_uv(), "export", "--quiet", "--locked", "--no-default-groups", "--project", str(ROOT)]
    command += ["--preview-features", "sbom-export", "--format", "cyclonedx1.5"]
    command += [argument for extra in extras for argument in ("--extra", extra)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        raise PlatformError("uv.lock", "uv cannot tell what it holds", done.stderr.strip())
    return dict(json.loads(done.stdout))


def _installable(distributions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns those files of a package that can be what is in the image: wheels for glibc, or else its source."""
    wheels = [d for d in distributions if d["url"].endswith(".whl") and "musllinux" not in d["url"]]
    return wheels or list(distributions)


def _debian(status: str, distribution: str) -> Iterator[dict[str, Any]]:
    """Yields a component for each installed package of a dpkg status file."""
    for paragraph in sorted(status.strip().split("\n\n")):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if not line.startswith(" ") and ": " in line
        )
        if fields.get("Status") != "install ok installed":
            continue
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}&distro={distribution}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
