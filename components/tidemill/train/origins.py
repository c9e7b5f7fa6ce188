"""What a training starts from: the champion, or what lies at an address, brought to this machine."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from tidemill.artifacts import MODEL_MANIFEST
from tidemill.errors import PlatformError, ProblemError
from tidemill.files import digest_tree

CHAMPION: Final = "champion"
START_FROM: Final = "training.start_from"
_PINNED: Final = re.compile(r"(?P<address>.+)#sha256=(?P<digest>[0-9a-f]{64})")


@dataclass
class Origin:
    """What a training is to start from, on this machine's disk.

    Attributes:
        address: ``champion``, or where it was.
        path: a model artefact, a SavedModel, a ``.keras`` or a ``.weights.h5`` file.
        digest: hex sha256 of its content.
        taken: whether user code takes the weights itself.
    """

    address: str
    path: Path
    digest: str
    taken: bool = False


@contextmanager
def origin(start_from: str | None, champion: Path | None) -> Iterator[Origin | None]:
    """Yields what a training starts from, brought to this machine; None if that is nothing, or there is no champion.

    Args:
        start_from: as the problem says.
        champion: directory of the champion's model; empty where there is none yet.

    Raises:
        ProblemError: if there is nothing at the address, or not what its digest says.
        PlatformError: if the storage can't be read.
    """
    if start_from is None:
        yield None
    elif start_from == CHAMPION:
        if champion is None:
            raise ProblemError(
                START_FROM, "the champion needs a pipeline, which knows where models are registered", "none"
            )
        there = (champion / MODEL_MANIFEST).is_file()
        if not there:
            print("train: there is no champion yet to start from; training starts from scratch", flush=True)
        yield Origin(CHAMPION, champion, digest_tree(champion)) if there else None
    else:
        matched = _PINNED.fullmatch(start_from)
        address = matched["address"] if matched else start_from
        with _brought(address) as path:
            digest = digest_tree(path)
            if not matched or matched["digest"] != digest:
                raise ProblemError(
                    START_FROM,
                    "must end in the digest of what lies there, as the same address may have other content tomorrow",
                    f"#sha256={matched['digest']}" if matched else "none",
                    f"if {address} is what you mean, write {address}#sha256={digest}",
                )
            yield Origin(address, path, digest)


@contextmanager
def _brought(address: str) -> Iterator[Path]:
    """Yields a local path with what is at the address."""
    with tempfile.TemporaryDirectory(prefix="tidemill-start-") as directory:
        try:
            files, path = url_to_fs(address)
            there, local = files.exists(path), Path(path)
            if there and not isinstance(files, LocalFileSystem):
                local = Path(directory) / Path(path).name
                files.get(path, str(local), recursive=True)
        except Exception as error:  # each kind of storage raises its own library's errors
            raise PlatformError(
                address, "can't be read", f"{type(error).__name__}: {error}", "check the address and this user's rights"
            ) from error
        if not there:
            raise ProblemError(START_FROM, "there is nothing at the address", address, "look for a mistyped path")
        yield local
