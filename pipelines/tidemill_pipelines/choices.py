"""What a problem asks of a pipeline beyond what every problem does; the tasks for it are there only then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which would bring pydantic into every start of the command
    from tidemill.problem import Problem
    from tidemill.tuning import Tuning


@dataclass(frozen=True)
class Rounds:
    """The rounds of a tuning.

    Attributes:
        count: of the rounds, all of which the compiled pipeline has.
        parallel: trials at the same time.
        cross_validated: whether trials are judged by folds of the training split.
        fair: whether the fairness of trials counts, for which they need the raw rows.
    """

    count: int
    parallel: int
    cross_validated: bool = False
    fair: bool = False


@dataclass(frozen=True)
class Choices:
    """The optional parts of a pipeline.

    Attributes:
        from_champion: training starts from the champion's weights.
        tuning: the rounds of a tuning; None for a problem that has none.
        compresses: smaller forms of the model are made and judged.
        releases_variant: one of them takes the model's place.
    """

    from_champion: bool = False
    tuning: Rounds | None = None
    compresses: bool = False
    releases_variant: bool = False

    @classmethod
    def of(cls, problem: Problem) -> Choices:
        from tidemill.compression import ORIGINAL

        compression = problem.compression
        return cls(
            from_champion=problem.training.start_from == "champion",
            tuning=_rounds(problem.tuning, problem.training.max_epochs) if problem.tuning else None,
            compresses=compression is not None,
            releases_variant=compression is not None and compression.release != ORIGINAL,
        )


def _rounds(tuning: Tuning, max_epochs: int) -> Rounds:
    return Rounds(
        count=tuning.rounds(max_epochs),
        parallel=tuning.parallel,
        cross_validated=tuning.cross_validation is not None,
        fair=tuning.fairness is not None,
    )
