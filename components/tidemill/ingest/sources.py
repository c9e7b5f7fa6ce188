"""What lies at a source: files, their formats and how to open them. Needs nothing but the standard library."""

from __future__ import annotations

import glob
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from tidemill.errors import DataError, PlatformError, TidemillError

Format = Literal["csv", "jsonl", "parquet", "tfrecord"]

SUPPORTED = "CSV (.csv, .tsv), JSON Lines (.jsonl, .ndjson), Parquet (.parquet) or TFRecord (.tfrecord), text also .gz"
_FORMATS: tuple[tuple[Format, re.Pattern[str]], ...] = (
    ("csv", re.compile(r"\.[ct]sv(\.gz)?$", re.IGNORECASE)),
    ("jsonl", re.compile(r"\.(jsonl|ndjson)(\.gz)?$", re.IGNORECASE)),
    ("parquet", re.compile(r"\.(parquet|pq)$", re.IGNORECASE)),
    # TFX and Beam name their shards `data_tfrecord-00000-of-00001.gz`.
    ("tfrecord", re.compile(r"tfrecords?(-\d+-of-\d+)?(\.gz)?$", re.IGNORECASE)),
)
_BIGQUERY = "bq://"


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        uri: local path, or a URI that fsspec opens.
        name: the path relative to the source, with which messages, quarantine and fingerprint name the file.
        size: bytes as stored.
    """

    uri: str
    name: str
    size: int

    @property
    def format(self) -> Format:
        return cast(Format, format_of(self.name))

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Opens the content, decompressed. Damaged gzip is reported as the data's fault."""
        with _open_stored(self.uri) as stored:
            if not self.name.lower().endswith(".gz"):
                yield stored
                return
            try:
                with gzip.open(stored) as content:
                    yield cast(IO[bytes], content)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DataError(self.name, "the gzip data is damaged or cut off", str(error)) from error


def format_of(name: str) -> Format | None:
    """Returns the format that a file's name stands for."""
    return next((format_ for format_, pattern in _FORMATS if pattern.search(name)), None)


def is_bigquery(source: str) -> bool:
    return source.startswith(_BIGQUERY)


def bigquery_table(source: str) -> str:
    """Turns ``bq://project.dataset.table`` into Beam's ``project:dataset.table``.

    Raises:
        DataError: if it isn't of that form.
    """
    match = re.fullmatch(r"bq://([\w.:-]+)\.([\w$-]+)\.([\w$*-]+)", source)
    if not match:
        raise DataError(source, "expected bq://project.dataset.table")
    return f"{match[1]}:{match[2]}.{match[3]}"


def list_files(source: str) -> list[SourceFile]:
    """Returns the files at a path, directory, glob or URI, sorted by name.

    In a directory, files of other formats and hidden files (``.`` or ``_`` first) are passed over.

    Raises:
        DataError: if there is nothing, nothing of a supported format, or more than one format.
        PlatformError: if a URI's filesystem can't be reached.
    """
    found = _list_remote(source) if "://" in source else _list_local(source)
    if not found:
        raise DataError(source, "no such file, directory or glob")
    files = [file for file in found if format_of(file.name)]
    if not files:
        names = ", ".join(file.name for file in found[:3])
        raise DataError(source, f"expected {SUPPORTED}", names)
    formats = sorted({file.format for file in files})
    if len(formats) > 1:
        raise DataError(
            source, "expected files of one format", " and ".join(formats), "give a glob, such as 'data/*.csv'"
        )
    return sorted(files, key=lambda file: file.name)


def _list_local(source: str) -> list[SourceFile]:
    path = Path(source)
    if path.is_file():
        return [SourceFile(str(path), path.name, path.stat().st_size)]
    if path.is_dir():
        paths = [p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path).parts)]
        return [SourceFile(str(p), p.relative_to(path).as_posix(), p.stat().st_size) for p in paths]
    paths = [Path(p) for p in glob.glob(source, recursive=True)]  # noqa: PTH207 - an absolute pattern is allowed
    base = _fixed_part(source)
    return [SourceFile(str(p), p.as_posix().removeprefix(base), p.stat().st_size) for p in paths if p.is_file()]


def _list_remote(source: str) -> list[SourceFile]:
    with _reaching(source):
        filesystem, path = _filesystem(source)
        if any(c in path for c in "*?["):
            paths, base = filesystem.glob(path), _fixed_part(path)
        elif filesystem.isdir(path):
            paths, base = filesystem.find(path), path.rstrip("/") + "/"
        else:
            paths, base = [path] if filesystem.exists(path) else [], path.rpartition("/")[0] + "/"
        names = {p: p.removeprefix(base) for p in paths}
        return [
            SourceFile(filesystem.unstrip_protocol(p), name, int(filesystem.size(p) or 0))
            for p, name in names.items()
            if not _hidden(name.split("/"))
        ]


def _fixed_part(pattern: str) -> str:
    """Returns the directories of a glob before its first wildcard."""
    return re.split(r"[*?\[]", Path(pattern).as_posix())[0].rpartition("/")[0] + "/" if "/" in pattern else ""


def _hidden(parts: Any) -> bool:
    return any(part.startswith((".", "_")) for part in parts)


@contextmanager
def _open_stored(uri: str) -> Iterator[IO[bytes]]:
    if "://" not in uri:
        with Path(uri).open("rb") as file:
            yield file
        return
    filesystem, path = _filesystem(uri)
    with filesystem.open(path, "rb") as file:
        yield file


def _filesystem(uri: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise PlatformError(uri, "reading a URI needs fsspec, which this environment lacks") from error
    filesystem, path = url_to_fs(uri)
    return filesystem, path


@contextmanager
def _reaching(source: str) -> Iterator[None]:
    try:
        yield
    except (TidemillError, FileNotFoundError):
        raise
    except (ImportError, ValueError) as error:
        raise DataError(source, "no filesystem is known for this URI", str(error)) from error
    except Exception as error:  # each fsspec backend raises its own library's errors
        raise PlatformError(source, "cannot be reached", f"{type(error).__name__}: {error}") from error


def remote_version(file: SourceFile) -> str:
    """Returns what the store tells of the version of a remote file, as text."""
    with _reaching(file.uri):
        filesystem, path = _filesystem(file.uri)
        info = filesystem.info(path)
    known = ("etag", "ETag", "generation", "md5Hash", "crc32c", "LastModified", "updated", "mtime", "created")
    return " ".join(f"{key}={info[key]}" for key in known if info.get(key) is not None)
