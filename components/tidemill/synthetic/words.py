"""The strings of the lending data, each with its effect on the true log-odds of repayment.

All names, peoples, places and effects are invented.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Lexicon:
    """Strings, and what each adds to the log-odds.

    Attributes:
        values: the strings.
        effects: float64 [values].
        shares: float64 [values], how often each occurs; sums to 1.
    """

    values: tuple[str, ...]
    effects: np.ndarray
    shares: np.ndarray


@cache
def employers() -> Lexicon:
    """16,000 employers whose sizes follow Zipf's law."""
    founders = _words("Alder Birch Cobb Drake Ellis Finch Garrow Hale Ibsen Jarvis Kemp Lowe Marsh Norden Orton Pike")
    founders += _words("Quill Rowe Stroud Thorne Upton Vance Wick Yates Zeller Ash Brook Crane Dale Elm Frost Grove")
    founders += _words("Heath Islay Kestrel Lark Moor Nash Oak Penn")
    trades = _words("Logistics Foods Steel Textiles Software Clinics Schools Energy Farms Print")
    names = [f"{a} & {b} {trade}" for a, b, trade in itertools.product(founders, founders, trades)]
    rng = np.random.default_rng(101)
    shuffled = tuple(names[i] for i in rng.permutation(len(names)))
    return Lexicon(shuffled, rng.normal(0, 0.35, len(names)), _shares(1 / (np.arange(len(names)) + 20.0)))


@cache
def branches() -> Lexicon:
    """240 branches."""
    rng = np.random.default_rng(102)
    names = tuple(f"BR-{i:03d}" for i in range(240))
    return Lexicon(names, rng.normal(0, 0.15, len(names)), _shares(rng.gamma(2.0, 1.0, len(names))))


_PURPOSES: dict[str, tuple[float, float, str]] = {
    # (share, effect, things to buy)
    "car": (0.22, 0.15, "used car/family car/van/car repairs/winter tyres"),
    "home": (0.20, 0.35, "new kitchen/roof repairs/bathroom renovation/solar panels/insulation"),
    "debts": (0.22, -0.45, "credit card debt/consolidating my loans/paying off an overdraft/store cards/old debts"),
    "health": (0.08, -0.25, "dental work/hospital bills/medical treatment/hearing aids/physiotherapy"),
    "family": (0.09, 0.05, "our wedding/a funeral/the new baby/my parents' move/school fees"),
    "education": (0.07, 0.30, "evening classes/a master's degree/a nursing course/a driving licence/a laptop"),
    "business": (0.07, -0.55, "a food truck/stock for my shop/a café/startup costs/new tools"),
    "holiday": (0.05, -0.20, "a holiday/a trip abroad/a cruise/visiting relatives/a motorhome"),
}
_OPENINGS = {"": 0.3, "loan for ": 0.25, "need money for ": 0.2, "Financing of ": 0.1, "help with ": 0.1, "FOR ": 0.05}
_DETAILS = {
    # text after the thing: (share, effect)
    "": (0.46, 0.0),
    ", steady income": (0.08, 0.45),
    ", quote attached": (0.08, 0.40),
    ", savings cover half": (0.06, 0.70),
    ", part exchange": (0.05, 0.15),
    " before winter": (0.05, 0.0),
    ", urgent": (0.06, -0.60),
    ", will pay back quickly I promise": (0.04, -0.80),
    " and some bills": (0.05, -0.40),
    ", second attempt": (0.03, -0.55),
    " (same as last year)": (0.04, 0.10),
}
_ENDINGS = {"": (0.75, 0.0), " please": (0.12, -0.10), ". Thank you!": (0.08, 0.10), " asap": (0.05, -0.35)}


@cache
def purposes() -> Lexicon:
    """10,560 ways of saying what a loan is for; words carry the effect, most of it in the details."""
    values, effects, shares = [], [], []
    for share, effect, things in _PURPOSES.values():
        for thing, (opening, p_opening), (detail, (p_detail, of_detail)), (
            ending,
            (p_ending, of_ending),
        ) in itertools.product(things.split("/"), _OPENINGS.items(), _DETAILS.items(), _ENDINGS.items()):
            values.append(f"{opening}{thing}{detail}{ending}")
            effects.append(effect + of_detail + of_ending)
            shares.append(share * p_opening * p_detail * p_ending)
    return Lexicon(tuple(values), np.array(effects), _shares(np.array(shares)))


def _words(text: str) -> list[str]:
    return text.split()


def _shares(weights: Sequence[float] | np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, dtype=np.float64)
    return weights / weights.sum()
