"""Whether images, uv.lock, images.json, the bills of materials and the components' references agree.

`python3 containers/check.py` looks at what `make images` left; it prints every disagreement and ends with 3 if there
is one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sbom
from engine import Built, Engine, find_engine
from project import IMAGES, ROOT, VERSION, Source, TidemillError, UsageError

from tidemill import images as references

USER: Final = "65532:65532"
REFUSED: Final = 3
_KEYS: Final = {"version", "lock", "commit", "images"}


@dataclass(frozen=True)
class Evidence:
    """What one image says of itself.

    Attributes:
        bom: its bill of materials, as written; None if there is none.
        installed: version by name of the Python distributions in it.
    """

    built: Built
    bom: Mapping[str, Any] | None
    installed: Mapping[str, str]


def main(arguments: Sequence[str]) -> int:
    """Checks what lies in a directory; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="containers/check.py", description=__doc__)
    parser.add_argument("--engine", help="docker, podman or buildah; else the first that is there")
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "images", help="where images.json is")
    options = parser.parse_args(arguments)
    try:
        images = read_images(options.directory / "images.json")
        evidence = look(find_engine(options.engine), options.directory, images["images"])
        lock = Source.read(commit=images["commit"]).lock
    except TidemillError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    found = [*disagreements(images, lock, component_images(), evidence)]
    for finding in found:
        print(finding, file=sys.stderr)
    return REFUSED if found else 0


def read_images(path: Path) -> dict[str, Any]:
    """Reads images.json.

    Raises:
        UsageError: if it isn't what `make images` writes.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(str(path), "cannot be read", str(error), "`make images` writes it") from error
    if not isinstance(value, dict) or set(value) != _KEYS or not isinstance(value["images"], dict):
        raise UsageError(str(path), f"expected the keys {', '.join(sorted(_KEYS))}", remedy="`make images` writes it")
    return value


def component_images() -> tuple[str, ...]:
    """Returns the images that the components name."""
    return (references.CONTROL, references.VALIDATION, references.TENSORFLOW, references.SERVING)


def look(engine: Engine, directory: Path, images: Mapping[str, str]) -> dict[str, Evidence]:
    """Looks at every image by the reference in images.json.

    Raises:
        PlatformError: if the engine has one of them not.
    """
    evidence = {}
    for name, reference in images.items():
        path = directory / f"{name}.cdx.json"
        bom = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        inside = json.loads(engine.run(reference, ["python3", "-c", sbom.PROBE]))
        evidence[name] = Evidence(engine.inspect(reference), bom, inside["installed"])
    return evidence


def disagreements(
    images: Mapping[str, Any], lock: str, named: Sequence[str], evidence: Mapping[str, Evidence]
) -> Iterator[str]:
    """Yields what doesn't agree, each with where it is.

    Args:
        images: what images.json holds.
        lock: hex sha256 of uv.lock.
        named: the images that the components name.
        evidence: by image, of those in images.json.
    """
    if images["version"] != VERSION:
        yield f"images.json: version is {images['version']}, and the package's is {VERSION}"
    if images["lock"] != lock:
        yield f"images.json: lock is {images['lock']}, and uv.lock's sha256 is {lock}"
    for reference in named:
        environment, tag = references.environment_of(reference), reference.rpartition(":")[2]
        if environment not in images["images"]:
            yield f"images.json: lacks {environment}, which components run in"
        if tag != images["version"]:
            yield f"components: they name {reference}, and images.json is of version {images['version']}"
    for name, reference in images["images"].items():
        if name not in IMAGES:
            yield f"images.json: {name} is no image of this project"
        if "@sha256:" not in reference:
            yield f"images.json: {reference} is not by digest"
        if references.environment_of(reference) != name:
            yield f"images.json: {name} is said to be {reference}"
        if name in evidence:
            yield from _of_image(name, images, evidence[name])


def _of_image(name: str, images: Mapping[str, Any], evidence: Evidence) -> Iterator[str]:
    built = evidence.built
    expected_labels = {
        "org.opencontainers.image.title": f"tidemill/{name}",
        "org.opencontainers.image.version": images["version"],
        "org.opencontainers.image.revision": images["commit"],
        "tidemill.environment": name,
        "tidemill.lock.sha256": images["lock"],
    }
    for key, value in expected_labels.items():
        if built.labels.get(key) != value:
            yield f"{name}: label {key} is {built.labels.get(key)}, expected {value}"
    for key, value in (("TIDEMILL_GIT_COMMIT", images["commit"]), ("TIDEMILL_LOCK_SHA256", images["lock"])):
        if built.environment.get(key) != value:
            yield f"{name}: {key} is {built.environment.get(key)}, expected {value}"
    if built.user != USER:
        yield f"{name}: runs as {built.user or 'root'}, expected {USER}"
    if evidence.bom is None:
        yield f"{name}: has no bill of materials"
    else:
        yield from _of_materials(name, images, evidence.bom, evidence.installed)


def _of_materials(
    name: str, images: Mapping[str, Any], bom: Mapping[str, Any], installed: Mapping[str, str]
) -> Iterator[str]:
    root = bom["metadata"]["component"]
    told = {entry["name"]: entry["value"] for entry in root["properties"]}
    expected = {"environment": name, "git-commit": images["commit"], "lock-sha256": images["lock"]}
    for key, value in expected.items():
        if told.get(f"tidemill:{key}") != value:
            yield f"{name}.cdx.json: {key} is {told.get(f'tidemill:{key}')}, expected {value}"
    python = (c for c in bom["components"] if c.get("purl", "").startswith("pkg:pypi/"))
    listed = {_normal(c["name"]): c["version"] for c in python}
    there = {_normal(key): value for key, value in installed.items()}
    for distribution in sorted(listed.keys() | there.keys()):
        if listed.get(distribution) != there.get(distribution):
            in_image, in_lock = there.get(distribution, "nothing"), listed.get(distribution, "nothing")
            yield f"{name}: {distribution} is {in_image} in the image and {in_lock} in uv.lock"


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
