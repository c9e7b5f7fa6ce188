"""Asking Optuna for configurations, in a study that is rebuilt from what is known each time.

Sources: Bergstra et al. 2011 (TPE); Ozaki et al. 2022 (several objectives); the trials of one round are told apart by
a constant liar. The draws are a function of the seed, the round and the results so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna

from tidemill.tune.objectives import Objectives
from tidemill.tune.space import Space
from tidemill.tune.study import Trial
from tidemill.tuning import Tuning

_TRIES = 20  # draws until one is none that was tried before


def ask(
    tuning: Tuning, space: Space, objectives: Objectives, trials: Sequence[Trial], round: int, count: int
) -> list[Trial]:
    """Returns up to ``count`` new configurations, each unlike all others; fewer where the space has no more.

    Their number goes on from the trials'; cohort and bracket are to be set.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of studies in memory, which nobody can look at
    study = optuna.create_study(directions=objectives.directions, sampler=_sampler(tuning, round))
    for trial in trials:
        if trial.distributions:
            study.add_trial(frozen(trial, objectives))
    seen = [dict(trial.hyperparameters) for trial in trials]
    found: list[Trial] = []
    for _ in range(count * _TRIES):
        if len(found) == count:
            break
        asked = study.ask()
        values = space(asked)
        if values not in seen:
            seen.append(values)
            found.append(_recorded(len(trials) + len(found), values, asked))
    return found


def frozen(trial: Trial, objectives: Objectives) -> optuna.trial.FrozenTrial:
    """Returns a trial as Optuna knows it.

    One that has ended early counts by its last rung, behind those that got further. Optuna knows no pruning of several
    objectives; there the last values stand for what the trial would have come to.
    """
    states = optuna.trial.TrialState
    known: dict[str, Any] = {}
    if trial.state == "failed" or not trial.results:
        state = states.FAIL if trial.state == "failed" else states.RUNNING
    elif trial.state == "complete" or objectives.fair:
        state, known = states.COMPLETE, {"values": list(objectives.values(trial.results[-1]))}
    else:
        state = states.PRUNED
        known = {"intermediate_values": {r.epochs: objectives.values(r)[0] for r in trial.results}}
    return optuna.trial.create_trial(
        state=state,
        params=dict(trial.parameters),
        distributions={n: optuna.distributions.json_to_distribution(d) for n, d in trial.distributions.items()},
        **known,
    )


def _sampler(tuning: Tuning, round: int) -> optuna.samplers.BaseSampler:
    seed = int(np.random.SeedSequence([tuning.seed, round]).generate_state(1)[0])
    if tuning.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=tuning.startup_trials, constant_liar=True)


def _recorded(number: int, values: dict[str, Any], asked: optuna.Trial) -> Trial:
    distributions = {n: optuna.distributions.distribution_to_json(d) for n, d in asked.distributions.items()}
    return Trial(number, 0, 0, values, dict(asked.params), distributions)
