"""How likely each application truly is to be repaid, and what the lender recorded of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tidemill.synthetic import words
from tidemill.synthetic.population import (
    CHANNELS,
    DISADVANTAGED,
    EMPLOYMENT,
    Applications,
    draw,
)

_PILOT_ROWS: Final = 60_000
_PILOT_SEED: Final = 20_240_701  # fixed: the truth must depend on the configuration and not on the seed of the rows


@dataclass(frozen=True)
class Truth:
    """The law behind the labels.

    Attributes:
        intercepts: float64 [2 regimes, 2 groups]: before and after concept drift; others and the disadvantaged.
        concept_drift: strength, from 0 to 1.
    """

    intercepts: np.ndarray
    concept_drift: float

    def probability(self, applications: Applications, drifted: np.ndarray) -> np.ndarray:
        """Returns P(repaid | application), float64 [rows].

        Args:
            drifted: bool [rows], where the drifted concept holds.
        """
        group = (applications.ethnicity == DISADVANTAGED).astype(int)
        logit = _logit(applications)
        if self.concept_drift and drifted.any():
            logit = np.where(drifted, _drifted_logit(applications, self.concept_drift), logit)
        return sigmoid(logit + self.intercepts[drifted.astype(int), group])


def make_truth(base_rate: float, base_rate_gap: float, proxy_strength: float, concept_drift: float) -> Truth:
    """Finds the law under which the disadvantaged group's true rate is ``base_rate_gap`` below the others'.

    The overall rate is ``base_rate`` in both regimes, so concept drift doesn't move the prior.
    """
    pilot = draw(np.random.default_rng(_PILOT_SEED), _PILOT_ROWS, 0, proxy_strength)
    member = pilot.ethnicity == DISADVANTAGED
    share = member.mean()
    targets = (base_rate + share * base_rate_gap, base_rate - (1 - share) * base_rate_gap)
    logits = (_logit(pilot), _drifted_logit(pilot, concept_drift))
    intercepts = [
        [_intercept(logit[member == bool(g)], target) for g, target in enumerate(targets)] for logit in logits
    ]
    return Truth(np.array(intercepts), concept_drift)


def _intercept(logit: np.ndarray, rate: float) -> float:
    """Returns what must be added to ``logit`` for the mean probability to be ``rate``, by bisection."""
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(logit + middle).mean() < rate else (low, middle)
    return (low + high) / 2


def _logit(a: Applications) -> np.ndarray:
    burden = a.amount / np.maximum(a.income, 1000)
    self_employed_by_broker = (a.employment == EMPLOYMENT.index("self-employed")) & (
        a.channel == CHANNELS.index("broker")
    )
    return (
        1.15 * (a.credit_score - 640) / 75
        + 0.65 * (np.log(a.income) - 10.4) / 0.5
        - 0.85 * np.log(burden / 0.26)
        - 0.3 * np.minimum(a.delinquencies, 5)
        - 0.30 * (a.term - 36) / 20
        + 0.35 * np.minimum(a.months_at_job, 120) / 60
        - 0.7 * (np.abs(a.age - 48) > 22)
        + np.array([0.25, -0.35, -0.05, 0.35, -1.1])[a.employment]
        + np.array([-0.25, 0.2, 0.4, -0.1])[a.housing]
        + np.array([0.0, 0.2, -0.35, 0.05])[a.channel]
        - 1.1 * self_employed_by_broker
        + np.array([0.15, 0.1, 0.05, 0.0, -0.05, -0.1, -0.15, -0.2])[a.region]
        + words.purposes().effects[a.purpose]
        + words.employers().effects[a.employer] * _employed(a)
        + words.branches().effects[a.branch]
        + 0.25 * np.cos(2 * np.pi * (a.applied / 86_400 - 80) / 365.25)
    )


def _drifted_logit(a: Applications, strength: float) -> np.ndarray:
    """After the drift a good credit score says less, a high burden more, and owners repay worse than tenants."""
    change = (
        -0.9 * (a.credit_score - 640) / 75
        - 0.8 * np.log(a.amount / np.maximum(a.income, 1000) / 0.26)
        + np.array([0.6, -0.5, -1.0, 0.2])[a.housing]
    )
    return _logit(a) + strength * change


def _employed(a: Applications) -> np.ndarray:
    return a.employment < EMPLOYMENT.index("retired")


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))
