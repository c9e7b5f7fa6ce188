"""Where a training stands, in storage, so that a killed one goes on as if nothing had happened.

One file is one checkpoint, written by a thread while the training goes on::

    checkpoint-<step>.<sha256 of the content>.npz

A ``.npz`` holds the variables that a step changes, the best weights so far, and ``state``: position, history, early
stopping and the digest of what is trained on what. A file gets its name when it is whole. The name says what it must
contain, so a torn or damaged one is found out wherever it lies: on a disk, on a mounted bucket or in an object store.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from tidemill.errors import PlatformError, ProblemError

NAME: Final = re.compile(r"checkpoint-(?P<step>\d{10})\.(?P<digest>[0-9a-f]{64})\.npz")
_PARTIAL: Final = ".partial"
_CHUNK: Final = 1 << 20
_REMEDY: Final = "look after the storage, then run it again: it goes on from the newest whole checkpoint"


@dataclass
class Progress:
    """Where a training stands. Epochs and steps count from 0 and name the next one to take.

    Attributes:
        epoch: the current epoch.
        step: the next step within the epoch.
        steps: steps taken in all.
        loss: sum over the examples of this epoch so far of their loss.
        examples: examples seen in this epoch.
        epoch_seconds: time spent training in this epoch.
        seconds: time spent training and evaluating in all, over all tries.
        best_loss: smallest eval loss so far.
        best_epoch: the 1-based epoch it was seen in.
        stopped: why the training ended, if it has.
        history: one record per epoch that ended.
        resumed: steps of the checkpoints that tries began from.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss: float = 0.0
    examples: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    best_loss: float | None = None
    best_epoch: int = 0
    stopped: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)


class Checkpoints:
    """The newest checkpoints of one training.

    Args:
        directory: theirs alone: a path, or an address that fsspec opens, such as ``gs://bucket/directory``.
        key: digest of everything that the training depends on; checkpoints of another key are not for it.
        keep: how many are kept.
        writes: whether this process writes and tidies up; of several workers only the chief does.
    """

    def __init__(self, directory: str | Path, key: str, keep: int = 2, writes: bool = True) -> None:
        self._files, self._directory = _opened(str(directory))
        self._key, self._keep, self._writes = key, keep, writes
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, progress: Progress, variables: Sequence[np.ndarray], best: Sequence[np.ndarray]) -> None:
        """Has a checkpoint written whole or not at all, and all but the newest removed, while the caller goes on.

        Waits for the checkpoint before this one, so that there are never two under way.

        Args:
            progress: may change afterwards.
            variables: must not change afterwards.
            best: must not change afterwards.

        Raises:
            PlatformError: if the checkpoint before this one could not be written.
        """
        self.finish()
        state = {"key": self._key, "variables": len(variables), "progress": asdict(progress)}
        if self._writes:
            self._pending = self._writer.submit(self._write, progress.steps, json.dumps(state), [*variables, *best])

    def finish(self) -> None:
        """Waits until what was saved is in storage.

        Raises:
            PlatformError: if it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except Exception as error:  # each kind of storage raises its own library's errors
            raise PlatformError(
                self._address(), "a checkpoint can't be written", f"{type(error).__name__}: {error}", _REMEDY
            ) from error

    def restore(self) -> tuple[Progress, list[np.ndarray], list[np.ndarray]] | None:
        """Returns the newest whole checkpoint of this training: progress, variables and best weights.

        Prints why a checkpoint is not used: it is damaged, or belongs to another training. What a killed writer left
        is removed.

        Raises:
            PlatformError: if the storage can't be read.
        """
        try:
            self._tidy()
            for name in reversed(self._present()):
                if (restored := self._read(name)) is not None:
                    return restored
                if self._writes:
                    self._files.rm_file(self._path(name))
            return None
        except PlatformError:
            raise
        except Exception as error:
            raise PlatformError(
                self._address(), "the checkpoints can't be read", f"{type(error).__name__}: {error}", _REMEDY
            ) from error

    def _write(self, step: int, state: str, arrays: Sequence[np.ndarray]) -> None:
        self._files.makedirs(self._directory, exist_ok=True)
        stem = f"checkpoint-{step:010d}"
        with self._files.open(self._path(stem + _PARTIAL), "wb") as file:
            hashing = _Hashing(file)
            numbered = {f"{i:05d}": array for i, array in enumerate(arrays)}
            dtypes = np.array([array.dtype.name for array in arrays])
            np.savez(hashing, state=np.array(state), dtypes=dtypes, **numbered)
            hashing.sync()
        name = f"{stem}.{hashing.hexdigest}.npz"
        self._files.mv(self._path(stem + _PARTIAL), self._path(name))
        others = [other for other in self._present() if other != name]
        same = [other for other in others if other.startswith(stem)]  # before the evaluation that ends an epoch, say
        for old in same + sorted(set(others) - set(same))[: -self._keep + 1 or None]:
            self._files.rm_file(self._path(old))

    def _read(self, name: str) -> tuple[Progress, list[np.ndarray], list[np.ndarray]] | None:
        matched = NAME.fullmatch(name)
        assert matched is not None
        with self._files.open(self._path(name), "rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            if digest.hexdigest() != matched["digest"]:
                print(f"train: {name} is damaged and not used: its content is not what its name says", flush=True)
                return None
            file.seek(0)
            with np.load(file) as archive:
                state = json.loads(str(archive["state"]))
                if state["key"] != self._key:
                    print(f"train: {name} is of other inputs; it is not used and training starts anew", flush=True)
                    return None
                # NumPy stores types that it doesn't know itself, such as bfloat16, as so many bytes.
                arrays = [archive[f"{i:05d}"].view(np.dtype(str(t))) for i, t in enumerate(archive["dtypes"])]
        return Progress(**state["progress"]), arrays[: state["variables"]], arrays[state["variables"] :]

    def _present(self) -> list[str]:
        return sorted(name for name in _names(self._files, self._directory) if NAME.fullmatch(name))

    def _tidy(self) -> None:
        if self._writes:
            for name in _names(self._files, self._directory):
                if name.endswith(_PARTIAL):
                    self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def _address(self) -> str:
        return str(self._files.unstrip_protocol(self._directory))


def directory_of(uri: str | None, scratch: Path) -> str:
    """Returns where the checkpoints of a training go.

    Args:
        uri: ``training.checkpoint_uri``; trainings share it, so each has a directory below it.
        scratch: the training's own directory, the same in every try.
    """
    if uri is None:
        return str(scratch / "train")
    return f"{uri.rstrip('/')}/{hashlib.sha256(str(scratch.absolute()).encode()).hexdigest()[:16]}"


def remove_remote(uri: str | None, scratch: Path) -> None:
    """Removes the checkpoints of a training whose success is told: nobody else would, as they lie outside its scratch.

    Says on stderr if they can't be removed: the training is done all the same.

    Args:
        uri: see `directory_of`, as for ``scratch``.
    """
    if uri is None:
        return
    files, directory = _opened(directory_of(uri, scratch))
    try:
        files.invalidate_cache()
        if files.exists(directory):
            files.rm(directory, recursive=True)
    except Exception as error:  # noqa: BLE001  # each kind of storage raises its own library's errors
        address = files.unstrip_protocol(directory)
        told = f"{address}: the checkpoints can't be removed: {type(error).__name__}: {error}"
        print(f"train: warning: {told}", file=sys.stderr, flush=True)


def newest_step(directory: str | Path) -> int | None:
    """Returns the step of the newest checkpoint, whole or damaged, and None where there is none.

    Raises:
        PlatformError: if the storage can't be read.
    """
    files, path = _opened(str(directory))
    try:
        names = _names(files, path)
    except Exception as error:  # each kind of storage raises its own library's errors
        where, got = str(files.unstrip_protocol(path)), f"{type(error).__name__}: {error}"
        raise PlatformError(where, "the checkpoints can't be read", got, _REMEDY) from error
    return max((int(matched["step"]) for name in names if (matched := NAME.fullmatch(name))), default=None)


def _opened(directory: str) -> tuple[AbstractFileSystem, str]:
    try:
        files, path = url_to_fs(directory)
    except (ImportError, ValueError) as error:
        raise ProblemError(
            "training.checkpoint_uri", "must be an address that this environment can open", f"{directory}: {error}"
        ) from error
    return files, path


def _names(files: AbstractFileSystem, directory: str) -> list[str]:
    files.invalidate_cache()
    try:
        return [Path(str(path)).name for path in files.ls(directory, detail=False)]
    except FileNotFoundError:
        return []


class _Hashing(io.RawIOBase):
    """Hashes what is written to a file, which is why nothing goes back in it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()

    @property
    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        self._file.write(data)
        return memoryview(data).nbytes

    def sync(self) -> None:
        """Has the system put the content on the disk, where it is a file of the system's."""
        self._file.flush()
        try:
            descriptor = self._file.fileno()
        except io.UnsupportedOperation:
            return
        os.fsync(descriptor)
