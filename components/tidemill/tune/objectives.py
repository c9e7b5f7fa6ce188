"""Which of two trials is better: by the eval metric, and by the fairness gap where one is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tidemill.tune.study import Result, Trial
from tidemill.tuning import Tuning


@dataclass(frozen=True)
class Objectives:
    """What a study makes small.

    Attributes:
        metric: name of the eval metric.
        maximize: whether its large values are the good ones.
        fair: whether the fairness gap counts beside it.
        limit: the largest gap that is chosen, if there is one.
    """

    metric: str
    maximize: bool
    fair: bool = False
    limit: float | None = None

    @classmethod
    def of(cls, tuning: Tuning) -> Objectives:
        fairness = tuning.fairness
        limit = fairness.max if fairness else None
        return cls(tuning.objective, tuning.better == "maximize", fairness is not None, limit)

    @property
    def directions(self) -> list[str]:
        return ["maximize" if self.maximize else "minimize", *(["minimize"] if self.fair else [])]

    def fault(self, result: Result) -> str | None:
        """Returns why a result has no values, or None if it has."""
        if result.error is not None:
            return result.error
        if self.metric not in result.metrics:
            return f"there is no eval metric {self.metric}; there is {', '.join(sorted(result.metrics))}"
        value = result.metrics[self.metric]
        if value is None or not math.isfinite(value):
            return f"{self.metric} is undefined"
        if self.fair and result.gap is None:
            return "the fairness gap is undefined: fewer than two groups could be compared"
        return None

    def values(self, result: Result) -> tuple[float, ...]:
        """Returns the metric, and the gap where it counts, of a result that has no fault."""
        value = result.metrics[self.metric]
        assert value is not None
        return (value, result.gap) if self.fair and result.gap is not None else (value,)

    def costs(self, result: Result) -> tuple[float, ...]:
        """Returns the values so that smaller is better."""
        value, *others = self.values(result)
        return (-value if self.maximize else value, *others)

    def ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Returns the trials by their last result, best first: by Pareto front, then by the metric, then by age."""
        fronts = pareto_fronts([self.costs(trial.results[-1]) for trial in trials])
        order = sorted(
            range(len(trials)), key=lambda i: (fronts[i], self.costs(trials[i].results[-1]), trials[i].number)
        )
        return [trials[i] for i in order]

    def front(self, trials: Sequence[Trial]) -> list[Trial]:
        """Returns the trials that no other is better than in everything."""
        fronts = pareto_fronts([self.costs(trial.results[-1]) for trial in trials])
        return [trial for trial, front in zip(trials, fronts, strict=True) if front == 0]

    def best(self, trials: Sequence[Trial]) -> Trial:
        """Returns the trial to take: of those that got furthest, by rung, the best.

        With a fairness gap it is the best by the metric among those within the limit, or the fairest where none is;
        without a limit the one of the Pareto front that is nearest to having the best of both, each as a share of
        what it ranges over.
        """
        furthest = max(trial.rung for trial in trials)
        ranked = self.ranked([trial for trial in trials if trial.rung == furthest])
        if not self.fair:
            return ranked[0]
        if self.limit is not None:
            within = [trial for trial in ranked if self.costs(trial.results[-1])[1] <= self.limit]
            return min(within or ranked, key=lambda t: self.costs(t.results[-1])[:: 1 if within else -1])
        front = self.front(ranked)
        costs = [self.costs(trial.results[-1]) for trial in front]
        lows = [min(axis) for axis in zip(*costs, strict=True)]
        spans = [(max(axis) - min(axis)) or 1.0 for axis in zip(*costs, strict=True)]

        def distance(cost: Sequence[float]) -> float:
            return math.dist([(c - low) / span for c, low, span in zip(cost, lows, spans, strict=True)], [0.0, 0.0])

        return front[min(range(len(front)), key=lambda i: (distance(costs[i]), front[i].number))]


def pareto_fronts(costs: Sequence[Sequence[float]]) -> list[int]:
    """Returns the front of each point: 0 for those that nothing dominates, 1 for the next, and so on."""
    fronts = [-1] * len(costs)
    left = set(range(len(costs)))
    front = 0
    while left:
        free = {i for i in left if not any(_dominates(costs[j], costs[i]) for j in left)}
        for i in free:
            fronts[i] = front
        left -= free
        front += 1
    return fronts


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
