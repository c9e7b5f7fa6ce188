"""Reuse of results: by content, never by name or time.

A key is a digest of the code, the parameters and the *content* of the inputs, so a changed file behind the same
path is a different key, and the same content reached by another way is the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import tidemill
from tidemill.files import digest_tree, write_json
from tidemill.runs import Artifact, TaskRecord
from tidemill_pipelines.targets.local.environments import lock_digest

EXECUTOR_OUTPUT = "executor_output.json"


@cache
def package_digest() -> str:
    """Returns a digest of tidemill's own code: an edited stage never reuses what the old one made."""
    return digest_tree(Path(tidemill.__file__).parent, exclude=("__pycache__",))


def code_digest(image: str, command: Sequence[str]) -> str:
    """Returns a digest of everything that runs: component, package, image and locked dependencies."""
    return _digest([image, list(command), package_digest(), lock_digest()])


def key(code: str, parameters: Mapping[str, Any], inputs: Mapping[str, Artifact]) -> str:
    """Returns the cache key of one execution."""
    return _digest([code, dict(parameters), {name: artifact.digest for name, artifact in inputs.items()}])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest(uri: str) -> str:
    """Returns the content digest of a local artefact; of one that has metadata alone, the digest of nothing."""
    path = Path(uri)
    return digest_tree(path) if path.exists() else _digest(None)


@dataclass(frozen=True)
class Entry:
    """A finished execution that can be reused."""

    run: str
    root: Path
    outputs: Mapping[str, Artifact]
    summary: Mapping[str, Any]

    def intact(self) -> bool:
        """Whether every output is still there and unchanged."""
        return (self.root / EXECUTOR_OUTPUT).is_file() and all(
            digest(artifact.uri) == artifact.digest for artifact in self.outputs.values()
        )

    def restore(self, root: Path) -> None:
        """Lays the outputs at ``root``, hard-linked, so that each run can be deleted without harm to another."""
        if root == self.root:
            return
        root.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.root, root, copy_function=_link, dirs_exist_ok=True)
        output = root / EXECUTOR_OUTPUT
        text = output.read_text().replace(str(self.root), str(root))
        output.unlink()  # it is linked to the original, which must keep its own paths
        output.write_text(text)


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:  # another file system
        shutil.copy2(source, destination)


class Cache:
    """A directory of entries, one small JSON file each.

    Args:
        directory: where the entries lie.
        only_run: when given, only results of this run are reused: for resuming without any other reuse.
    """

    def __init__(self, directory: Path, only_run: str | None = None) -> None:
        self._directory = directory
        self._only_run = only_run

    @contextlib.contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Waits until no other run makes the result of ``key``, and keeps others waiting.

        Two runs at once then do the work once, and never write to the same checkpoints.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / f"{key}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def find(self, key: str) -> Entry | None:
        """Returns the entry of ``key`` if it can be used, outputs verified."""
        path = self._directory / f"{key}.json"
        if not path.is_file():
            return None
        value = json.loads(path.read_text())
        outputs = {name: Artifact(**artifact) for name, artifact in value["outputs"].items()}
        entry = Entry(value["run"], Path(value["root"]), outputs, value["summary"])
        return entry if self._only_run in (None, entry.run) and entry.intact() else None

    def put(self, key: str, entry: Entry) -> None:
        value = {
            "run": entry.run,
            "root": str(entry.root),
            "outputs": {name: {"uri": a.uri, "digest": a.digest} for name, a in entry.outputs.items()},
            "summary": dict(entry.summary),
        }
        write_json(self._directory / f"{key}.json", value)


def explain_miss(new: TaskRecord, before: TaskRecord | None) -> str:
    """Says what is different from the last execution of the same task."""
    if before is None:
        return "first execution for this problem"
    changes = ["the code or its environment"] if new.code != before.code else []
    for kind, mine, theirs in (
        ("parameter", new.parameters, before.parameters),
        ("input", {n: a.digest for n, a in new.inputs.items()}, {n: a.digest for n, a in before.inputs.items()}),
    ):
        names = sorted(n for n in {*mine, *theirs} if mine.get(n) != theirs.get(n))
        changes += [f"{kind} {name}" for name in names]
    if not changes:
        return "nothing changed, but the earlier result is gone, was altered, or never ended"
    return f"changed since the last execution: {', '.join(changes)}"
