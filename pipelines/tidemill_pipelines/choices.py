"""What a problem asks of a pipeline beyond what every problem does; the tasks for it are there only then."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.compression import ORIGINAL
from tidemill.problem import Problem


@dataclass(frozen=True)
class Choices:
    """The optional parts of a pipeline.

    Attributes:
        from_champion: training starts from the champion's weights.
        compresses: smaller forms of the model are made and judged.
        releases_variant: one of them takes the model's place.
    """

    from_champion: bool = False
    compresses: bool = False
    releases_variant: bool = False

    @classmethod
    def of(cls, problem: Problem) -> Choices:
        compression = problem.compression
        return cls(
            from_champion=problem.training.start_from == "champion",
            compresses=compression is not None,
            releases_variant=compression is not None and compression.release != ORIGINAL,
        )
