"""What a problem asks of a pipeline beyond what every problem does; the tasks for it are there only then."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.problem import Problem


@dataclass(frozen=True)
class Choices:
    """The optional parts of a pipeline.

    Attributes:
        from_champion: training starts from the champion's weights.
    """

    from_champion: bool = False

    @classmethod
    def of(cls, problem: Problem) -> Choices:
        return cls(from_champion=problem.training.start_from == "champion")
