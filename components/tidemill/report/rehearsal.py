"""The rehearsal: how fast the model answered, and whether it said the same as offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidemill.report import charts
from tidemill.report.charts import Rule
from tidemill.report.documents import Check
from tidemill.report.evidence import Evidence
from tidemill.report.formats import milliseconds
from tidemill.report.quality import Figure

BINS = 40


@dataclass(frozen=True)
class ServingView:
    """The section on the rehearsal. Latencies in milliseconds."""

    figure: Figure | None
    requests: int
    p50_ms: float | None
    p99_ms: float | None
    max_difference: float | None
    checks: Sequence[Check]


def view(evidence: Evidence) -> ServingView | None:
    """Returns None without a rehearsal."""
    rehearsal = evidence.rehearsal
    if rehearsal is None:
        return None
    return ServingView(
        figure=_latencies(rehearsal.latencies_ms, rehearsal.decision.checks) if rehearsal.latencies_ms else None,
        requests=len(rehearsal.latencies_ms),
        p50_ms=rehearsal.p50_ms,
        p99_ms=rehearsal.p99_ms,
        max_difference=rehearsal.max_difference,
        checks=rehearsal.decision.checks,
    )


def _latencies(latencies: Sequence[float], checks: Sequence[Check]) -> Figure:
    budgets = [
        Rule(check.limit, f"{check.name.split('_')[0]} budget {milliseconds(check.limit)}", 4)
        for check in checks
        if check.limit is not None and check.name.endswith("_ms")
    ]
    top = max(latencies)
    width = (top or 1.0) / BINS
    counts = [0] * BINS
    for latency in latencies:
        counts[min(int(latency / width), BINS - 1)] += 1
    bins = [(i * width, (i + 1) * width, float(n)) for i, n in enumerate(counts)]
    near = [budget for budget in budgets if budget.at < 3 * top]
    far = [budget for budget in budgets if budget not in near]
    caption = "; ".join(f"{budget.name} lies beyond the picture" for budget in far)
    chart = charts.histogram(
        f"Latencies of {len(latencies)} requests, the slowest {milliseconds(top)}",
        bins, x_label="latency in ms", y_label="requests", rules=near,
    )  # fmt: skip
    return Figure("Latency of single-row requests", chart, f"{caption}." if caption else "")
