"""Latencies are those of the best of few rounds."""

from __future__ import annotations

import time

import pytest

from tidemill.rehearse.latency import MOST_ROUNDS, WARM_UP_REQUESTS, measure


def test_within_the_budget_one_round_counts_and_warm_up_does_not() -> None:
    asked: list[int] = []

    def ask(i: int) -> None:
        if len(asked) < WARM_UP_REQUESTS:
            time.sleep(0.02)
        asked.append(i)

    latencies = measure(ask, 30, lambda p50, p99: p50 <= p99)
    assert len(asked) == WARM_UP_REQUESTS + 30
    assert (latencies.rounds, latencies.requests) == (1, 30)
    assert latencies.p50_ms <= latencies.p99_ms < 20
    assert sum(b["requests"] for b in latencies.histogram) == 30
    assert latencies.histogram[-1]["to_ms"] is None


def test_over_the_budget_it_is_measured_again_and_the_best_round_counts() -> None:
    asked = 0

    def ask(_: int) -> None:
        nonlocal asked
        asked += 1
        second_round = WARM_UP_REQUESTS + 5 < asked <= WARM_UP_REQUESTS + 10
        time.sleep(0.001 if second_round else 0.05)

    latencies = measure(ask, 5, lambda p50, p99: False)
    assert latencies.rounds == MOST_ROUNDS
    assert latencies.p99_ms == pytest.approx(1, abs=20)
    assert latencies.p99_ms < 50
