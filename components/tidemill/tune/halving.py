"""Successive halving, synchronous in rounds: which trials of a cohort go on, and which end.

All trials of a cohort are judged together when the round that trained them has ended: the best ``1/factor`` go on to
the next rung in the next round, from where they stood; the others are pruned. Sources: Jamieson & Talwalkar 2016,
"Non-stochastic best arm identification"; Li et al. 2018, "Hyperband", for cohorts that begin on different rungs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tidemill.tune.objectives import Objectives
from tidemill.tune.study import Result, Trial
from tidemill.tuning import Pruning


def told(trials: Sequence[Trial], results: Sequence[Result], objectives: Objectives) -> list[Trial]:
    """Returns the trials with their new results; one without a value has failed."""
    new = {result.number: result for result in results}
    updated = []
    for trial in trials:
        result = new.get(trial.number)
        if result is not None and result.rung == trial.bracket + len(trial.results):
            trial = _with(trial, result)
            if fault := objectives.fault(result):
                trial = trial.ended("failed", fault)
        updated.append(trial)
    return updated


def judged(trials: Sequence[Trial], objectives: Objectives, pruning: Pruning, rungs: Sequence[int]) -> list[Trial]:
    """Returns the trials as they stand after a round: complete, pruned for a reason that is told, or still running."""
    ended: dict[int, Trial] = {}
    for cohort in sorted({trial.cohort for trial in trials}):
        peers = [t for t in trials if t.cohort == cohort and t.state == "running" and t.results]
        if not peers:
            continue
        rung = peers[0].rung
        if rung == len(rungs) - 1:
            ended |= {trial.number: trial.ended("complete") for trial in peers}
            continue
        ranked = objectives.ranked(peers)
        kept = max(1, len(peers) // pruning.factor)
        threshold = _shown(objectives, ranked[kept - 1])
        for place, trial in enumerate(ranked[kept:], kept + 1):
            reason = (
                f"after {trial.results[-1].epochs} epochs it was number {place} of {len(peers)} "
                f"({_shown(objectives, trial)}); the best {kept} went on ({threshold})"
            )
            ended[trial.number] = trial.ended("pruned", reason)
    return [ended.get(trial.number, trial) for trial in trials]


def _with(trial: Trial, result: Result) -> Trial:
    return replace(trial, results=(*trial.results, result))


def _shown(objectives: Objectives, trial: Trial) -> str:
    value, *gap = objectives.values(trial.results[-1])
    return f"{objectives.metric} {value:.4f}" + "".join(f", gap {g:.4f}" for g in gap)
