"""What a source holds, as one digest. Imports nothing heavy: the command line calls it on every run."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tidemill.files import sha256_file
from tidemill.ingest.sources import SourceFile, bigquery_table, is_bigquery, list_files, remote_version

CONTENT = "sha256:"
"""The prefix of a fingerprint that follows from the bytes alone, so that it can be checked again."""


def fingerprint(source: str) -> str:
    """Returns what identifies the content at ``source``.

    ========================  =====================================================================
    local files               ``sha256:`` over the names relative to the source and all bytes; a file
                              is read whole, since neither its time nor its size proves its content
    other filesystems         ``version:`` over names, sizes and what the store says of each object's
                              version (etag, generation, checksum, time of change)
    ``bq://``                 ``name:`` over the table's name alone: asking BigQuery needs credentials,
                              so a changed table is **not** noticed and wants a run without reuse
    ========================  =====================================================================

    Raises:
        DataError: if nothing readable is there.
    """
    if is_bigquery(source):
        return f"name:{_digest([bigquery_table(source)])}"
    files = list_files(source)
    if "://" in source:
        return f"version:{_digest([f'{file.name} {file.size} {remote_version(file)}' for file in files])}"
    with ThreadPoolExecutor() as pool:  # hashlib lets other threads run
        return CONTENT + _digest(list(pool.map(_content, files)))


def _content(file: SourceFile) -> str:
    return f"{file.name}\0{sha256_file(Path(file.uri))}"


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
