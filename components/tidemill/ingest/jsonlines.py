"""Reads JSON Lines: one object per line, nested values kept as JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from tidemill.errors import DataError
from tidemill.ingest.blocks import BLOCK_BYTES, Block, Types, pieces, typed
from tidemill.ingest.quarantine import SYNTAX, UNDECODABLE, Fault
from tidemill.ingest.sources import SourceFile

_INT64 = range(-(1 << 63), 1 << 63)


def read_json_lines(file: SourceFile, types: Types | None = None) -> Iterator[Block]:
    """Yields the rows of a file, in blocks of about 16 MiB of text; see :func:`read_delimited`."""
    rest, line = b"", 1
    with file.open() as stream:
        for piece in pieces(stream, BLOCK_BYTES):
            rest += piece if line > 1 or rest else piece.removeprefix(b"\xef\xbb\xbf")
            data, newline, rest = rest.rpartition(b"\n")
            if newline:
                yield _parse(file.name, data, line, types)
                line += data.count(b"\n") + 1
    if rest.strip():
        yield _parse(file.name, rest, line, types)
    elif line == 1:
        raise DataError(file.name, "the file is empty", remedy="expected one JSON object per line")


def _parse(file: str, data: bytes, first_line: int, types: Types | None) -> Block:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    faults: list[Fault] = []
    for number, text in enumerate(data.split(b"\n"), first_line):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except UnicodeDecodeError as error:
            faults.append(Fault.of_bytes(file, number, UNDECODABLE, f"byte {error.start + 1} is not UTF-8", text))
        except ValueError as error:
            faults.append(Fault.of_bytes(file, number, SYNTAX, str(error), text))
        else:
            if isinstance(row, dict):
                rows.append(row)
                lines.append(number)
            else:
                reason = f"expected an object, got {type(row).__name__}"
                faults.append(Fault.of_bytes(file, number, SYNTAX, reason, text))
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: _column([row.get(name) for row in rows]) for name in names})
    block = Block(table, np.array(lines, np.int64), tuple(faults), len(data))
    return typed(block, file, types) if types is not None else block


def _column(values: list[Any]) -> pa.Array:
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds <= {int, bool} and all(value is None or value in _INT64 for value in values):
        return pa.array([None if value is None else int(value) for value in values], pa.int64())
    if kinds <= {int, bool, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([value if value is None or isinstance(value, str) else _text(value) for value in values])


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
