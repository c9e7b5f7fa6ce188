"""``windows:`` of problem.yaml: every row sees the rows of its group before it.

Ingest gives a row the values that its columns had 1, 2, … rows before as columns of their own, ``<column>@<rows>``, so
that every stage and every caller of the model sees ordinary flat columns: what was trained on is what is served.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from tidemill.features import Crossed, Feature, Strict, source_columns

_MARK: Final = "@"


class Windows(Strict):
    """How far a row sees back along the rows of its group in the order of their time."""

    length: int = Field(default=8, ge=2, le=256, description="Rows that a window has, the row itself included.")
    horizon: int = Field(default=0, ge=0, description="Rows of the group by which the label lies ahead of the window.")
    stride: int = Field(default=1, ge=1, description="Rows between the ends of two windows of a group.")
    features: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="The features whose past is seen; all but images by default."
    )
    incomplete: Literal["drop", "keep"] = Field(
        default="drop", description="What becomes of rows with too few before them; what a kept one lacks is missing."
    )
    straddle: bool = Field(
        default=False,
        description="Whether temporal splits cut through groups: each row goes by the time of its label then, and a "
        "window may reach back into the split before.",
    )

    @property
    def lags(self) -> range:
        """How many rows back a window reaches, the row itself left out."""
        return range(1, self.length)


def lagged(name: str, rows: int) -> str:
    """Returns what a column or feature is called as it was ``rows`` rows before."""
    return f"{name}{_MARK}{rows}" if rows else name


def lagged_feature(name: str, feature: Feature, rows: int) -> Feature:
    """Returns a feature over the columns as they were ``rows`` rows before."""
    columns = tuple(lagged(column, rows) for column in source_columns(name, feature))
    if isinstance(feature, Crossed):
        return feature.model_copy(update={"of": columns})
    return feature.model_copy(update={"column": columns[0]})
