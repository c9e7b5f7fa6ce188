"""The versions in memory: loaded and warmed beside each other, swapped and released without a failed request."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tidemill.errors import TidemillError
from tidemill.serving.batching import Arrays, Batcher
from tidemill.serving.logs import event
from tidemill.serving.metrics import Metrics
from tidemill.serving.payload import Call, Fault, Refused
from tidemill.serving.registry import Registry
from tidemill.serving.settings import Settings

if TYPE_CHECKING:
    from tidemill.serving.model import LoadedModel


@dataclass(frozen=True)
class Wanted:
    """What should be served.

    Attributes:
        default: the version that answers when none is named.
        directories: by version.
        serial: number of the decision that this follows; a new one has failed versions tried again at once.
    """

    default: int | None
    directories: Mapping[int, Path]
    serial: int = 0


class Source(Protocol):
    """Says what should be served, now."""

    def wanted(self) -> Wanted: ...


@dataclass(frozen=True)
class DirectorySource:
    """One model at a fixed place: version 1, or the number that its directory is named by."""

    directory: Path

    def wanted(self) -> Wanted:
        version = int(self.directory.name) if self.directory.name.isdecimal() else 1
        return Wanted(version, {version: self.directory})


class RegistrySource:
    """The champion of a registered model, and its challenger beside it, so that it can be tried before it answers."""

    def __init__(self, root: Path, model: str) -> None:
        self._registry = Registry(root, model)
        self._seen: tuple[int, int] | None = None
        self._wanted = Wanted(None, {})

    def wanted(self) -> Wanted:
        seen = self._registry.aliases_stamp()
        if seen != self._seen:
            aliases = self._registry.aliases()
            versions = [v for v in (aliases.champion, aliases.challenger) if v is not None]
            directories = {v: self._registry.directory(v) for v in versions}
            self._wanted = Wanted(aliases.champion, directories, aliases.event["serial"])
            self._seen = seen
        return self._wanted


@dataclass
class Version:
    """A version in memory."""

    number: int
    model: LoadedModel
    batcher: Batcher
    users: int = 0

    async def predict(self, call: Call) -> Arrays:
        """Answers a call; see :meth:`Batcher.submit`."""
        return await self.batcher.submit(call)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps the version in memory."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1


@dataclass(frozen=True)
class Failure:
    """A version that could not be loaded, and the decision that it was wanted by."""

    message: str
    serial: int
    at: float = field(default_factory=time.monotonic)


class Versions:
    """Follows a source. Belongs to one event loop; models are loaded in a thread of their own.

    A version that cannot be loaded leaves what is served as it is, is shown in the status, and is tried again when
    the source changes its mind or after ``Settings.retry_s``.
    """

    def __init__(self, name: str, source: Source, settings: Settings, metrics: Metrics) -> None:
        self.name = name
        self._source, self._settings, self._metrics = source, settings, metrics
        self._loader = ThreadPoolExecutor(1, "load")
        self._callers: Executor = ThreadPoolExecutor(settings.workers, "predict")
        self._asked = Wanted(None, {})
        self._failures: dict[int, Failure] = {}
        self._loading: int | None = None
        self._loaded: dict[int, Version] = {}
        self._default: int | None = None
        self._releases: set[asyncio.Task[None]] = set()

    @property
    def default(self) -> Version | None:
        """The version that answers when none is named."""
        return self._loaded.get(self._default) if self._default is not None else None

    @property
    def queued_rows(self) -> int:
        return sum(version.batcher.queued_rows for version in self._loaded.values())

    def resolve(self, name: str, number: int | None) -> Version:
        """Returns the version to ask.

        Raises:
            Refused: 404 if there is no such model or version, 503 if no version answers by default yet.
        """
        if name != self.name:
            raise Refused(404, Fault(f"no such model; this server has {self.name}"))
        if number is not None:
            if number not in self._loaded:
                raise Refused(404, Fault(f"model {name} has no version {number} loaded"))
            return self._loaded[number]
        if (version := self.default) is None:
            raise Refused(503, Fault(f"no version of model {name} is ready"), retry_after_s=1)
        return version

    async def follow(self) -> None:
        """Serves what the source wants, for ever."""
        while True:
            try:
                await self.refresh()
            except (OSError, ValueError, TidemillError) as error:
                event("source_unreadable", logging.ERROR, error)
            await asyncio.sleep(self._settings.poll_s)

    async def refresh(self) -> None:
        """Makes what is in memory agree with the source, once."""
        wanted = self._source.wanted()
        if wanted != self._asked:
            self._failures.clear()
            self._asked = wanted
        # The champion first: nothing should delay the version that answers.
        for number in sorted(wanted.directories, key=lambda n: n != wanted.default):
            failure = self._failures.get(number)
            due = failure is None or time.monotonic() - failure.at > self._settings.retry_s
            if number not in self._loaded and due:
                await self._load(number, wanted.directories[number])
        if wanted.default in self._loaded and wanted.default != self._default:
            event("version_answers", version=wanted.default, before=self._default)
            self._default = wanted.default
        for number in self._loaded.keys() - wanted.directories.keys() - {self._default}:
            self._release(self._loaded.pop(number))
        self._metrics.version.labels(self.name).set(self._default or 0)
        self._metrics.loaded.set(len(self._loaded))
        self._metrics.behind.set(int(wanted.default != self._default))

    async def _load(self, number: int, directory: Path) -> None:
        self._loading = number
        started = time.monotonic()
        try:
            version = await asyncio.get_running_loop().run_in_executor(self._loader, self._read, number, directory)
        except Exception as error:  # noqa: BLE001 - whatever loading raises, the old version goes on answering
            message = str(error) if isinstance(error, TidemillError) else type(error).__name__
            self._failures[number] = Failure(message, self._asked.serial)
            self._metrics.load_failures.inc()
            event("version_failed", logging.ERROR, error, version=number, reason=message)
        else:
            self._failures.pop(number, None)
            self._loaded[number] = version
            event("version_loaded", version=number, seconds=round(time.monotonic() - started, 3))
        finally:
            self._loading = None

    def _read(self, number: int, directory: Path) -> Version:
        from tidemill.serving import model  # imports tensorflow: the port is open before

        loaded = model.load(directory)
        if loaded.manifest.name != self.name:
            raise TidemillError(str(directory), f"the model must be {self.name}", loaded.manifest.name)
        loaded.warm_up(self._settings.batch_sizes)
        batcher = Batcher(
            loaded.predict,
            model.bad_input,
            self._callers,
            self._settings.batch_sizes,
            self._settings.workers,
            self._settings.max_queued_rows,
            self._metrics.batch_rows.observe,
        )
        return Version(number, loaded, batcher)

    def _release(self, version: Version) -> None:
        """Lets go of a version when its last request is answered."""

        async def last_answer() -> None:
            while version.users:
                await asyncio.sleep(0.01)
            event("version_released", version=version.number)

        task = asyncio.get_running_loop().create_task(last_answer())
        self._releases.add(task)
        task.add_done_callback(self._released)

    def _released(self, task: asyncio.Task[None]) -> None:
        self._releases.discard(task)
        gc.collect()  # a SavedModel in memory is full of cycles, and is much larger than Python knows

    def status(self, number: int | None = None) -> list[dict[str, Any]]:
        """Returns TensorFlow Serving's ``model_version_status``, newest version first.

        Raises:
            Refused: 404 if version ``number`` is neither loaded nor wanted.
        """
        known = {*self._loaded, *self._asked.directories, *self._failures}
        if number is not None and number not in known:
            raise Refused(404, Fault(f"model {self.name} has no version {number} loaded"))
        return [self._version_status(n) for n in sorted(known, reverse=True) if number in (None, n)]

    def _version_status(self, number: int) -> dict[str, Any]:
        state, code, message = "START", "OK", ""
        if number in self._loaded:
            state = "AVAILABLE"
        elif number == self._loading:
            state = "LOADING"
        elif number in self._failures:
            state, code, message = "END", "INTERNAL", self._failures[number].message
        status = {"error_code": code, "error_message": message}
        described = {"version": str(number), "state": state, "status": status, "default": number == self._default}
        return {**described, "serial": self._failures[number].serial} if state == "END" else described
