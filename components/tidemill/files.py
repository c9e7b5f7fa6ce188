"""Writing that a kill cannot leave half done, and content digests."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20
# How file systems say that they can't rename a directory: Cloud Storage FUSE, which Vertex AI mounts, with EMFILE.
_NO_RENAME = (errno.EMFILE, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)


def write_text(path: Path, text: str) -> None:
    """Replaces ``path`` by ``text`` atomically: a reader sees the old content or the new, nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` atomically as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def replaced_directory(path: Path) -> Iterator[Path]:
    """Yields a fresh directory beside ``path`` that takes its place when the block ends well.

    When the block raises, what was written is removed and ``path`` is as it was. On a file system that can't rename
    directories the files are moved one by one, those at the top last, so that a manifest still vouches for the rest.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for debris in path.parent.glob(f".{path.name}.*.partial"):
        shutil.rmtree(debris, ignore_errors=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    beside.mkdir()
    try:
        yield beside
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        try:
            os.replace(beside, path)
        except OSError as error:
            if error.errno not in _NO_RENAME:
                raise
            _move_files(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _move_files(source: Path, target: Path) -> None:
    """Moves a directory file by file; what lies at its top, where manifests are, comes last."""
    files = sorted((p for p in source.rglob("*") if p.is_file()), key=lambda p: (p.parent == source, p))
    for file in files:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, place)
    for directory in (p for p in source.rglob("*") if p.is_dir()):
        (target / directory.relative_to(source)).mkdir(parents=True, exist_ok=True)


def sha256_file(path: Path) -> str:
    """Returns the hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest_tree(path: Path, exclude: tuple[str, ...] = ()) -> str:
    """Returns one hex sha256 over the relative names and contents below ``path`` (a file or a directory).

    Args:
        exclude: names of directories or files to leave out, at any depth.
    """
    if path.is_file():
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        relative = file.relative_to(path)
        if not set(relative.parts) & set(exclude):
            digest.update(f"{relative.as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()
