"""Looks at a table for ``tidemill init``: facts about its columns, as JSON on standard output.

``python -m tidemill.ingest.profile SOURCE LABEL``. Types and counts come from every row; the rest from at most
65,536 rows, chosen evenly and always the same. No Beam: the look should take seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import DataError
from tidemill.ingest.blocks import Block, one_chunk, typed
from tidemill.ingest.casting import ColumnType, finite, narrowest, natural_type, widest
from tidemill.ingest.columns import nearest
from tidemill.ingest.delimited import Dialect
from tidemill.ingest.hashing import mix
from tidemill.ingest.prediction import predictability
from tidemill.ingest.readers import read_blocks
from tidemill.ingest.sources import SourceFile, is_bigquery, list_files
from tidemill.stage import Stage

_SAMPLE_ROWS = 65_536
_LOOK_BYTES = 1 << 20
_TOP = 20
NULL_MARKERS = ("?", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "NaN", "nan", "-")


@dataclass(frozen=True)
class ColumnFacts:
    """What one column holds.

    Attributes:
        type: null, int64, float64 or string, over all rows, markers of missing values set aside.
        missing: share of rows without a value.
        distinct: different values in the sample.
        values: rows of the sample that have a value.
        top: the most frequent values and their share of the rows that have one.
        low, high, middle, deviation: minimum, maximum, median and standard deviation of numbers.
        words, length: mean words and characters of strings.
        iso_dates: whether the strings are ISO 8601 dates or times.
        ascending: whether a number grows by one from row to row, as an index does.
        alone: how well this column alone predicts the label on held-out rows, 0 (as chance) to 1; None for the label.
    """

    name: str
    type: str
    missing: float
    distinct: int
    values: int
    top: Sequence[tuple[str, float]]
    low: float | None = None
    high: float | None = None
    middle: float | None = None
    deviation: float | None = None
    words: float = 0.0
    length: float = 0.0
    iso_dates: bool = False
    ascending: bool = False
    alone: float | None = None


@dataclass(frozen=True)
class TableFacts:
    """What a table holds.

    Attributes:
        rows: rows that could be read.
        unreadable: rows that could not, by reason.
        sampled: rows that the facts about values come from.
        delimiter, encoding, null_values: how it must be read.
        label: the label column's facts.
        columns: facts of the other columns.
    """

    source: str
    rows: int
    unreadable: dict[str, int]
    sampled: int
    delimiter: str
    encoding: str
    null_values: tuple[str, ...]
    label: ColumnFacts
    columns: tuple[ColumnFacts, ...]


def profile(source: str, label: str) -> TableFacts:
    """Looks at a source.

    Raises:
        DataError: if it can't be read, has no such label column, or the label is the same everywhere.
    """
    if is_bigquery(source):
        raise DataError(source, "init looks at files only", remedy="export a sample of the table to Parquet")
    files = list_files(source)
    dialect = _dialect(files[0]) if files[0].format == "csv" else Dialect()
    rows, unreadable, types, table = _sample(files, dialect)
    if label not in types:
        raise DataError(source, f"expected the label column {label!r}", *nearest([label], types))
    if not rows:
        raise DataError(source, "holds no rows", f"only the columns {', '.join(types)}")
    markers = _markers(table)
    for name, type_ in types.items():
        if type_ == "string":
            column, types[name] = _without_markers(one_chunk(table.column(name)), markers)
            table = table.set_column(table.column_names.index(name), name, column)
    target = one_chunk(table.column(label))
    facts = {name: _facts(name, types[name], one_chunk(table.column(name)), target, name != label) for name in types}
    _check_label(source, facts[label], table.num_rows, rows)
    return TableFacts(
        source,
        rows,
        unreadable,
        table.num_rows,
        dialect.delimiter,
        dialect.encoding,
        ("", *markers) if markers else dialect.null_values,
        facts.pop(label),
        tuple(facts.values()),
    )


def _check_label(source: str, label: ColumnFacts, sampled: int, rows: int) -> None:
    """Raises DataError if the label has fewer than two distinct values."""
    if label.distinct >= 2:
        return
    seen = f"{rows:,} rows" if sampled == rows else f"a sample of {sampled:,} of {rows:,} rows"
    if not label.distinct:
        raise DataError(source, f"the label {label.name!r} has no value: there is nothing to learn", seen)
    raise DataError(
        source,
        f"the label {label.name!r} has a single value: there is nothing to learn",
        f"{label.top[0][0]!r} in {seen}",
        "give a table with at least two values of the label, or another --label",
    )


def _dialect(file: SourceFile) -> Dialect:
    """Guesses encoding and delimiter from the beginning of a file."""
    with file.open() as stream:
        start = stream.read(_LOOK_BYTES)
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    if encoding == "utf-8":
        try:
            start[: start.rfind(b"\n") + 1].decode("utf-8")
        except UnicodeDecodeError:
            encoding = "cp1252"
    lines = [line for line in start.decode(encoding, "replace").splitlines()[:50] if line][:-1] or [""]
    # The delimiter is the one that stands equally often, and oftenest, on every line.
    scores = {d: (min(line.count(d) for line in lines), lines[0].count(d)) for d in (",", ";", "\t", "|")}
    best = max(scores, key=lambda d: scores[d])
    return Dialect(best if scores[best][1] else ",", encoding)


def _sample(files: Sequence[SourceFile], dialect: Dialect) -> tuple[int, dict[str, int], dict[str, str], pa.Table]:
    """Returns rows, unreadable rows by reason, types over all rows, and the sample in the source's order."""
    rows, threshold = 0, (1 << 64) - 1
    unreadable: Counter[str] = Counter()
    types: dict[str, str] = {}
    held: list[tuple[str, Block, np.ndarray]] = []
    for file in files:
        for block in read_blocks(file, dialect, None):
            unreadable.update(fault.kind for fault in block.faults)
            for field in block.table.schema:
                types[field.name] = widest(types.get(field.name, "null"), natural_type(field.type))
            held.append((file.name, block, mix(np.arange(rows, rows + len(block.lines)))))
            rows += len(block.lines)
            held[-1] = _thinned(*held[-1], threshold)
            while sum(len(priorities) for *_, priorities in held) > 2 * _SAMPLE_ROWS:
                threshold //= 2
                held = [_thinned(*part, threshold) for part in held]
    stored: dict[str, ColumnType] = {n: "string" if t == "null" else t for n, t in types.items()}  # type: ignore[misc]
    tables = [typed(block, name, stored).table for name, block, _ in held]
    return rows, dict(unreadable), types, pa.concat_tables(tables).combine_chunks()


def _thinned(file: str, block: Block, priorities: np.ndarray, threshold: int) -> tuple[str, Block, np.ndarray]:
    """Keeps the rows whose priority is at most ``threshold``."""
    kept = np.flatnonzero(priorities <= np.uint64(threshold))
    if len(kept) == len(priorities):
        return file, block, priorities
    lines = np.asarray(block.lines)[kept]
    return file, Block(block.table.take(kept), lines, (), block.size), priorities[kept]


def _markers(table: pa.Table) -> tuple[str, ...]:
    """Returns the well-known markers of missing values that stand in the columns of text."""
    texts = [one_chunk(column) for column in table.columns if pa.types.is_string(column.type)]
    known = pa.array(NULL_MARKERS)
    seen = {value for text in texts for value in text.filter(pc.is_in(text, known)).unique().to_pylist()}
    return tuple(marker for marker in NULL_MARKERS if marker in seen)


def _without_markers(column: pa.Array, markers: Sequence[str]) -> tuple[pa.Array, str]:
    """Returns a column of text with markers as null, and the type that its values then have."""
    column = pc.if_else(pc.is_in(column, pa.array(markers, pa.string())), pa.scalar(None, pa.string()), column)
    if column.null_count == len(column):
        return column, "null"
    if not markers:
        return column, "string"
    column = narrowest(column)
    return column, natural_type(column.type)


def _facts(name: str, type_: str, column: pa.Array, target: pa.Array, alone: bool) -> ColumnFacts:
    values = column.drop_null()
    counts = values.value_counts()
    order = np.argsort(-counts.field("counts").to_numpy(), kind="stable")[:_TOP]
    top = counts.take(pa.array(order))
    shares = (top.field("counts").to_numpy() / max(1, len(values))).round(4).tolist()
    common = {
        "name": name,
        "type": type_,
        "missing": round(column.null_count / max(1, len(column)), 4),
        "distinct": len(counts),
        "values": len(values),
        "top": tuple(zip(top.field("values").cast(pa.string()).to_pylist(), shares, strict=True)),
        "alone": round(predictability(column, target), 4) if alone else None,
    }
    if pa.types.is_string(column.type):
        return ColumnFacts(**common, **_text_facts(values))
    return ColumnFacts(**common, **_number_facts(values))


def _text_facts(values: pa.Array) -> dict[str, Any]:
    first = values.slice(0, 2000)
    dates = pd.to_datetime(first.to_pandas(), format="ISO8601", errors="coerce", utc=True)
    dated = pc.sum(pc.match_substring_regex(first, r"^\d{4}-\d{2}-\d{2}")).as_py() or 0
    return {
        "words": float(pc.mean(pc.list_value_length(pc.utf8_split_whitespace(values))).as_py() or 0.0),
        "length": float(pc.mean(pc.utf8_length(values)).as_py() or 0.0),
        "iso_dates": len(first) > 0 and dated >= 0.99 * len(first) and bool(dates.notna().mean() >= 0.99),
    }


def _number_facts(values: pa.Array) -> dict[str, Any]:
    values = finite(values.cast(pa.float64()))[0].drop_null()
    if not len(values):
        return {}
    numbers = values.to_numpy(zero_copy_only=False)
    return {
        "low": float(numbers.min()),
        "high": float(numbers.max()),
        "middle": float(np.median(numbers)),
        "deviation": _deviation(numbers),
        "ascending": bool((np.diff(numbers) > 0).all()),
    }


def _deviation(numbers: np.ndarray) -> float | None:
    """Returns the standard deviation, or None where squares are too large for float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = float(numbers.std())
    return deviation if np.isfinite(deviation) else None


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Facts about a table, as JSON.")
    parser.add_argument("source")
    parser.add_argument("label")
    asked = parser.parse_args(arguments)
    with Stage("profile") as stage:
        stage.begin()
        print(json.dumps(asdict(profile(asked.source, asked.label))))


if __name__ == "__main__":
    main(sys.argv[1:])
