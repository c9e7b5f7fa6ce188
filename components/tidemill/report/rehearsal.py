"""The rehearsal: how fast the model answered, and whether it said the same as offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidemill.report import charts
from tidemill.report.charts import Rule
from tidemill.report.documents import Check, Rehearsal
from tidemill.report.evidence import Evidence
from tidemill.report.formats import milliseconds
from tidemill.report.quality import Figure


@dataclass(frozen=True)
class RehearsalView:
    """The section on the rehearsal."""

    document: Rehearsal
    figure: Figure | None
    method: str
    checks: Sequence[Check]


def view(evidence: Evidence) -> RehearsalView | None:
    """Returns None without a rehearsal."""
    rehearsal = evidence.rehearsal
    if rehearsal is None:
        return None
    method = rehearsal.latencies.method if rehearsal.latencies else ""
    return RehearsalView(rehearsal, _latencies(rehearsal), method, rehearsal.decision.checks)


def _latencies(rehearsal: Rehearsal) -> Figure | None:
    """Bars from the first bin that has requests to the last, or to a budget not far beyond it."""
    all_bins = rehearsal.latencies.histogram if rehearsal.latencies else ()
    filled = [i for i, b in enumerate(all_bins) if b.requests]
    if not filled:
        return None
    first, last = max(filled[0] - 1, 0), min(filled[-1] + 1, len(all_bins) - 1)
    budgets = [
        Rule(value, f"{name} budget {milliseconds(value)}", 4)
        for name, value in (("p50", rehearsal.budget.p50_ms), ("p99", rehearsal.budget.p99_ms))
        if value is not None
    ]
    for i, b in enumerate(all_bins):
        if any(b.from_ms < rule.at <= (b.to_ms or rule.at) for rule in budgets) and last < i <= last + 4:
            last = i
    bins = [(b.from_ms, b.to_ms, float(b.requests)) for b in all_bins[first : last + 1]]
    end = bins[-1][1]
    near = [rule for rule in budgets if end is None or rule.at <= end]
    far = [rule for rule in budgets if rule not in near]
    measured = [
        Rule(value, f"{name} {milliseconds(value)}", 1)
        for name, value in (("median", rehearsal.p50_ms), ("p99", rehearsal.p99_ms))
        if value is not None
    ]
    total = sum(b.requests for b in all_bins)
    chart = charts.histogram(
        f"Latencies of {total} requests: median {milliseconds(rehearsal.p50_ms)}, p99 {milliseconds(rehearsal.p99_ms)}",
        bins,
        x_label="latency in ms",
        y_label="requests",
        rules=[*measured, *near],
    )
    caption = "; ".join(f"the {rule.name} lies beyond the picture" for rule in far)
    return Figure("Latency of single-row requests", chart, f"{caption[:1].upper()}{caption[1:]}." if caption else "")
