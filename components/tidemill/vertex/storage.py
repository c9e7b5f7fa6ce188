"""Cloud Storage: objects by address, written once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tidemill.errors import TidemillError, UsageError
from tidemill.vertex.clients import quiet_imports
from tidemill.vertex.faults import fault
from tidemill.vertex.location import Location

_THREADS: Final = 8
_TIMEOUT_S: Final = 120


class Store:
    """The buckets that the application-default credentials reach. Every upload is retried by the SDK."""

    def __init__(self, location: Location) -> None:
        self._location = location

    @cached_property
    def _client(self) -> Any:
        with quiet_imports():
            from google.auth.exceptions import GoogleAuthError
            from google.cloud.storage import Client

        try:
            return Client(project=self._location.project)
        except GoogleAuthError as error:
            raise self._fault("Cloud Storage", error) from error

    def put(self, uri: str, content: bytes | Path, replace: bool = False) -> bool:
        """Writes an object, unless one is there; returns whether it wrote it.

        The service itself decides (``if_generation_match=0``), so that two writers at once make one object.

        Args:
            replace: whether to write over what is there.
        """
        from google.api_core.exceptions import GoogleAPIError, PreconditionFailed

        blob, absent = self._blob(uri), None if replace else 0
        try:
            if isinstance(content, Path):
                blob.upload_from_filename(str(content), if_generation_match=absent, timeout=_TIMEOUT_S)
            else:
                blob.upload_from_string(
                    content, "application/octet-stream", if_generation_match=absent, timeout=_TIMEOUT_S
                )
        except PreconditionFailed:
            return False
        except GoogleAPIError as error:
            raise self._fault(uri, error) from error
        return True

    def read(self, uri: str) -> bytes:
        """Returns an object's content.

        Raises:
            UsageError: if there is none.
        """
        from google.api_core.exceptions import GoogleAPIError

        try:
            content: bytes = self._blob(uri).download_as_bytes(timeout=_TIMEOUT_S)
        except GoogleAPIError as error:
            raise self._fault(uri, error) from error
        return content

    def exists(self, uri: str) -> bool:
        from google.api_core.exceptions import GoogleAPIError

        try:
            return bool(self._blob(uri).exists(timeout=_TIMEOUT_S))
        except GoogleAPIError as error:
            raise self._fault(uri, error) from error

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
        from google.api_core.exceptions import GoogleAPIError

        bucket, prefix = _split(f"{uri}/")
        try:
            for blob in self._client.list_blobs(bucket, prefix=prefix, timeout=_TIMEOUT_S):
                yield blob.name.removeprefix(prefix)
        except GoogleAPIError as error:
            raise self._fault(uri, error) from error

    def _blob(self, uri: str) -> Any:
        bucket, name = _split(uri)
        return self._client.bucket(bucket).blob(name)

    def _fault(self, where: str, error: Exception) -> TidemillError:
        return fault(where, error, self._location)


def _split(uri: str) -> tuple[str, str]:
    bucket, slash, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket or not slash or not name:
        raise UsageError(uri, "expected gs://<bucket>/<object>")
    return bucket, name
