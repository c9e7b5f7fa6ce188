"""Cloud Storage: objects by address, written once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill.vertex.faults import fault
from tidemill.vertex.location import Location
from tidemill.vertex.sdk import api_errors, auth_errors, storage_client

_THREADS: Final = 8
_TIMEOUT_S: Final = 120


class Store:
    """The buckets that the application-default credentials reach. Every upload is retried by the SDK."""

    def __init__(self, location: Location) -> None:
        self._location = location

    @cached_property
    def _client(self) -> Any:
        with self._told("Cloud Storage"):
            return storage_client(self._location.project)

    def put(self, uri: str, content: bytes | Path, replace: bool = False) -> bool:
        """Writes an object, unless one is there; returns whether it wrote it.

        The service itself decides (``if_generation_match=0``), so that two writers at once make one object.

        Args:
            replace: whether to write over what is there.
        """
        blob, absent = self._blob(uri), None if replace else 0
        try:
            with self._told(uri, api_errors().PreconditionFailed):
                if isinstance(content, Path):
                    blob.upload_from_filename(str(content), if_generation_match=absent, timeout=_TIMEOUT_S)
                else:
                    kind = "application/octet-stream"
                    blob.upload_from_string(content, kind, if_generation_match=absent, timeout=_TIMEOUT_S)
        except api_errors().PreconditionFailed:
            return False
        return True

    def read(self, uri: str) -> bytes:
        """Returns an object's content.

        Raises:
            UsageError: if there is none.
        """
        with self._told(uri):
            content: bytes = self._blob(uri).download_as_bytes(timeout=_TIMEOUT_S)
            return content

    def exists(self, uri: str) -> bool:
        with self._told(uri):
            return bool(self._blob(uri).exists(timeout=_TIMEOUT_S))

    def put_tree(self, directory: Path, uri: str, replace: bool = False) -> None:
        """Writes all files below a directory, several at a time; see :meth:`put`."""
        files = sorted(p for p in directory.rglob("*") if p.is_file())
        with ThreadPoolExecutor(_THREADS) as pool:
            list(
                pool.map(lambda file: self.put(f"{uri}/{file.relative_to(directory).as_posix()}", file, replace), files)
            )

    def get_tree(self, uri: str, directory: Path, chosen: Callable[[str], bool] = bool) -> None:
        """Copies the objects below ``uri`` into a directory.

        Args:
            chosen: tells by a name, relative to ``uri``, whether to copy the object; all by default.

        Raises:
            UsageError: if there are none.
        """
        names = [name for name in self.names(uri) if chosen(name)]
        if not names:
            raise UsageError(uri, "expected objects below it", "none")

        def get(name: str) -> None:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(f"{uri}/{name}"))

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(get, names))

    def names(self, uri: str) -> Iterator[str]:
        """Yields the names of the objects below ``uri``, relative to it."""
        bucket, prefix = _split(f"{uri}/")
        with self._told(uri):
            for blob in self._client.list_blobs(bucket, prefix=prefix, timeout=_TIMEOUT_S):
                yield blob.name.removeprefix(prefix)

    def _blob(self, uri: str) -> Any:
        bucket, name = _split(uri)
        return self._client.bucket(bucket).blob(name)

    @contextlib.contextmanager
    def _told(self, where: str, passing: Any = ()) -> Iterator[None]:
        api = api_errors()
        try:
            yield
        except passing:
            raise
        except api.RetryError as error:
            raise fault(where, error.cause or error, self._location) from error
        # requests' errors of the connection are OSErrors
        except (api.GoogleAPIError, auth_errors().GoogleAuthError, OSError) as error:
            raise fault(where, error, self._location) from error


def _split(uri: str) -> tuple[str, str]:
    bucket, slash, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket or not slash or not name:
        raise UsageError(uri, "expected gs://<bucket>/<object>")
    return bucket, name
