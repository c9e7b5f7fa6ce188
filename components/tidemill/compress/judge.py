"""The compression gate: each variant's limits held against what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tidemill.compress.comparison import Change, Comparison
from tidemill.compress.measures import Latency, Size
from tidemill.compression import ORIGINAL, Compression, FairnessLoss, MetricLoss
from tidemill.decisions import Check, Decision
from tidemill.metrics import find_metric


@dataclass(frozen=True)
class Judge:
    """Holds the limits of the variants against one comparison.

    Attributes:
        sizes: by model.
        latencies: by model and batch size.
    """

    settings: Compression
    comparison: Comparison
    sizes: Mapping[str, Size]
    latencies: Mapping[str, Mapping[int, Latency]]

    def decide(self) -> Decision:
        """Returns the decision of the gate ``compression``."""
        checks = [
            replace(check, blocking=check.blocking and variant.required)
            for name, variant in self.settings.variants.items()
            for check in self.checks(name)
        ]
        return Decision("compression", tuple(checks))

    def checks(self, name: str) -> Iterator[Check]:
        """Yields the checks of one variant, as they are if it is required."""
        limits = self.settings.limits_of(name)
        yield from self._answers(name)
        for loss in limits.metrics:
            yield from self._metric(name, loss)
        for change in limits.fairness:
            yield from self._fairness(name, change)
        ours, theirs = self.sizes[name].gzip_bytes, self.sizes[ORIGINAL].gzip_bytes
        if limits.max_bytes is not None:
            message = f"Variant {name} has {ours:,} bytes, gzipped; at most {limits.max_bytes:,} are allowed."
            holds = ours <= limits.max_bytes
            expected, got = f"<= {limits.max_bytes:,}", f"{ours:,}"
            yield _check(name, "gzip_bytes", holds, expected, got, message, ours, limits.max_bytes)
        if limits.max_bytes_ratio is not None:
            shown = f"{ours / theirs:.4g} of the original's size ({ours:,} of {theirs:,} bytes, gzipped)"
            yield _bound(name, "bytes_ratio", ours / theirs, limits.max_bytes_ratio, shown)
        if limits.max_latency_ratio is not None:
            mine, base = self.latencies[name][1].p50_ms, self.latencies[ORIGINAL][1].p50_ms
            shown = f"{mine / base:.4g} of the original's time for one row ({mine:.3g} of {base:.3g} ms)"
            yield _bound(name, "latency_ratio", mine / base, limits.max_latency_ratio, shown)

    def passed(self, name: str) -> bool:
        """Tells whether a variant keeps all its limits, be it required or not."""
        return all(check.passed or not check.blocking for check in self.checks(name))

    def _answers(self, name: str) -> Iterator[Check]:
        task = self.comparison.inputs.problem.task
        loss = self.comparison.estimates[name].values["mae" if task == "regression" else "log_loss"]
        if math.isnan(loss[0]):
            message = f"Variant {name}: some row of the test split got an answer that is not a number."
            yield _check(name, "answers", False, "a number for every row", "not a number", message)

    def _metric(self, name: str, loss: MetricLoss) -> Iterator[Check]:
        inputs = self.comparison.inputs
        metric = find_metric(inputs.problem.task, loss.metric)
        numbers = [0]
        if loss.slices == "sensitive":
            numbers = [n for key in inputs.sensitive for n in inputs.plan.members(key)]
        for n in numbers:
            change = self.comparison.metric(name, loss.metric, n)
            worse = metric.badness(change.value) - metric.badness(change.original)
            where = dict(inputs.plan.slices[n])
            rows = int(self.comparison.estimates[name].values["example_count"][n])
            decides = n == 0 or (rows >= loss.min_examples and not math.isnan(change.original))
            yield _loss(name, loss.metric, metric.title, change, worse, loss.max_worse, where, rows, decides)

    def _fairness(self, name: str, loss: FairnessLoss) -> Iterator[Check]:
        inputs = self.comparison.inputs
        keys = [tuple(sorted(loss.over))] if loss.over else inputs.sensitive
        for key in keys:
            change = self.comparison.fairness(name, loss.metric, key, loss.min_examples)
            worse = -change.difference if loss.metric.endswith("_ratio") else change.difference
            title = f"{loss.metric.replace('_', ' ')} over {' and '.join(key)}"
            yield _loss(
                name,
                f"{loss.metric}[{','.join(key)}]",
                title,
                change,
                worse,
                loss.max_worse,
                {},
                int(self.comparison.estimates[name].values["example_count"][0]),
                not math.isnan(change.original),  # a variant that has none where the original has one is refused
            )


def _loss(
    name: str,
    what: str,
    title: str,
    change: Change,
    worse: float,
    bound: float,
    where: dict[str, str],
    rows: int,
    decides: bool,
) -> Check:
    expected = f"at most {_show(bound)} worse than the original"
    at = f" for {', '.join(f'{column} = {value}' for column, value in where.items())}" if where else ""
    if math.isnan(worse):
        message = f"Variant {name}: {title}{at} is not defined on {rows:,} rows, by the variant or the original."
        return _check(name, what, False, expected, "not defined", message, None, bound, where, decides)
    spread = f" [{_show(change.low, '+')}, {_show(change.high, '+')}]" if math.isfinite(change.low) else ""
    got = f"{_show(change.value)} ({_show(change.difference, '+')}{spread})"
    message = (
        f"Variant {name}: {title}{at} is {_show(change.value)} on {rows:,} rows, of the original "
        f"{_show(change.original)} (difference {_show(change.difference, '+')}{spread}); {expected} is allowed."
    )
    message += "" if decides else " Not decided: too few rows."
    return _check(name, what, worse <= bound, expected, got, message, change.difference, bound, where, decides)


def _bound(name: str, what: str, value: float, bound: float, shown: str) -> Check:
    message = f"Variant {name} has {shown}; at most {_show(bound)} is allowed."
    return _check(name, what, value <= bound, f"<= {_show(bound)}", _show(value), message, value, bound)


def _check(
    name: str,
    what: str,
    passed: bool,
    expected: str,
    got: str,
    message: str,
    value: float | None = None,
    limit: float | None = None,
    where: dict[str, str] | None = None,
    decides: bool = True,
) -> Check:
    return Check(f"{what}.{name}", passed, expected, got, message, value, limit, where or {}, decides)


def _show(value: float, sign: str = "") -> str:
    return f"{value:{sign}.4g}"
