"""What a problem makes of the columns of its data: which the model reads and what for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tidemill.features import Image, source_columns
from tidemill.problem import Problem

Role = Literal["quantity", "category", "other"]
"""``quantity``: read as a number; ``category``: read as one of a set; ``other``: any other kind, or not read at all."""


def roles(problem: Problem, columns: Mapping[str, str]) -> dict[str, Role]:
    """Returns the role of every column.

    A column that one feature reads as a number and another as a category is a quantity: its distribution can be
    told from either, and a histogram doesn't grow with the number of values.

    Args:
        columns: ``int64``, ``float64`` or ``string`` by column.
    """
    kinds: dict[str, set[str]] = {}
    for name, feature in problem.read_features.items():
        for column in source_columns(name, feature):
            kinds.setdefault(column, set()).add(feature.kind)
    label = problem.label.output
    kinds[label] = {"numeric" if problem.task == "regression" else "categorical"}
    return {column: _role(kinds.get(column, set()), kind) for column, kind in columns.items()}


def _role(kinds: set[str], column_type: str) -> Role:
    if not kinds & {"numeric", "bucketized", "categorical", "crossed"}:
        return "other"
    if column_type == "string":
        return "category"
    if column_type == "float64" or kinds & {"numeric", "bucketized"}:
        return "quantity"
    return "category"


def images(problem: Problem) -> tuple[str, ...]:
    """Returns the columns that hold images, a kilobyte or more in each row."""
    found = [(name, feature) for name, feature in problem.read_features.items() if isinstance(feature, Image)]
    return tuple(dict.fromkeys(column for name, feature in found for column in source_columns(name, feature)))


def known_only_in_training(problem: Problem) -> frozenset[str]:
    """Returns the columns that a caller of the model cannot give: label, weight, and what the label is made of."""
    weight = {problem.weight} if problem.weight else set()
    return frozenset({problem.label.output, *problem.label.uses, *weight} - set(problem.raw_columns))
