"""Reads JSON Lines: one object per line, nested values kept as JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tidemill.errors import DataError
from tidemill.ingest.blocks import BLOCK_BYTES, Block, Types, pieces, typed
from tidemill.ingest.quarantine import SYNTAX, UNDECODABLE, Fault
from tidemill.ingest.sources import SourceFile

_LONGEST_LINE = 64 << 20


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
            elif len(rest) > _LONGEST_LINE:
                raise DataError(
                    f"{file.name}, line {line}",
                    f"is longer than {_LONGEST_LINE >> 20} MiB",
                    rest[:60].decode("utf-8", "backslashreplace"),
                    "write one object per line, not one array",
                )
    if rest.strip():
        yield _parse(file.name, rest, line, types)
    elif line == 1:
        raise DataError(file.name, "the file is empty", remedy="expected one JSON object per line")


def _parse(file: str, data: bytes, first_line: int, types: Types | None) -> Block:
    rows, lines, faults = _parse_whole(data, first_line) or _parse_lines(file, data, first_line)
    try:
        table = _table(rows)
    except UnicodeEncodeError:  # an escape such as \ud800, which is valid JSON and no character
        whole = [i for i, row in enumerate(rows) if _encodable(row)]
        broken = sorted(set(range(len(rows))) - set(whole))
        faults = [*faults, *(Fault(file, lines[i], UNDECODABLE, "half of a surrogate pair") for i in broken)]
        rows, lines = [rows[i] for i in whole], [lines[i] for i in whole]
        table = _table(rows)
    block = Block(table, np.array(lines, np.int64), tuple(faults), len(data))
    return typed(block, file, types) if types is not None else block


_Parsed = tuple[list[dict[str, Any]], Sequence[int], list[Fault]]


def _parse_whole(data: bytes, first_line: int) -> _Parsed | None:
    """Parses all lines at once, or returns None if one of them isn't an object."""
    try:
        texts = data.decode("utf-8").split("\n")
        filled = [(number, text) for number, text in enumerate(texts, first_line) if text and not text.isspace()]
        rows = json.loads(f"[{','.join(text for _, text in filled)}]")
    except ValueError:
        return None
    if len(rows) != len(filled) or not all(isinstance(row, dict) and row for row in rows):
        return None
    return rows, [number for number, _ in filled], []


def _parse_lines(file: str, data: bytes, first_line: int) -> _Parsed:
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
            if isinstance(row, dict) and row:
                rows.append(row)
                lines.append(number)
            else:
                reason = f"expected an object with values, got {type(row).__name__}"
                faults.append(Fault.of_bytes(file, number, SYNTAX, reason, text))
    return rows, lines, faults


def _encodable(row: dict[str, Any]) -> bool:
    try:
        _text(row).encode()
    except UnicodeEncodeError:
        return False
    return True


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for keys in dict.fromkeys(map(tuple, rows)) for name in keys)
    try:
        inferred = pa.array(rows)
        columns = dict(zip((field.name for field in inferred.type), inferred.flatten(), strict=True))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # values of several types in one column
        columns = {}
    return pa.table(
        {
            # Nested values are not taken from Arrow, which gives every object the keys of all.
            name: columns[name]
            if name in columns and not pa.types.is_nested(columns[name].type)
            else _column([row.get(name) for row in rows])
            for name in names
        }
    )


def _column(values: list[Any]) -> pa.Array:
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {str}:
        return pa.array(values, pa.string())
    if not kinds <= {int, bool, float}:
        return pa.array([value if value is None or isinstance(value, str) else _text(value) for value in values])
    if float not in kinds:
        try:
            return pa.array(values if bool not in kinds else [_number(value, int) for value in values], pa.int64())
        except OverflowError:
            pass  # beyond int64: float64 below
    return pa.array([_number(value, float) for value in values], pa.float64())


def _number(value: Any, kind: type) -> Any:
    return None if value is None else kind(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
