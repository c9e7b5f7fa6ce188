"""95 % intervals: Wilson's for rates, the Poisson bootstrap's for everything else, and of differences and ratios."""

from __future__ import annotations

import numpy as np
from scipy import special

CONFIDENCE = 0.95
_Z = float(special.ndtri(0.5 + CONFIDENCE / 2))
Interval = tuple[float, float]


def wilson(rate: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns Wilson's score interval (Wilson 1927, eq. 7) for a rate.

    Args:
        rate: share of successes, [...].
        size: trials, [...]; for weighted rows Kish's effective size ``(sum w)^2 / sum w^2``.

    Returns:
        Lower and upper bounds, in [0, 1]; NaN where there is no trial.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = (rate + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
        half = _Z / (1 + _Z**2 / size) * np.sqrt(rate * (1 - rate) / size + _Z**2 / (4 * size**2))
    # Rounding must not put the rate 0 or 1 outside of its own interval.
    return np.clip(np.minimum(centre - half, rate), 0, 1), np.clip(np.maximum(centre + half, rate), 0, 1)


def effective_size(weight: np.ndarray, squared_weight: np.ndarray) -> np.ndarray:
    """Returns Kish's effective sample size (Kish 1965): the row count when all weights are equal."""
    return np.divide(weight**2, squared_weight, out=np.zeros(np.shape(weight)), where=squared_weight > 0)


def bootstrap(
    point: np.ndarray, replicates: np.ndarray, bounds: Interval = (-np.inf, np.inf)
) -> tuple[np.ndarray, np.ndarray]:
    """Returns Student intervals around ``point`` with the standard deviation of its bootstrap replicates.

    Replicates in which the metric isn't defined (no positive row was drawn, say) are left out; fewer than half of
    them defined give no interval (NaN).

    Args:
        point: [...].
        replicates: [replicates, ...].
        bounds: range of the metric, which the interval doesn't leave.
    """
    defined = np.isfinite(replicates)
    number = defined.sum(0)
    safe = np.where(defined, replicates, 0.0)
    mean = safe.sum(0) / np.maximum(number, 1)
    variance = np.where(defined, (safe - mean) ** 2, 0.0).sum(0) / np.maximum(number - 1, 1)
    quantile = special.stdtrit(np.maximum(number - 1, 1), 0.5 + CONFIDENCE / 2)
    half = np.where(number >= len(replicates) / 2, quantile * np.sqrt(variance), np.nan)
    return np.clip(point - half, *bounds), np.clip(point + half, *bounds)


def difference(first: float, first_bounds: Interval, second: float, second_bounds: Interval) -> Interval:
    """Returns the interval of ``first - second`` for two independent rates (Newcombe 1998, method 10)."""
    below = np.hypot(first - first_bounds[0], second_bounds[1] - second)
    above = np.hypot(first_bounds[1] - first, second - second_bounds[0])
    return float(first - second - below), float(first - second + above)


def ratio(first: float, first_bounds: Interval, second: float, second_bounds: Interval) -> Interval:
    """Returns the interval of ``first / second`` for two independent rates (Donner & Zou 2012, MOVER-R)."""
    product = first * second
    lower = first_bounds[0] * (2 * first - first_bounds[0])
    upper = first_bounds[1] * (2 * first - first_bounds[1])
    widest = second_bounds[1] * (2 * second - second_bounds[1])
    narrowest = second_bounds[0] * (2 * second - second_bounds[0])
    divisor = product + np.sqrt(max(product**2 - lower * widest, 0.0))
    low = lower / divisor if divisor > 0 else 0.0
    high = (product + np.sqrt(max(product**2 - upper * narrowest, 0.0))) / narrowest if narrowest > 0 else np.inf
    return float(low), float(high)
