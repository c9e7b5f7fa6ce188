"""Faults that are planted on purpose, for what validates data to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UNKNOWN_HOUSING: Final = "houseboat"


def plant(table: pa.Table, defects: Mapping[str, float], rng: Callable[[str], np.random.Generator]) -> pa.Table:
    """Returns ``table`` with the named defects, each in its share of the rows.

    Args:
        defects: share of rows by the names of ``DEFECTS``; the order doesn't matter.
        rng: a stream of random numbers by the defect's name, so that one defect doesn't move another.
    """
    for name in TABLE_DEFECTS:
        if defects.get(name):
            rows = rng(name).random(len(table)) < defects[name]
            table = TABLE_DEFECTS[name](table, pa.array(rows))
    return table


def _replaced(table: pa.Table, column: str, rows: pa.Array, value: Any) -> pa.Table:
    values = pc.if_else(rows, value, table.column(column).combine_chunks())
    return table.set_column(table.schema.names.index(column), column, values)


def _unknown_category(table: pa.Table, rows: pa.Array) -> pa.Table:
    return _replaced(table, "housing", rows, pa.scalar(UNKNOWN_HOUSING))


def _wrong_type(table: pa.Table, rows: pa.Array) -> pa.Table:
    text = table.column("term_months").cast(pa.string())
    table = table.set_column(table.schema.names.index("term_months"), "term_months", text)
    return _replaced(table, "term_months", rows, pc.binary_join_element_wise(text.combine_chunks(), "months", " "))


def _out_of_range(table: pa.Table, rows: pa.Array) -> pa.Table:
    return _replaced(table, "age", rows, pa.scalar(430, pa.int64()))


def _negative_amount(table: pa.Table, rows: pa.Array) -> pa.Table:
    return _replaced(table, "amount", rows, pc.negate(table.column("amount").combine_chunks()))


def _missing_column(table: pa.Table, rows: pa.Array) -> pa.Table:  # noqa: ARG001
    return table.drop(["income"])


def _duplicated_rows(table: pa.Table, rows: pa.Array) -> pa.Table:
    """Replaces rows by copies of the row before, so that the number of rows stays."""
    index = np.arange(len(table))
    copied = rows.to_numpy(zero_copy_only=False).copy()
    copied[0] = False
    copied[1:] &= ~copied[:-1]
    return table.take(pa.array(np.where(copied, index - 1, index)))


TABLE_DEFECTS: Final[Mapping[str, Callable[[pa.Table, pa.Array], pa.Table]]] = {
    "unknown_category": _unknown_category,
    "wrong_type": _wrong_type,
    "out_of_range": _out_of_range,
    "negative_amount": _negative_amount,
    "missing_column": _missing_column,
    "duplicated_rows": _duplicated_rows,
}


def break_lines(text: bytes, share: float, rng: np.random.Generator) -> bytes:
    """Cuts a share of the lines of a CSV short, alternately in the middle and by one field too many."""
    lines = text.split(b"\n")
    chosen = np.flatnonzero(rng.random(len(lines) - 1) < share)
    for i, line in enumerate(chosen):
        lines[line] = lines[line][: len(lines[line]) // 2] if i % 2 else lines[line] + b",surplus"
    return b"\n".join(lines)


DEFECTS: Final = (*TABLE_DEFECTS, "broken_rows")
