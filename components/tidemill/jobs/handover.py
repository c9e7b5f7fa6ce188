"""How the artefacts of a training reach its workers and come back, where the pipeline's task has them to itself.

KFP gives a task on Kubernetes copies in its pod. What the workers read is laid below the directory that they share with
the task, under the digest of its content and only once: a retried task finds it there. On Vertex AI all see the bucket
under one path, and nothing is laid anywhere.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tidemill.artifacts import MANIFEST
from tidemill.errors import PlatformError
from tidemill.files import digest_tree, replaced_directory

INPUTS: Final = "inputs"
OUTPUTS: Final = "outputs"
_DIGITS: Final = 16


@dataclass(frozen=True)
class Artefacts:
    """Where the artefacts of one training are: what `tidemill.train.worker` is called with."""

    bundle: Path
    transformed: Path
    transform_graph: Path
    model: Path
    history: Path
    champion: Path | None = None
    hyperparameters: Path | None = None

    def arguments(self, shared: Path) -> tuple[str, ...]:
        """Returns the arguments of a worker.

        Args:
            shared: directory of all workers of this training and their watcher.
        """
        return (*(word for name, path in self._named() for word in (f"--{name}", str(path))), "--shared", str(shared))

    def _named(self) -> Iterator[tuple[str, Path]]:
        for name, path in vars(self).items():
            if path is not None:
                yield name.replace("_", "-"), path


def handed_over(artefacts: Artefacts, shared: Path) -> Artefacts:
    """Lays the inputs below ``shared`` and returns where the workers find them and leave their outputs."""
    placed = {
        name: _laid(path, shared / INPUTS / name)
        for name in ("bundle", "transformed", "transform_graph", "champion", "hyperparameters")
        if (path := getattr(artefacts, name)) is not None
    }
    return replace(artefacts, **placed, model=shared / OUTPUTS / "model", history=shared / OUTPUTS / "history")


def handed_back(placed: Artefacts, artefacts: Artefacts) -> None:
    """Brings model and history from where the workers left them to where the task puts them out.

    Raises:
        PlatformError: if the job ended well and left none.
    """
    for source, target in ((placed.model, artefacts.model), (placed.history, artefacts.history)):
        if not source.is_dir():
            raise PlatformError(str(source), "must be there after a training that ended well", "nothing")
        with replaced_directory(target) as partial:
            shutil.copytree(source, partial, dirs_exist_ok=True, copy_function=shutil.copyfile)


def _laid(source: Path, parent: Path) -> Path:
    """Copies an artefact to ``parent/<digest>``, if it isn't there; a half copy never has that name."""
    target = parent / _digest(source)
    if not target.exists():
        with replaced_directory(target) as partial:
            if source.is_dir():
                shutil.copytree(source, partial, dirs_exist_ok=True, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(source, partial / source.name)
    return target if source.is_dir() else target / source.name


def _digest(source: Path) -> str:
    """Returns the digest of an artefact's content; a manifest has those of the tables that it vouches for."""
    if (source / MANIFEST).is_file():
        return hashlib.sha256((source / MANIFEST).read_bytes()).hexdigest()[:_DIGITS]
    return digest_tree(source)[:_DIGITS]
