"""The label: taken or derived, counted, and turned into classes."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import DataError
from tidemill.ingest.blocks import one_chunk
from tidemill.problem import Label, Task

_MOST_CLASSES = 1000
_EXPRESSION = "problem.yaml: label.expression"


@dataclass(frozen=True)
class LabelRule:
    """How the label column comes about.

    Attributes:
        label: the problem's label.
        task: the problem's task.
    """

    label: Label
    task: Task

    def apply(self, table: pa.Table) -> tuple[pa.Table, np.ndarray]:
        """Adds or normalises the label column.

        The expression is evaluated as by ``pandas.DataFrame.eval``, on the rows where every column of ``uses``
        has a value; a comparison with NaN would else be false and pass for a label.

        Returns:
            The table with the label (int64, float64 or string), and bool [rows] of those that have none.

        Raises:
            DataError: if the expression cannot be evaluated, or a label for regression is not a number.
        """
        given = self.label.column is not None
        column = self._stored(one_chunk(table.column(self.label.output)) if given else self._evaluate(table))
        index = table.column_names.index(self.label.output) if self.label.output in table.column_names else None
        missing = np.asarray(column.is_null().to_numpy(zero_copy_only=False))
        if index is None:
            return table.append_column(self.label.output, column), missing
        return table.set_column(index, self.label.output, column), missing

    def _evaluate(self, table: pa.Table) -> pa.Array:
        inputs = [one_chunk(table.column(name)) for name in self.label.uses]
        known = np.ones(table.num_rows, dtype=bool)
        for column in inputs:
            known &= column.is_valid().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(known)
        frame = pa.table([column.take(rows) for column in inputs], names=list(self.label.uses)).to_pandas()
        try:
            values = frame.eval(self.label.expression, engine="python")
        except Exception as error:  # the user's expression can raise anything
            got = f"{type(error).__name__}: {error}"
            raise DataError(_EXPRESSION, f"cannot be evaluated over {', '.join(self.label.uses)}", got) from error
        if np.ndim(values) != 1 or len(values) != len(rows):
            raise DataError(_EXPRESSION, "expected one value per row", f"{type(values).__name__} {values!r:.60}")
        derived = pa.array(np.asarray(values), from_pandas=True)
        places = np.full(table.num_rows, -1)
        places[rows] = np.arange(len(rows))
        return derived.take(pa.array(places, mask=~known))

    def _stored(self, column: pa.Array) -> pa.Array:
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int64())
        elif pa.types.is_floating(column.type):
            column = column.cast(pa.float64())
            column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))
        elif pa.types.is_integer(column.type):
            column = column.cast(pa.int64())
        elif not pa.types.is_string(column.type):
            column = column.cast(pa.string())
        if self.task == "regression" and pa.types.is_string(column.type):
            example = next((v.as_py() for v in column if v.is_valid), None)
            raise DataError(f"label {self.label.output}", "must be a number for regression", f"{example!r}")
        # Class names must not hang on how a float prints: 1.0 is class "1", and stored as that string.
        if self.task != "regression" and pa.types.is_floating(column.type):
            column = column.cast(pa.string())
        # One batch of an expression may yield whole numbers and the next fractions.
        if self.task == "regression" and self.label.expression is not None:
            column = column.cast(pa.float64())
        return column


def count_classes(column: pa.Array) -> Counter[str]:
    """Counts the values of a label by their class name."""
    counts = column.value_counts()
    names = counts.field("values").cast(pa.string()).to_pylist()
    return Counter(dict(zip(names, counts.field("counts").to_pylist(), strict=True)))


def classes_of(label: Label, task: Task, counts: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the classes in the order of their index: [negative, positive], or sorted; none for regression.

    Whole numbers sort as numbers.

    Raises:
        DataError: if a single class is there, or not two for a binary task, or not the positive one.
    """
    if task == "regression":
        return ()
    where = f"label {label.output}"
    listed = ", ".join(f"{name!r}: {n:,}" for name, n in Counter(counts).most_common(10))
    listed += f" and {len(counts) - 10:,} more" if len(counts) > 10 else ""
    if len(counts) == 1:
        raise DataError(where, "has a single class: there is nothing to learn", listed)
    if task == "binary_classification":
        return _binary(label, where, counts, listed)
    if len(counts) > _MOST_CLASSES:
        raise DataError(where, f"at most {_MOST_CLASSES:,} classes", listed, "is the task regression?")
    return tuple(sorted(counts, key=_as_number))


def _binary(label: Label, where: str, counts: Mapping[str, int], listed: str) -> tuple[str, ...]:
    if len(counts) != 2:
        raise DataError(where, "binary_classification needs two values", listed, "use multiclass_classification")
    positive = label.positive if label.positive is not None else "1"
    # Parquet and JSON booleans are stored as 0 and 1, and their owner calls them true and false.
    if set(counts) == {"0", "1"}:
        positive = {"true": "1", "false": "0"}.get(positive.lower(), positive)
    if positive not in counts:
        close = difflib.get_close_matches(positive, counts, 1, 0.4)
        remedy = f"did you mean {close[0]!r}?" if close else "set label.positive to one of them"
        raise DataError(where, f"label.positive {positive!r} must be one of its values", listed, remedy)
    negative = next(name for name in counts if name != positive)
    return (negative, positive)


def _as_number(name: str) -> tuple[int, float, str]:
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)
