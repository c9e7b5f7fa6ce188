"""The model gate: the problem's limits held against the metrics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tidemill.decisions import Check, Decision
from tidemill.evaluate.baselines import DECIDING_METRIC
from tidemill.evaluate.fairness import Disparity, Group, disparities
from tidemill.evaluate.metrics import Estimates, compare
from tidemill.evaluate.slices import SlicePlan
from tidemill.evaluate.user_config import Threshold
from tidemill.gates import FairnessLimit, QualityLimit
from tidemill.metrics import Metric, find_metric
from tidemill.problem import Problem


@dataclass(frozen=True)
class Rival:
    """What the candidate is compared with.

    Attributes:
        name: for people, such as ``the champion``.
        estimates: the rival's metrics on the same rows; None when it cannot be compared.
        reason: why there are none.
        absent: whether there is no rival at all (the first model), which is not held against the candidate.
    """

    name: str
    estimates: Estimates | None
    reason: str = ""
    absent: bool = False


@dataclass(frozen=True)
class Judge:
    """Holds the limits of a problem against one evaluation.

    Attributes:
        groups: the groups of each sensitive key, by its columns (sorted).
    """

    problem: Problem
    plan: SlicePlan
    candidate: Estimates
    champion: Rival
    baseline: Rival
    groups: Mapping[tuple[str, ...], Sequence[Group]]

    def decide(self, thresholds: Sequence[Threshold] = ()) -> Decision:
        """Returns the decision of the gate ``model``; ``thresholds`` are those of a user's EvalConfig."""
        checks = [*self._answers()]
        checks += [check for limit in self.problem.gates.quality for check in self._quality(limit)]
        checks += self._implied_baseline()
        checks += [check for limit in self.problem.gates.fairness for check in self._fairness(limit)]
        return Decision("model", (*checks, *self._threshold_checks(thresholds)))

    def _answers(self) -> Iterator[Check]:
        """Refuses a model without an answer for some row, whatever limits there are: no rate may count it as a no."""
        loss = self.candidate.values["mae" if self.problem.task == "regression" else "log_loss"]
        if math.isnan(loss[0]):
            message = "Some row of the test split got an answer that is not a number, or no row has a weight."
            yield Check("answers", False, "a number for every row", "not a number", message)

    def _quality(self, limit: QualityLimit) -> Iterator[Check]:
        numbers: list[int] = [0]
        if limit.slices == "sensitive":
            numbers = [n for key in self.problem.sensitive for n in self.plan.members(key)]
        for number in dict.fromkeys(numbers):
            if limit.min is not None:
                yield self._bound(limit, number, ">=", limit.min)
            if limit.max is not None:
                yield self._bound(limit, number, "<=", limit.max)
            if limit.max_worse_than_champion is not None:
                yield self._against(limit.metric, number, limit, self.champion, -limit.max_worse_than_champion)
            if limit.min_better_than_baseline is not None:
                yield self._against(limit.metric, number, limit, self.baseline, limit.min_better_than_baseline)

    def _implied_baseline(self) -> Iterator[Check]:
        rule = self.problem.baseline
        if rule is None:
            return
        name = DECIDING_METRIC[rule]
        own = [limit for limit in self.problem.gates.quality if limit.min_better_than_baseline is not None]
        if not any(limit.metric == name and limit.slices == "overall" for limit in own):
            yield self._against(name, 0, None, self.baseline, 0.0)

    def _bound(self, limit: QualityLimit, number: int, sign: str, bound: float) -> Check:
        metric = find_metric(self.problem.task, limit.metric)
        value = float(self.candidate.values[limit.metric][number])
        holds = value >= bound if sign == ">=" else value <= bound
        rule = f"{'at least' if sign == '>=' else 'at most'} {_show(bound)} is required"
        return self._check(limit.metric, number, limit, metric, value, holds, f"{sign} {_show(bound)}", bound, rule)

    def _against(self, name: str, number: int, limit: QualityLimit | None, rival: Rival, margin: float) -> Check:
        metric = find_metric(self.problem.task, name)
        kind = "champion" if rival is self.champion else "baseline"
        check_name = f"{name}.{'worse_than_champion' if kind == 'champion' else 'better_than_baseline'}"
        if margin < 0 or kind == "champion":
            expected = f"at most {_show(-margin)} worse than {rival.name}"
        else:
            expected = f"at least {_show(margin)} better than {rival.name}" if margin else f"better than {rival.name}"
        value = float(self.candidate.values[name][number])
        if rival.estimates is None:
            got = f"{_show(value)}, {rival.reason}"
            return Check(
                check_name, rival.absent, expected, got, f"{_title(metric)}: {rival.reason}.", slice=self._slice(number)
            )
        theirs = float(rival.estimates.values[name][number])
        gain = metric.badness(theirs) - metric.badness(value)
        holds = gain > 0 if kind == "baseline" and limit is None else gain >= margin
        paired = compare(self.candidate.only((name,)), rival.estimates.only((name,)))
        spread = _interval(float(paired.low[name][number]), float(paired.high[name][number]))
        shown = f"{rival.name} has {_show(theirs)} on the same rows (difference {_show(value - theirs, '+')}{spread})"
        rule = f"{shown}; {expected} is required"
        return self._check(
            check_name,
            number,
            limit,
            metric,
            value,
            holds,
            expected,
            abs(margin),
            rule,
            gain,
        )

    def _check(
        self,
        name: str,
        number: int,
        limit: QualityLimit | None,
        metric: Metric,
        value: float,
        holds: bool,
        expected: str,
        bound: float,
        rule: str,
        gain: float = 0.0,
    ) -> Check:
        base = name.partition(".")[0]
        count = int(self.candidate.values["example_count"][number])
        interval = _interval(float(self.candidate.low[base][number]), float(self.candidate.high[base][number]))
        where = f" for {_slice_text(self._slice(number))}" if number else ""
        got = f"{_show(value)}{interval}"
        message = f"{_title(metric)}{where} is {got} on {count:,} rows; {rule}."
        blocking = True
        if math.isnan(value) or math.isnan(gain):
            holds, blocking = False, number == 0
            reason = "there is one class only, nothing was predicted, or an answer is not a number"
            message = f"{_title(metric)}{where} is not defined on {count:,} rows: {reason}."
        elif number and limit is not None and count < limit.min_examples:
            blocking = False
            message += f" Not decided: fewer than {limit.min_examples} rows."
        return Check(name, holds, expected, got, message, _finite(value), bound, dict(self._slice(number)), blocking)

    def _threshold_checks(self, thresholds: Sequence[Threshold]) -> Iterator[Check]:
        """Holds the thresholds of a user's EvalConfig against the metrics, as TFMA would."""
        for threshold in thresholds:
            names = [n for n in self.candidate.values if n.partition("@")[0] == threshold.metric]
            if not names:
                yield _undecidable(threshold, "TFMA gives no single number for it")
            elif not threshold.slices.members(self.plan):
                yield _undecidable(threshold, f"no test row is in the slice {_slice_text(threshold.slices.values)}")
            for name, number in itertools.product(names, threshold.slices.members(self.plan)):
                yield from self._threshold(threshold, name, number)

    def _threshold(self, threshold: Threshold, name: str, number: int) -> Iterator[Check]:
        value = float(self.candidate.values[name][number])
        bounds = [(">=", threshold.lower), ("<=", threshold.upper)]
        yield from (self._tfma_check(threshold, number, "", value, sign, b) for sign, b in bounds if b is not None)
        sign = "<=" if threshold.lower_is_better else ">="
        if not threshold.compares:
            return
        if self.champion.estimates is None:
            reason = self.champion.reason
            yield Check(
                f"{threshold.shown}.change",
                self.champion.absent,
                "as eval_config.pbtxt says",
                f"{_show(value)}, {reason}",
                f"{threshold.shown}: {reason}.",
                slice=self._slice(number),
            )
            return
        theirs = float(self.champion.estimates.values[name][number])
        change = value - theirs
        if threshold.absolute is not None:
            yield self._tfma_check(threshold, number, ".change", change, sign, threshold.absolute)
        if threshold.relative is not None:
            share = change / theirs if theirs else math.nan
            yield self._tfma_check(threshold, number, ".relative_change", share, sign, threshold.relative)

    def _tfma_check(
        self, threshold: Threshold, number: int, suffix: str, value: float, sign: str, bound: float
    ) -> Check:
        holds = value >= bound if sign == ">=" else value <= bound
        where = f" for {_slice_text(self._slice(number))}" if number else ""
        what = {"": "", ".change": "change from the champion in ", ".relative_change": "relative change in "}[suffix]
        return Check(
            f"{threshold.shown}{suffix}",
            holds,
            f"{sign} {_show(bound)}",
            _show(value),
            f"EvalConfig: {what}{threshold.shown}{where} is {_show(value)}; {sign} {_show(bound)} is required.",
            _finite(value),
            bound,
            dict(self._slice(number)),
        )

    def _slice(self, number: int) -> dict[str, str]:
        return self.plan.slices[number]

    def _fairness(self, limit: FairnessLimit) -> Iterator[Check]:
        keys = [tuple(sorted(limit.over))] if limit.over else [tuple(sorted(key)) for key in self.problem.sensitive]
        for key in dict.fromkeys(keys):
            disparity = disparities(self.groups[key], limit.min_examples)[limit.metric]
            small = sum(group.count < limit.min_examples for group in self.groups[key])
            yield _fairness_check(limit, key, disparity, small)


def _undecidable(threshold: Threshold, reason: str) -> Check:
    message = f"EvalConfig: the threshold for {threshold.shown} can't be held: {reason}."
    return Check(threshold.shown, False, "as eval_config.pbtxt says", "nothing", message)


def _fairness_check(limit: FairnessLimit, key: tuple[str, ...], found: Disparity, small: int) -> Check:
    bound, sign = (limit.max, "<=") if limit.max is not None else (limit.min, ">=")
    assert bound is not None  # FairnessLimit has exactly one of them
    expected = f"{sign} {_show(bound)}"
    name = f"{limit.metric}[{','.join(key)}]"
    subject = f"{limit.metric.replace('_', ' ').capitalize()} over {' and '.join(key)}"
    left_out = (
        f" {small} group{'s' * (small > 1)} of fewer than {limit.min_examples} rows not counted." if small else ""
    )
    if found.lowest is None or found.highest is None:
        message = f"{subject} is not decided: the {_RATE_TITLES[found.rate]} is defined in fewer than two groups."
        return Check(name, False, expected, "not defined", f"{message}{left_out}", None, bound, blocking=False)
    holds = found.value <= bound if sign == "<=" else found.value >= bound
    got = f"{_show(found.value)}{_interval(found.low, found.high)}"
    extremes = (
        f"the {_RATE_TITLES[found.rate]} is lowest for {_slice_text(found.lowest)} "
        f"and highest for {_slice_text(found.highest)}"
    )
    required = f"{'at most' if sign == '<=' else 'at least'} {_show(bound)} is required"
    message = f"{subject} is {got}: {extremes}; {required}.{left_out}"
    return Check(name, holds, expected, got, message, found.value, bound)


_RATE_TITLES = {
    "selection_rate": "selection rate",
    "tpr": "true positive rate",
    "fpr": "false positive rate",
    "ppv": "precision",
}


def _title(metric: Metric) -> str:
    return metric.title[0].upper() + metric.title[1:]


def _slice_text(values: Mapping[str, str]) -> str:
    return ", ".join(f"{column} = {value}" for column, value in values.items())


def _show(value: float, sign: str = "") -> str:
    return f"{value:{sign}.4g}"


def _interval(low: float, high: float) -> str:
    return f" [{_show(low)}, {_show(high)}]" if math.isfinite(low) and math.isfinite(high) else ""


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
