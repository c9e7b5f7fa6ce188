"""Who applies, for what and when: the explanatory side of the lending data.

Every distribution here is invented; none describes real people.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from tidemill.synthetic import words

SEXES: Final = ("female", "male")
SEX_SHARES: Final = (0.46, 0.54)
ETHNICITIES: Final = ("Aldan", "Boreal", "Cendri")
ETHNICITY_SHARES: Final = (0.72, 0.25, 0.03)
DISADVANTAGED: Final = ETHNICITIES.index("Boreal")
"""The group that base-rate gap and label bias act on."""

REGIONS: Final = ("Ashford", "Bramley", "Corin", "Dunmore", "Eastholm", "Fenwick", "Glenrock", "Harbury")
REGION_SHARES: Final = (0.20, 0.17, 0.14, 0.13, 0.12, 0.10, 0.08, 0.06)
# Where each ethnicity lives when the proxy is at full strength.
_HOMES = np.array(
    [
        [0.28, 0.23, 0.17, 0.14, 0.09, 0.05, 0.03, 0.01],
        [0.02, 0.03, 0.06, 0.10, 0.20, 0.24, 0.20, 0.15],
        [0.05, 0.05, 0.05, 0.10, 0.15, 0.10, 0.20, 0.30],
    ]
)
EMPLOYMENT: Final = ("permanent", "temporary", "self-employed", "retired", "unemployed")
_EMPLOYMENT_SHARES = (0.60, 0.14, 0.13, 0.09, 0.04)
HOUSING: Final = ("rent", "mortgage", "own", "family")
_HOUSING_SHARES = (0.42, 0.31, 0.17, 0.10)
CHANNELS: Final = ("web", "branch", "broker", "phone")
_CHANNEL_SHARES = (0.52, 0.25, 0.15, 0.08)
_CHANNEL_SHARES_DRIFTED = (0.82, 0.04, 0.12, 0.02)
TERMS: Final = np.array([12, 24, 36, 48, 60, 84])
_TERM_SHARES = (0.12, 0.24, 0.28, 0.18, 0.14, 0.04)

FIRST_DAY: Final = np.datetime64("2023-01-01", "D")
DAYS: Final = 547
"""Event time runs over 18 months: 2023-01-01 up to and including 2024-06-30."""

_DAY = 86_400
_MONTH_WEIGHTS = np.array([0.8, 0.85, 1.0, 1.05, 1.1, 1.05, 0.95, 0.85, 1.0, 1.05, 1.2, 1.4])
_WEEKDAY_WEIGHTS = np.array([1.15, 1.1, 1.05, 1.05, 1.1, 0.75, 0.6])  # from Monday
_HOUR_WEIGHTS = np.array([1, 1, 1, 1, 1, 2, 4, 8, 14, 18, 20, 19, 17, 17, 18, 18, 17, 16, 15, 16, 17, 14, 8, 3.0])


@dataclass(frozen=True)
class Applications:
    """Applications as they truly are, before anything goes missing. All arrays are [rows].

    Codes index the module's (or :mod:`tidemill.synthetic.words`') tuples; money is in whole units of an invented
    currency; ``applied`` is epoch seconds, UTC.
    """

    customer: np.ndarray
    applied: np.ndarray
    age: np.ndarray
    sex: np.ndarray
    ethnicity: np.ndarray
    region: np.ndarray
    district: np.ndarray
    employment: np.ndarray
    employer: np.ndarray
    months_at_job: np.ndarray
    housing: np.ndarray
    income: np.ndarray
    credit_score: np.ndarray
    delinquencies: np.ndarray
    channel: np.ndarray
    branch: np.ndarray
    amount: np.ndarray
    term: np.ndarray
    purpose: np.ndarray

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, rows: np.ndarray) -> Applications:
        """Returns the given rows (indices or a mask)."""
        return Applications(**{name: values[rows] for name, values in vars(self).items()})


def concatenate(pieces: list[Applications]) -> Applications:
    """Joins applications end to end."""
    return Applications(**{name: np.concatenate([getattr(p, name) for p in pieces]) for name in vars(pieces[0])})


def draw(
    rng: np.random.Generator,
    rows: int,
    first_customer: int,
    proxy_strength: float,
    drift_from: np.datetime64 | None = None,
    covariate_drift: float = 0.0,
) -> Applications:
    """Draws applications of customers that have no application elsewhere.

    Args:
        first_customer: number of the first customer; at most ``rows`` numbers are used from there on.
        proxy_strength: from 0, region tells nothing of ethnicity, to 1.
        drift_from: day from which covariate drift sets in.
        covariate_drift: strength; at 1 applicants are poorer by a fifth, ask for more, and come by the web.
    """
    counts = np.minimum(rng.geometric(0.5, rows), 8)
    person = np.repeat(np.arange(rows), counts)[:rows][rng.permutation(rows)]
    people = _draw_people(rng, rows, proxy_strength)
    applied = _draw_times(rng, rows)
    drift = np.zeros(rows) if drift_from is None else covariate_drift * since(applied, drift_from)
    born = people["born"][person]
    age = np.floor((applied / _DAY - born) / 365.25).astype(np.int64)
    income = people["income"][person] * np.exp(rng.normal(0, 0.08, rows) - 0.22 * drift)
    burden = np.exp(rng.normal(-1.35, 0.65, rows) + 0.25 * drift)
    amount = np.clip(np.round(income * burden, -2), 500, 80_000)
    channel = _choice(rng, _CHANNEL_SHARES, rows)
    drifted = rng.random(rows) < drift
    channel[drifted] = _choice(rng, _CHANNEL_SHARES_DRIFTED, rows)[drifted]
    score = people["score"][person] + rng.normal(0, 12, rows)
    return Applications(
        customer=first_customer + person,
        applied=applied,
        age=age,
        months_at_job=people["months_at_job"][person] + ((applied // _DAY - _first_day()) // 30),
        income=np.round(income),
        credit_score=np.clip(np.round(score), 300, 850).astype(np.int64),
        delinquencies=rng.poisson(np.exp(-1.2 - (score - 640) / 90)).clip(0, 12).astype(np.int64),
        channel=channel,
        branch=_choice(rng, words.branches().shares, rows),
        amount=amount,
        term=TERMS[_choice(rng, _TERM_SHARES, rows)],
        purpose=_choice(rng, words.purposes().shares, rows),
        **{
            name: people[name][person]
            for name in ("sex", "ethnicity", "region", "district", "employment", "employer", "housing")
        },
    )


def _draw_people(rng: np.random.Generator, size: int, proxy_strength: float) -> dict[str, np.ndarray]:
    sex, ethnicity = _choice(rng, SEX_SHARES, size), _choice(rng, ETHNICITY_SHARES, size)
    region = _choice(rng, REGION_SHARES, size)
    by_home = _pick(_HOMES[ethnicity], rng.random(size))
    region = np.where(rng.random(size) < proxy_strength, by_home, region)
    age = 18 + 62 * rng.beta(1.7, 2.6, size)
    employment = _choice(rng, _EMPLOYMENT_SHARES, size)
    employment[(age > 66) & (rng.random(size) < 0.85)] = EMPLOYMENT.index("retired")
    young_retired = (employment == EMPLOYMENT.index("retired")) & (age < 58)
    employment[young_retired] = EMPLOYMENT.index("permanent")
    level = np.array([0.15, -0.15, 0.1, -0.3, -0.75])[employment]
    log_income = rng.normal(10.25, 0.42, size) + level + 0.25 * np.sin((age - 18) / 62 * np.pi) + 0.06 * (sex == 1)
    score = 640 + 55 * (log_income - 10.4) + 0.9 * (age - 42) + rng.normal(0, 70, size)
    return {
        "born": _first_day() - age * 365.25,
        "sex": sex,
        "ethnicity": ethnicity,
        "region": region,
        "district": rng.integers(0, 60, size),
        "employment": employment,
        "employer": _choice(rng, words.employers().shares, size),
        "months_at_job": np.floor(rng.exponential(55, size).clip(0, (age - 17) * 12)).astype(np.int64),
        "housing": _choice(rng, _HOUSING_SHARES, size),
        "income": np.exp(log_income),
        "score": score,
    }


def _draw_times(rng: np.random.Generator, size: int) -> np.ndarray:
    day = _choice(rng, _day_shares(), size)
    hour = _choice(rng, _HOUR_WEIGHTS / _HOUR_WEIGHTS.sum(), size)
    return (_first_day() + day) * _DAY + hour * 3600 + rng.integers(0, 3600, size)


@cache
def _day_shares() -> np.ndarray:
    days = FIRST_DAY + np.arange(DAYS)
    month = days.astype("datetime64[M]").astype(int) % 12
    weekday = (days.astype(int) + 3) % 7  # 1970-01-01 was a Thursday
    weights = _MONTH_WEIGHTS[month] * _WEEKDAY_WEIGHTS[weekday]
    return weights / weights.sum()


def since(applied: np.ndarray, day: np.datetime64) -> np.ndarray:
    """Returns which applications were made on ``day`` or later."""
    return applied >= day.astype("datetime64[s]").astype(np.int64)


def _first_day() -> int:
    return int(FIRST_DAY.astype(int))


def _choice(rng: np.random.Generator, shares: object, size: int) -> np.ndarray:
    """Draws codes with the given shares; ``Generator.choice`` does the same at a third of the speed."""
    cumulative = np.cumsum(np.asarray(shares, dtype=np.float64))
    return np.searchsorted(cumulative[:-1], rng.random(size), side="right")


def _pick(shares: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Draws one code per row of ``shares`` [rows, codes]."""
    return (uniform[:, None] > np.cumsum(shares, axis=1)[:, :-1]).sum(axis=1)
