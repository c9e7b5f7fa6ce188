"""Files that a stage and its Beam workers leave for each other.

Workers of a cluster may have another disk. Then everything that they read or write goes through one place that both
reach, named by Beam's own ``--temp_location``: a path on a shared volume or a URI such as ``gs://bucket/temp``.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, Literal

from tidemill.errors import UsageError

_CHUNK: Final = 1 << 20


class Exchange(ABC):
    """How files get from the stage to its workers and back. Workers are told strings, not paths."""

    @abstractmethod
    def given(self, path: Path) -> str:
        """Returns what workers call a file or directory of the stage, which they only read."""

    @abstractmethod
    def made(self, path: Path) -> contextlib.AbstractContextManager[str]:
        """Yields what workers call a directory of the stage that they write; its files are there after the block."""


class SamePaths(Exchange):
    """Workers see the stage's disk."""

    def given(self, path: Path) -> str:
        return str(path.absolute())

    @contextlib.contextmanager
    def made(self, path: Path) -> Iterator[str]:
        yield str(path.absolute())


class Copies(Exchange):
    """Files are copied to ``root`` and from there.

    Args:
        root: a path or URI that the stage and its workers reach, for this stage alone.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def given(self, path: Path) -> str:
        target = f"{self._root}/{uuid.uuid4().hex}/{path.name}"
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        for file in files:
            relative = file.relative_to(path).as_posix()
            with file.open("rb") as source, opened(f"{target}/{relative}" if path.is_dir() else target, "wb") as copy:
                shutil.copyfileobj(source, copy, _CHUNK)
        return target

    @contextlib.contextmanager
    def made(self, path: Path) -> Iterator[str]:
        target = f"{self._root}/{uuid.uuid4().hex}"
        yield target
        _fetch(target, path)


@contextlib.contextmanager
def exchange_at(location: str | None) -> Iterator[Exchange]:
    """Yields copies below ``location``, removed afterwards, or the same paths where there is none.

    Raises:
        UsageError: if no filesystem is known for the location.
    """
    if location is None:
        yield SamePaths()
        return
    root = f"{location.rstrip('/')}/tidemill-{uuid.uuid4().hex}"
    filesystem, path = _filesystem(root)
    try:
        yield Copies(root)
    finally:
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)


@contextlib.contextmanager
def opened(path: str, mode: Literal["rb", "wb"]) -> Iterator[IO[bytes]]:
    """Opens a file that a worker was told of, creating directories for one that it writes."""
    if "://" in path:
        filesystem, name = _filesystem(path)
        with filesystem.open(name, mode) as file:
            yield file
        return
    if mode == "wb":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open(mode) as file:
        yield file


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[Path]:
    """Yields a directory that a worker was told of on the worker's own disk, for libraries that read nothing else."""
    if "://" not in path:
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="tidemill-") as directory:
        _fetch(path, Path(directory))
        yield Path(directory)


def _fetch(source: str, target: Path) -> None:
    filesystem, root = _filesystem(source)
    for name in filesystem.find(root):
        local = target / name.removeprefix(root).lstrip("/")
        local.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(name, str(local))


def _filesystem(path: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        filesystem, name = url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise UsageError(path, "must be a path or a URI of a known filesystem", str(error)) from error
    return filesystem, name
