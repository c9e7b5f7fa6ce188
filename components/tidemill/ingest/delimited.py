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
from tidemill.ingest.casting import ARROW, ColumnType, narrowest
from tidemill.ingest.quarantine import FIELDS, UNDECODABLE, Fault
from tidemill.ingest.sources import SourceFile

_LARGEST_RECORD = 64 << 20
_THREAD_BYTES = 1 << 20
_NEWLINE, _CR, _QUOTE = b'\n\r"'
_Read = tuple[pa.Table, list[arrow_csv.InvalidRow]]
_INFERRED = (pa.null(), pa.int64(), pa.float64(), pa.string())
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
    if not dialect.delimiter.isascii():
        raise DataError("problem.yaml: ingest.delimiter", "must be an ASCII character", repr(dialect.delimiter))
    with file.open() as stream:
        parser, first_line = None, 1
        for data in _whole_records(file.name, _utf8(file.name, stream, dialect.encoding), dialect):
            if parser is None:
                end = _header_end(data, dialect)
                parser = _Parser(file.name, _header(file.name, data[:end], dialect), dialect, types)
                first_line += _count_lines(data[:end])
                data = data[end:]
            _check_closed(file.name, data, first_line, dialect)
            yield parser.parse(data, first_line)
            first_line += _count_lines(data)
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
        yield rest


def _last_record_end(data: bytes, dialect: Dialect) -> int:
    """Returns the length of the whole records that ``data``, which begins with a record, begins with."""
    quotes = _paired_quotes(data, dialect)
    if quotes is None:
        ends = _record_ends(data, dialect)
        return int(ends[-1]) + 1 if len(ends) else 0
    end = len(data)
    while (newline := data.rfind(b"\n", 0, end)) >= 0:
        before = int(np.searchsorted(quotes, newline))
        if before % 2 == 0:
            return newline + 1
        end = int(quotes[before - 1])
    return 0


def _paired_quotes(data: bytes, dialect: Dialect) -> np.ndarray | None:
    """Returns the positions of the quotes if every other one opens a quoted field, else None.

    As in Arrow's parser a quote opens a field only at its beginning; elsewhere in an unquoted field it is a letter
    like any other. If the quotes at even places stand at the beginning of a field, or right after another quote
    (which is then a doubled one), none is a letter.
    """
    if b'"' not in data:
        return np.zeros(0, np.int64)
    octets = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(octets == _QUOTE)
    opening = np.zeros(256, dtype=bool)
    opening[[_NEWLINE, _CR, _QUOTE, dialect.delimiter.encode()[0]]] = True
    opens = quotes[::2]
    return quotes if opening[octets[opens[opens > 0] - 1]].all() else None


def _quoted_fields(data: bytes, dialect: Dialect) -> list[tuple[int, int]]:
    """Returns [start, end) of the quoted fields, slowly; for data in which some quotes are letters."""
    before = re.escape(dialect.delimiter.encode()) + rb"\r\n"
    pattern = rb"(?:(?<=[" + before + rb'])|\A)"(?:[^"]|"")*+(?:"|\Z)'
    return [match.span() for match in re.finditer(pattern, data)]


def _check_closed(file: str, data: bytes, first_line: int, dialect: Dialect) -> None:
    """Raises DataError if a quote opens a field and is never closed, which would swallow the rows after it."""
    quotes = _paired_quotes(data, dialect)
    if quotes is not None:
        unclosed = int(quotes[-1]) if len(quotes) % 2 else len(data)
    else:
        unclosed, end = (_quoted_fields(data, dialect) or [(0, 0)])[-1]
        if end < len(data) or data.count(b'"', unclosed, end) % 2 == 0:
            return
    if unclosed == len(data):
        return
    raise DataError(
        f"{file}, line {first_line + _count_lines(data[:unclosed])}",
        "a quote is never closed",
        data[unclosed : unclosed + 60].decode("utf-8", "backslashreplace"),
        "close the quote, or double quotes that are meant literally",
    )


def _record_ends(data: bytes, dialect: Dialect) -> np.ndarray:
    """Returns the positions of the line ends that end a record."""
    newlines, quotes = _newlines(data), _paired_quotes(data, dialect)
    if quotes is not None:
        return newlines[np.searchsorted(quotes, newlines) % 2 == 0]
    starts, ends = np.array(_quoted_fields(data, dialect) or [(0, 0)]).T
    last_start = np.searchsorted(starts, newlines, side="right") - 1
    inside = (last_start >= 0) & (newlines < ends[np.maximum(last_start, 0)])
    return newlines[~inside]


def _newlines(data: bytes) -> np.ndarray:
    """Returns the positions of all line ends: LF, the LF of CRLF, and a CR alone, which Arrow takes for one too."""
    octets = np.frombuffer(data, np.uint8)
    ends = octets == _NEWLINE
    if _count_lines(data) > data.count(b"\n"):
        ends |= (octets == _CR) & (np.append(octets[1:], 0) != _NEWLINE)
    return np.flatnonzero(ends)


def _count_lines(data: bytes) -> int:
    """Returns how many line ends there are."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


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
        # Columns that Arrow takes for more than numbers (booleans, dates) and that are to stay the text they are.
        self._texts: dict[str, ColumnType] = {}

    def parse(self, data: bytes, first_line: int) -> Block:
        if re.fullmatch(rb"[\r\n]*", data):
            no_rows = pa.table({name: pa.nulls(0) for name in self._names})
            return self._finish(Block(no_rows, (), (), len(data)))
        try:
            table, rejected = self._read_fast(data)
        except pa.ArrowInvalid:
            return self._parse_carefully(data, first_line)
        if rejected:
            return self._parse_carefully(data, first_line)
        lines = self._lines(data, first_line, table.num_rows)
        return self._finish(Block(table, lines, (), len(data)))

    def _read_fast(self, data: bytes) -> _Read:
        if self._types is not None:
            return self._read(data, self._types)
        read = self._read(data, self._texts)
        texts = [field.name for field in read[0].schema if field.type not in _INFERRED]
        if texts:
            self._texts |= dict.fromkeys(texts, "string")
            read = self._read(data, self._texts)
        return read

    def _finish(self, block: Block) -> Block:
        if self._types is None:
            return Block(natural(block.table), block.lines, block.faults, block.size)
        return typed(block, self._file, self._types)

    def _read(self, data: bytes, types: Types, threads: bool = True) -> _Read:
        rejected: list[arrow_csv.InvalidRow] = []

        def reject(row: arrow_csv.InvalidRow) -> str:
            rejected.append(row)
            return "skip"

        columns = {name: ARROW[type_] for name, type_ in types.items() if name in self._names}
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
        ends = _record_ends(data, self._dialect)
        if not len(ends) or ends[-1] < len(data) - 1:
            ends = np.append(ends, len(data))
        starts = np.concatenate([[0], ends[:-1] + 1])
        lines = first_line + np.searchsorted(_newlines(data), starts)
        before_end = np.frombuffer(data, np.uint8)[np.maximum(ends - 1, 0)]
        ends = ends - ((before_end == _CR) & (ends > starts))
        filled = ends > starts
        return starts[filled], ends[filled], lines[filled]

    def _lines(self, data: bytes, first_line: int, rows: int) -> Sequence[int] | np.ndarray:
        if _count_lines(data) + (not data.endswith((b"\n", b"\r"))) == rows:
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
        as_text: Types = dict.fromkeys(self._names, "string")
        table, rejected = self._read(decodable, as_text, threads=False) if kept else (self._no_rows(), [])
        ragged = [kept[row.number - 1] for row in rejected]
        for i, row in zip(ragged, rejected, strict=True):
            embedded = records[i].count(b"\n")
            extent = f", over {embedded + 1:,} lines" if embedded else ""
            reason = f"{row.actual_columns} fields{extent}, expected {row.expected_columns}"
            faults.append(Fault.of_bytes(self._file, int(lines[i]), FIELDS, reason, records[i]))
        readable = np.setdiff1d(np.array(kept, np.int64), np.array(ragged, np.int64))
        faults.sort(key=lambda fault: fault.line)
        if self._types is None:
            table = pa.table([narrowest(one_chunk(column)) for column in table.columns], names=self._names)
        return self._finish(Block(table, lines[readable], tuple(faults), len(data)))
