"""Which type each column is stored as, and whether all that the problem needs are there."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tidemill.errors import DataError, ProblemError
from tidemill.features import Bucketized, Date, Numeric, source_columns
from tidemill.ingest.casting import ColumnType
from tidemill.problem import Problem

_SCHEMA_TYPES: Mapping[str, ColumnType] = {"BYTES": "string", "INT": "int64", "FLOAT": "float64"}


def schema_types(path: Path) -> dict[str, ColumnType]:
    """Returns the types that a curated schema (TensorFlow Metadata, text format) gives to columns.

    Raises:
        ProblemError: if the file isn't such a schema.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        schema = text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except text_format.ParseError as error:
        raise ProblemError(path.name, "is not a schema in text format", str(error)) from error
    kinds = {feature.name: schema_pb2.FeatureType.Name(feature.type) for feature in schema.feature}
    return {name: _SCHEMA_TYPES[kind] for name, kind in kinds.items() if kind in _SCHEMA_TYPES}


def stored_types(inferred: Mapping[str, str], problem: Problem, schema: Path | None) -> dict[str, ColumnType]:
    """Returns the type of every column, in the source's order: as problem.ingest.types says, else the curated
    schema, else the values. A column without any value takes the type that suits its feature, else string.
    """
    declared = {**(schema_types(schema) if schema else {}), **problem.ingest.types}
    numbers = {
        column
        for name, feature in problem.features.items()
        if isinstance(feature, Numeric | Bucketized) or (isinstance(feature, Date) and feature.format != "iso8601")
        for column in source_columns(name, feature)
    }
    types: dict[str, ColumnType] = {}
    for column, type_ in inferred.items():
        if column in declared:
            types[column] = declared[column]
        elif type_ == "null":
            types[column] = "float64" if column in numbers else "string"
        else:
            types[column] = type_  # type: ignore[assignment]
    return types


def check_columns(source: str, columns: Collection[str], problem: Problem) -> None:
    """Holds the columns of a source against what the problem reads.

    Raises:
        DataError: naming every column that is missing, and what may have been meant.
    """
    label = problem.label
    if label.column and label.column not in columns:
        raise DataError(source, f"expected the label column {label.column!r}", *nearest([label.column], columns))
    if label.expression and label.name in columns:
        raise DataError(source, f"label.name {label.name!r} is already a column", remedy="give the label another name")
    missing = [column for column in (*problem.needed_columns, *problem.ingest.types) if column not in columns]
    if missing:
        names = list(dict.fromkeys(missing))
        count = "1 column" if len(names) == 1 else f"{len(names)} columns"
        raise DataError(source, f"lacks {count} that the problem reads: {', '.join(names)}", *nearest(missing, columns))


def nearest(missing: Sequence[str], columns: Collection[str]) -> tuple[str, str | None]:
    """Returns the columns that there are, and which of them may have been meant, for an error's `got` and `remedy`."""
    by_folded = {column.casefold(): column for column in columns}
    meant = {}
    for name in missing:
        close = difflib.get_close_matches(name.casefold(), by_folded, 1, 0.6)
        if close:
            meant[name] = by_folded[close[0]]
    shown = ", ".join(list(columns)[:20]) + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")
    if not meant:
        return shown, None
    return shown, "did you mean " + ", ".join(f"{right!r} for {wrong!r}" for wrong, right in meant.items()) + "?"
