"""The container images: where they are, and whether they stay what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject

_DIGEST: Final = re.compile(r"@sha256:[0-9a-f]{64}$")
_MUTABLE: Final = ("latest", "main", "master", "dev", "stable", "edge", "nightly")
_PIN: Final = "compile with `--images images.json`, which `make images` writes"


@check("image-mutable", "warning", "The image has no tag, or one that is meant to move: each node may run another one.")
def image_mutable(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        image, tag = _parts(task.container["image"])
        if not _DIGEST.search(image) and (tag is None or tag in _MUTABLE):
            yield Told(task.name, f"the image {image} has {f'the moving tag {tag}' if tag else 'no tag'}", _PIN)


@check(
    "image-not-pinned",
    "warning",
    "The image has a tag and no digest: it may be another one tomorrow, and cached results know only the name.",
)
def image_not_pinned(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        image, tag = _parts(task.container["image"])
        if not _DIGEST.search(image) and tag is not None and tag not in _MUTABLE:
            yield Told(task.name, f"the image {image} has a tag and no digest", _PIN)


@check(
    "image-without-registry", "error", "The image's name has no registry: no backend can pull tidemill's from there."
)
def image_without_registry(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        image = task.container["image"]
        host = image.split("/", 1)[0]
        if "/" not in image or not ("." in host or ":" in host or host == "localhost"):
            cure = "set `images.registry` in the target's file, or compile with `--images images.json`"
            yield Told(task.name, f"the image {image} has no registry", cure)


@check("image-digest", "error", "The image's digest is not one: sha256 and 64 hexadecimal digits.")
def image_digest(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        image = task.container["image"]
        if "@" in image and not _DIGEST.search(image):
            yield Told(task.name, f"the image {image} has a faulty digest", _PIN)


@check(
    "image-other", "warning", "With `--images`: the task's image isn't one of that file; the package is older or newer."
)
def image_other(subject: Subject) -> Iterator[Told]:
    if subject.images is None:
        return
    known = set(subject.images.images.values())
    for task in subject.containers:
        if task.container["image"] not in known:
            cure = "compile again with this file of digests"
            yield Told(task.name, f"the image {task.container['image']} is not in the file of digests", cure)


def _parts(image: str) -> tuple[str, str | None]:
    """Returns an image and its tag."""
    last = image.rsplit("/", 1)[-1].split("@", 1)[0]
    return image, last.split(":", 1)[1] if ":" in last else None


CHECKS: Final = (image_mutable, image_not_pinned, image_without_registry, image_digest, image_other)
