"""The local model registry: versions in TensorFlow Serving's layout, and the aliases that say which one answers.

::

    <registry>/<model>/
        <version>/                  saved_model.pb, variables/, assets/: what TF Serving reads
            model.json
            assets.extra/tidemill/  lineage.json, sample.json, statistics/, schema/, evaluation/ …
        aliases.json                champion, challenger, former champions; replaced in one step
        events.jsonl                what happened, append-only
        .lock

A version is complete when it has its number: it is written under another name, flushed to the disk and renamed.
Writers hold the lock, which the system frees when they die; readers need none. A writer that is killed at any point
leaves a registry that the next one puts in order: half-written versions are removed, and an event that was decided
(in ``aliases.json``) but not logged is logged.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tidemill.artifacts import SAVED_MODEL, ModelManifest
from tidemill.errors import PlatformError, UsageError
from tidemill.files import write_json

ALIASES: Final = "aliases.json"
EVENTS: Final = "events.jsonl"
_LOCK: Final = ".lock"
_PARTIAL: Final = ".partial"
EXTRA: Final = Path("assets.extra") / "tidemill"


@dataclass(frozen=True)
class Aliases:
    """Which version is what.

    Attributes:
        champion: the version that answers.
        challenger: the version that is about to: registered, and not yet champion.
        former: earlier champions, the last one last; a rollback goes back along it.
        event: the change that led here, with its serial number.
    """

    champion: int | None = None
    challenger: int | None = None
    former: tuple[int, ...] = ()
    event: Mapping[str, Any] = field(default_factory=lambda: {"serial": 0})

    def of(self, version: int) -> tuple[str, ...]:
        """Returns the names that ``version`` has."""
        names = {"champion": self.champion, "challenger": self.challenger}
        return tuple(name for name, named in names.items() if named == version)


def model_names(root: Path) -> list[str]:
    """Returns the names of the registered models."""
    return sorted(p.parent.name for p in Path(root).glob(f"*/{ALIASES}"))


class Registry:
    """The versions and aliases of one model."""

    def __init__(self, root: Path, model: str) -> None:
        self.model = model
        self.path = Path(root) / model

    def versions(self) -> list[int]:
        """Returns the complete versions, the oldest first."""
        return sorted(int(p.name) for p in self.path.glob("[0-9]*") if p.name.isdecimal() and p.is_dir())

    def directory(self, version: int) -> Path:
        return self.path / str(version)

    def manifest(self, version: int) -> ModelManifest:
        """Reads the manifest of a version.

        Raises:
            UsageError: if there is no such version.
        """
        if not self.directory(version).is_dir():
            known = ", ".join(map(str, self.versions())) or "none"
            raise UsageError(f"model {self.model}", f"no version {version} is registered; there is {known}")
        return ModelManifest.read(self.directory(version))

    def extra(self, version: int, name: str) -> Path:
        """Returns where something that is kept with a version lies."""
        return self.directory(version) / EXTRA / name

    def aliases(self) -> Aliases:
        """Reads the aliases; there are none before the first version."""
        try:
            value = json.loads((self.path / ALIASES).read_text())
        except FileNotFoundError:
            return Aliases()
        return Aliases(**{**value, "former": tuple(value["former"])})

    def aliases_stamp(self) -> tuple[int, int]:
        """Returns what changes whenever the aliases are replaced; cheap enough to be asked often."""
        try:
            status = (self.path / ALIASES).stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)

    def events(self) -> list[dict[str, Any]]:
        """Returns what happened, the oldest first."""
        try:
            text = (self.path / EVENTS).read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def add(self, model: Path, fill: Callable[[Path, int], None], run_id: str) -> int:
        """Registers a model artefact as the challenger and returns its version.

        A model whose digest is registered already keeps its version and all that was kept with it.

        Args:
            model: directory with ``saved_model/`` and ``model.json``; it is copied.
            fill: writes what is to be kept with the version into a directory, given its number.
        """
        digest = ModelManifest.read(model).digest
        with self._locked():
            version = next((v for v in self.versions() if self.manifest(v).digest == digest), None)
            if version is None:
                version = self._next_version()
                beside = self.path / f".{uuid.uuid4().hex}{_PARTIAL}"
                shutil.copytree(model / SAVED_MODEL, beside)
                shutil.copy2(model / "model.json", beside)
                fill(beside / EXTRA, version)
                _flush(*beside.rglob("*"), beside)
                os.rename(beside, self.directory(version))
                _flush(self.path)
            aliases = self.aliases()
            if version not in (aliases.champion, aliases.challenger):
                what = {"event": "registered", "version": version, "run_id": run_id, "digest": digest}
                self._decide(replace(aliases, challenger=version), what)
        return version

    def nominate(self, version: int, again: bool = False) -> Aliases:
        """Makes a version the challenger, if another one has become it meanwhile.

        Args:
            again: decide so even if it is the challenger already, which has a server that failed to load it try again.
        """
        with self._locked():
            aliases = self.aliases()
            if version == aliases.champion or (version == aliases.challenger and not again):
                return aliases
            self.manifest(version)
            return self._decide(replace(aliases, challenger=version), {"event": "nominated", "version": version})

    def promote(self, version: int) -> Aliases:
        """Makes a version the champion. Nothing happens if it is that already."""
        with self._locked():
            aliases = self.aliases()
            if aliases.champion == version:
                return aliases
            self.manifest(version)
            former = aliases.former if aliases.champion is None else (*aliases.former, aliases.champion)
            challenger = None if aliases.challenger == version else aliases.challenger
            what = {"event": "promoted", "version": version, "before": aliases.champion}
            return self._decide(Aliases(version, challenger, former), what)

    def rollback(self) -> Aliases:
        """Makes the former champion the champion again.

        Raises:
            UsageError: if there is none.
        """
        with self._locked():
            aliases = self.aliases()
            if aliases.champion is None or not aliases.former:
                raise UsageError(f"model {self.model}", "there is no former champion to go back to")
            *rest, version = aliases.former
            self.manifest(version)
            what = {"event": "rolled_back", "version": version, "before": aliases.champion}
            return self._decide(Aliases(version, aliases.challenger, tuple(rest)), what)

    def _decide(self, aliases: Aliases, what: Mapping[str, Any]) -> Aliases:
        """Replaces the aliases, which is the moment of the change, and logs it."""
        serial = self.aliases().event["serial"] + 1
        event = {"serial": serial, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **what}
        decided = replace(aliases, event=event)
        write_json(self.path / ALIASES, asdict(decided))
        self._log_decided()
        return decided

    def _log_decided(self) -> None:
        """Appends the last decided event to the log unless it stands there, and drops a line that was cut short."""
        event = self.aliases().event
        with (self.path / EVENTS).open("a+b") as file:
            file.seek(0)
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
            logged = [json.loads(line)["serial"] for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
            if event["serial"] > max(logged, default=0):
                file.write(json.dumps(event, sort_keys=True).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def _next_version(self) -> int:
        return max([*self.versions(), *(e["version"] for e in self.events())], default=0) + 1

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the model's lock and puts in order what a killed writer left."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / _LOCK).open("w")
        except OSError as error:
            raise PlatformError(str(self.path), "the registry cannot be written", error.strerror) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for version in self.path.glob(f".*{_PARTIAL}"):
                shutil.rmtree(version)
            for aliases in self.path.glob(f".{ALIASES}.*"):
                aliases.unlink()
            self._log_decided()
            yield


def _flush(*paths: Path) -> None:
    """Has paths on the disk when it returns: an alias must not survive a power cut that its version does not."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
