"""Reads delimited text (RFC 4180: quoted fields may hold delimiters, quotes and newlines)."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from tidemill.errors import DataError
from tidemill.ingest.blocks import BLOCK_BYTES, Block, Types, check_names, natural, one_chunk, pieces, typed
from tidemill.ingest.casting import ARROW, NUMBERS, conform
from tidemill.ingest.quarantine import FIELDS, UNDECODABLE, Fault
from tidemill.ingest.sources import SourceFile

_LARGEST_RECORD = 64 << 20
_THREAD_BYTES = 1 << 20
_NEWLINE, _CR = 10, 13
_OTHER_DELIMITERS = (";", "\t", "|", ",", ":")


@dataclass(frozen=True)
class Dialect:
    """How delimited text is written; as ``problem.ingest`` says."""

    delimiter: str = ","
    encoding: str = "utf-8"
    null_values: tuple[str, ...] = ("",)

    def for_file(self, name: str) -> Dialect:
        """Returns the dialect of one file: ``.tsv`` means tabs unless another delimiter was asked for."""
        tabs = self.delimiter == "," and re.search(r"\.tsv(\.gz)?$", name, re.IGNORECASE)
        return Dialect("\t", self.encoding, self.null_values) if tabs else self


def read_delimited(file: SourceFile, dialect: Dialect, types: Types | None = None) -> Iterator[Block]:
    """Yields the rows of a file, in blocks of about 16 MiB of text.

    Args:
        types: what to read the columns as; by default each block has the types that come naturally to it.

    Raises:
        DataError: if the file is empty, its header unusable, its encoding wrong or a quote never closed.
    """
    dialect = dialect.for_file(file.name)
    with file.open() as stream:
        parser, first_line = None, 1
        for data in _whole_records(file.name, _utf8(file.name, stream, dialect.encoding), dialect):
            if parser is None:
                end = _header_end(data, dialect)
                parser = _Parser(file.name, _header(file.name, data[:end], dialect), dialect, types)
                first_line += data.count(b"\n", 0, end)
                data = data[end:]
            yield parser.parse(data, first_line)
            first_line += data.count(b"\n")
        if parser is None:
            raise DataError(file.name, "the file is empty", remedy="expected a header and rows")


def _utf8(file: str, stream: IO[bytes], encoding: str) -> Iterator[bytes]:
    """Yields pieces in UTF-8 without a byte order mark.

    What doesn't decode stays as the bytes it is: invalid in UTF-8 too, so that the rows are found and quarantined.
    """
    try:
        codec = codecs.lookup(encoding).name
    except LookupError as error:
        raise DataError("problem.yaml: ingest.encoding", "no such encoding", encoding) from error
    if codec in ("utf-8", "utf-8-sig"):
        for i, piece in enumerate(pieces(stream, BLOCK_BYTES)):
            if i == 0 and piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError(file, "expected UTF-8", "UTF-16", "set ingest.encoding to utf-16")
            yield piece.removeprefix(codecs.BOM_UTF8) if i == 0 else piece
        return
    decoder = codecs.getincrementaldecoder(codec)("surrogateescape")
    try:
        for piece in pieces(stream, BLOCK_BYTES):
            yield decoder.decode(piece).encode("utf-8", "surrogateescape")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogateescape")
    except UnicodeError as error:
        raise DataError(file, f"expected {encoding}", str(error), "set ingest.encoding to what the file has") from error


def _whole_records(file: str, stream: Iterator[bytes], dialect: Dialect) -> Iterator[bytes]:
    """Cuts a stream between records. The last piece may lack its newline."""
    rest = b""
    for piece in stream:
        rest += piece
        cut = _last_record_end(rest, dialect)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
        elif len(rest) > _LARGEST_RECORD:
            raise DataError(
                file,
                f"a record is longer than {_LARGEST_RECORD >> 20} MiB",
                rest[:60].decode("utf-8", "backslashreplace"),
                "look for a quote that is never closed, or lines that end in CR alone",
            )
    if rest.strip():
        quoted = _quoted_fields(rest, dialect)
        if quoted and _unclosed(rest, quoted[-1]):
            raise DataError(
                file,
                "a quote is never closed",
                rest[quoted[-1][0] :][:60].decode("utf-8", "backslashreplace"),
                "close the quote, or double quotes that are meant literally",
            )
        yield rest


def _last_record_end(data: bytes, dialect: Dialect) -> int:
    end = data.rfind(b"\n") + 1
    # An even number of quotes before it means that the newline isn't quoted, unless a field has stray quotes.
    if end and data.count(b'"', 0, end) % 2:
        ends = _record_ends(data, dialect)
        end = int(ends[-1]) + 1 if len(ends) else 0
    return end


def _quoted_fields(data: bytes, dialect: Dialect) -> list[tuple[int, int]]:
    """Returns [start, end) of the quoted fields: a quote counts only where a field begins, as in Arrow's parser."""
    if b'"' not in data:
        return []
    before = re.escape(dialect.delimiter.encode()) + rb"\r\n"
    pattern = rb"(?:(?<=[" + before + rb'])|\A)"(?:[^"]|"")*+(?:"|\Z)'
    return [match.span() for match in re.finditer(pattern, data)]


def _unclosed(data: bytes, span: tuple[int, int]) -> bool:
    return span[1] == len(data) and data.count(b'"', *span) % 2 == 1


def _record_ends(data: bytes, dialect: Dialect) -> np.ndarray:
    """Returns the positions of the newlines that end a record."""
    newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
    spans = [span for span in _quoted_fields(data, dialect) if data.find(b"\n", *span) >= 0]
    if not spans:
        return newlines
    starts, ends = np.array(spans).T
    last_start = np.searchsorted(starts, newlines, side="right") - 1
    inside = (last_start >= 0) & (newlines < ends[np.maximum(last_start, 0)])
    return newlines[~inside]


def _header_end(data: bytes, dialect: Dialect) -> int:
    ends = _record_ends(data[: 1 << 20], dialect)
    return int(ends[0]) + 1 if len(ends) else len(data)


def _header(file: str, record: bytes, dialect: Dialect) -> list[str]:
    try:
        text = record.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            file, f"the header is not {dialect.encoding}", str(error), "set ingest.encoding, such as latin-1"
        ) from error
    if "\0" in text:
        raise DataError(file, "the header holds NUL bytes", repr(text[:40]), "is this text? set ingest.encoding")
    rows = list(csv.reader([text], delimiter=dialect.delimiter))
    names = [name.strip() or f"unnamed_{i}" for i, name in enumerate(rows[0] if rows else [])]
    if not names:
        raise DataError(file, "the first line must hold the column names", repr(text))
    if len(names) == 1:
        other = next((d for d in _OTHER_DELIMITERS if d != dialect.delimiter and d in names[0]), None)
        if other:
            raise DataError(
                file,
                f"expected columns delimited by {dialect.delimiter!r}",
                f"one column whose name holds {other!r}: {names[0][:60]!r}",
                f'set ingest.delimiter to "{other}"' if other != "\t" else 'set ingest.delimiter to "\\t"',
            )
    check_names(file, names)
    return names


class _Parser:
    """Parses the blocks of one file: fast while all is well, row by row where it isn't."""

    def __init__(self, file: str, names: Sequence[str], dialect: Dialect, types: Types | None) -> None:
        self._file, self._names, self._dialect, self._types = file, list(names), dialect, types

    def parse(self, data: bytes, first_line: int) -> Block:
        if re.fullmatch(rb"[\r\n]*", data):
            no_rows = pa.table({name: pa.nulls(0) for name in self._names})
            return self._finish(Block(no_rows, (), (), len(data)))
        try:
            table, rejected = self._read(data, threads=True, as_text=False)
        except pa.ArrowInvalid:
            return self._parse_carefully(data, first_line)
        if rejected or any(pa.types.is_binary(field.type) for field in table.schema):
            return self._parse_carefully(data, first_line)
        lines = self._lines(data, first_line, table.num_rows)
        return self._finish(Block(table, lines, (), len(data)))

    def _finish(self, block: Block) -> Block:
        if self._types is None:
            return Block(natural(block.table), block.lines, block.faults, block.size)
        return typed(block, self._file, self._types)

    def _read(self, data: bytes, threads: bool, as_text: bool) -> tuple[pa.Table, list[arrow_csv.InvalidRow]]:
        rejected: list[arrow_csv.InvalidRow] = []

        def reject(row: arrow_csv.InvalidRow) -> str:
            rejected.append(row)
            return "skip"

        wanted = dict.fromkeys(self._names, "string") if as_text else self._types or {}
        columns = {name: ARROW[type_] for name, type_ in wanted.items() if name in self._names}
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            arrow_csv.ReadOptions(
                column_names=self._names, use_threads=threads, block_size=_THREAD_BYTES if threads else len(data) + 1
            ),
            arrow_csv.ParseOptions(
                delimiter=self._dialect.delimiter, newlines_in_values=b'"' in data, invalid_row_handler=reject
            ),
            arrow_csv.ConvertOptions(
                column_types=columns,
                null_values=list(self._dialect.null_values),
                strings_can_be_null=True,
                include_columns=self._names,
            ),
        )
        return table, rejected

    def _no_rows(self) -> pa.Table:
        return pa.table({name: pa.array([], pa.string()) for name in self._names})

    def _records(self, data: bytes, first_line: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns start, end (without newline) and line of every record that isn't blank."""
        newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
        ends = _record_ends(data, self._dialect)
        if not data.endswith(b"\n"):
            ends = np.append(ends, len(data))
        starts = np.concatenate([[0], ends[:-1] + 1])
        lines = first_line + np.searchsorted(newlines, starts)
        returns = np.array([e > s and data[e - 1] == _CR for s, e in zip(starts, ends, strict=True)], dtype=bool)
        ends = ends - returns
        filled = ends > starts
        return starts[filled], ends[filled], lines[filled]

    def _lines(self, data: bytes, first_line: int, rows: int) -> Sequence[int] | np.ndarray:
        if data.count(b"\n") + (not data.endswith(b"\n")) == rows:
            return range(first_line, first_line + rows)
        return self._records(data, first_line)[2]

    def _parse_carefully(self, data: bytes, first_line: int) -> Block:
        starts, ends, lines = self._records(data, first_line)
        records = [data[s:e] for s, e in zip(starts, ends, strict=True)]
        faults, kept = [], []
        for i, record in enumerate(records):
            try:
                record.decode("utf-8")
                kept.append(i)
            except UnicodeDecodeError as error:
                byte = f"byte 0x{record[error.start]:02x} is not {self._dialect.encoding}"
                faults.append(Fault.of_bytes(self._file, int(lines[i]), UNDECODABLE, byte, record))
        decodable = b"".join(records[i] + b"\n" for i in kept)
        table, rejected = self._read(decodable, threads=False, as_text=True) if kept else (self._no_rows(), [])
        ragged = [kept[row.number - 1] for row in rejected]
        for i, row in zip(ragged, rejected, strict=True):
            embedded = records[i].count(b"\n")
            extent = f", over {embedded + 1:,} lines" if embedded else ""
            reason = f"{row.actual_columns} fields{extent}, expected {row.expected_columns}"
            faults.append(Fault.of_bytes(self._file, int(lines[i]), FIELDS, reason, records[i]))
        readable = np.setdiff1d(kept, ragged)
        faults.sort(key=lambda fault: fault.line)
        if self._types is None:
            table = pa.table([_inferred(column) for column in table.columns], names=self._names)
        return self._finish(Block(table, lines[readable], tuple(faults), len(data)))


def _inferred(column: pa.ChunkedArray) -> pa.Array:
    """Gives text the type that Arrow's reader would have inferred."""
    texts = one_chunk(column)
    if texts.null_count == len(texts):
        return pa.nulls(len(texts))
    for candidate in NUMBERS:
        values, misfits = conform(texts, candidate)
        if not misfits.any():
            return values
    return texts
