"""Two runs side by side: what was different about them, and what came of it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tidemill.bundle import PROBLEM_FILE
from tidemill.costs import run_cost
from tidemill.decisions import Check, read_decision
from tidemill.hyperparameters import read_hyperparameters
from tidemill.metrics import METRICS
from tidemill.report import evidence
from tidemill.report.documents import Estimate
from tidemill.report.evidence import Evidence
from tidemill.runs import TaskRecord, output

Judgement = Literal["better", "worse", "same", ""]
_EVIDENCE = (
    ("validate", "anomalies"),
    ("evaluate", "blessing"),
    ("rehearse", "rehearsal"),
    ("compress", "compression"),
)
# What a stage says of its speed and use, where it says so, with the name that people are shown.
_EFFICIENCY: Mapping[str, tuple[str, Literal["higher", "lower", "neither"]]] = {
    "parameters": ("trainable parameters", "neither"),
    "strategy": ("strategy", "neither"),
    "workers": ("workers", "neither"),
    "replicas": ("replicas", "neither"),
    "steps": ("steps", "neither"),
    "train_s": ("training, s", "lower"),
    "examples_per_second": ("examples/s", "higher"),
    "step_ms": ("step, ms", "lower"),
    "input_bound_share": ("share of the time that waited for input", "lower"),
    "accelerator_utilisation": ("accelerator utilisation", "higher"),
}


@dataclass(frozen=True)
class Row:
    """One thing about both runs; None where a run doesn't have it.

    Attributes:
        judgement: what the second run's value is, seen from the first's; empty where neither is better.
    """

    name: str
    first: Any
    second: Any
    judgement: Judgement = ""

    @property
    def differs(self) -> bool:
        return bool(self.first != self.second)


@dataclass(frozen=True)
class Comparison:
    """Two runs.

    Attributes:
        origin: verdict, data, code and environment.
        settings: dotted paths of problem.yaml that differ, after a tuning where there was one.
        metrics: overall metrics on the test split, each an Estimate.
        fairness: disparities by sensitive key, each an Estimate.
        checks: checks of the gates that passed in one run and not in the other.
        efficiency: speed, use of the machine, and cost.
        stages: seconds of each stage; None where it was reused or not reached.
    """

    first: str
    second: str
    origin: Sequence[Row]
    settings: Sequence[Row]
    metrics: Sequence[Row]
    fairness: Sequence[Row]
    checks: Sequence[Row]
    efficiency: Sequence[Row]
    stages: Sequence[Row]


def compare(first: Path, second: Path) -> Comparison:
    """Compares two runs by what lies in their directories.

    Args:
        first: directory of a run, see `tidemill.runs`; bundles are looked for beside the directory of all runs.
        second: likewise.
    """
    runs = evidence.read(first), evidence.read(second)
    return Comparison(
        first=runs[0].run.id,
        second=runs[1].run.id,
        origin=_paired(_origin(runs[0]), _origin(runs[1])),
        settings=[row for row in _paired(_settings(runs[0], first), _settings(runs[1], second)) if row.differs],
        metrics=_judged(_metrics(runs[0]), _metrics(runs[1]), _directions(runs[0])),
        fairness=_judged(_fairness(runs[0]), _fairness(runs[1]), {}),
        checks=[row for row in _paired(_checks(runs[0]), _checks(runs[1])) if row.differs],
        efficiency=_efficiency(runs),
        stages=_paired(_seconds(runs[0].tasks), _seconds(runs[1].tasks)),
    )


def overlap(first: Estimate, second: Estimate) -> bool:
    """Whether two intervals have a value in common; without intervals that can't be said, and isn't."""
    ends = (first.low, first.high, second.low, second.high)
    if any(end is None for end in ends):
        return False
    return bool(first.low <= second.high and second.low <= first.high)  # type: ignore[operator]


def _paired(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    return [Row(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]


def _origin(run: Evidence) -> dict[str, Any]:
    rows = run.examples.rows if run.examples else {}
    return {
        "verdict": run.verdict,
        "started": run.run.started[:19].replace("T", " "),
        "problem": run.run.problem,
        "pipeline": run.run.pipeline,
        "source": run.run.source,
        "data": run.run.source_fingerprint[:19],
        **{f"rows: {split}": count for split, count in rows.items()},
        **run.run.environment,
        "model": run.model.digest[:12] if run.model else None,
    }


def _settings(run: Evidence, run_dir: Path) -> dict[str, Any]:
    """Returns the values of problem.yaml by dotted path, those that a tuning found in place of the problem's own.

    Nothing where the bundle isn't there any more.
    """
    bundle = run_dir.parent.parent / "bundles" / f"{run.run.bundle}.zip"
    try:
        with zipfile.ZipFile(bundle) as archive:
            said = dict(_leaves(yaml.safe_load(archive.read(PROBLEM_FILE))))
    except (OSError, KeyError, zipfile.BadZipFile):
        return {}
    found = output(run.tasks, "conclude", "hyperparameters")
    tuned = read_hyperparameters(found) if found else {}
    return said | {f"training.{path}": value for path, value in tuned.items()}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _leaves(part, f"{path}.{name}" if path else str(name))
    else:
        yield path, value


def _metrics(run: Evidence) -> dict[str, Estimate]:
    whole = run.metrics.whole if run.metrics else None
    return whole.values if whole else {}


def _directions(run: Evidence) -> Mapping[str, str]:
    metrics = METRICS.get(run.metrics.task, {}) if run.metrics else {}
    return {name: metric.better for name, metric in metrics.items()}


def _fairness(run: Evidence) -> dict[str, Estimate]:
    if run.metrics is None:
        return {}
    return {
        f"{name}[{','.join(group.over)}]": disparity
        for group in run.metrics.fairness
        for name, disparity in group.metrics.items()
    }


def _judged(first: Mapping[str, Estimate], second: Mapping[str, Estimate], directions: Mapping[str, str]) -> list[Row]:
    return [
        Row(row.name, row.first, row.second, _judgement(row.first, row.second, _direction(row.name, directions)))
        for row in _paired(first, second)
    ]


def _direction(name: str, directions: Mapping[str, str]) -> str:
    if name in directions:
        return directions[name]
    # A disparity is the ratio of two groups' rates or the gap between them.
    base = name.partition("[")[0]
    return "higher" if base.endswith("_ratio") else "lower" if base.endswith("_gap") else "neither"


def _judgement(first: Estimate | None, second: Estimate | None, better: str) -> Judgement:
    if first is None or second is None or first.value is None or second.value is None or better == "neither":
        return ""
    if overlap(first, second) or first.value == second.value:
        return "same"
    if better == "near_one":
        return "better" if abs(second.value - 1) < abs(first.value - 1) else "worse"
    return "better" if (second.value > first.value) == (better == "higher") else "worse"


def _checks(run: Evidence) -> dict[str, str]:
    found = [output(run.tasks, task, name) for task, name in _EVIDENCE]
    checks = [check for path in found if path is not None for check in read_decision(path).checks]
    return {_name(check): "passed" if check.passed else "failed" if check.blocking else "warned" for check in checks}


def _name(check: Check) -> str:
    where = ", ".join(f"{key}={value}" for key, value in check.slice.items())
    return f"{check.name} of {where}" if where else check.name


def _efficiency(runs: tuple[Evidence, Evidence]) -> list[Row]:
    rows = []
    told = [task.summary if task else {} for task in (run.task("train") for run in runs)]
    for key, (name, better) in _EFFICIENCY.items():
        first, second = told[0].get(key), told[1].get(key)
        if first is not None or second is not None:
            rows.append(Row(name, first, second, _faster(first, second, better)))
    first, second = runs
    rows.append(Row("peak memory, MB", _peak(first), _peak(second)))
    rows.append(Row("processor time, s", _processor_time(first), _processor_time(second)))
    rows.append(Row("whole run, s", first.run.wall_s, second.run.wall_s))
    costs = [cost for run in runs if (cost := run_cost(run.run, run.tasks))]
    for currency in dict.fromkeys(cost.currency for cost in costs):
        rows.append(Row(f"cost, {currency}", _total(first, currency), _total(second, currency)))
    return rows


def _peak(run: Evidence) -> float | None:
    return max((task.peak_rss_mb for task in run.tasks), default=None)


def _processor_time(run: Evidence) -> float:
    return float(sum(task.cpu_s for task in run.tasks))


def _total(run: Evidence, currency: str) -> float | None:
    cost = run_cost(run.run, run.tasks)
    return cost.total if cost and cost.currency == currency else None


def _faster(first: Any, second: Any, better: str) -> Judgement:
    """Judges figures of speed; timings of machines differ by a tenth without a cause."""
    if better == "neither" or not isinstance(first, (int, float)) or not isinstance(second, (int, float)):
        return ""
    if abs(second - first) <= 0.1 * abs(first):
        return "same"
    return "better" if (second > first) == (better == "higher") else "worse"


def _seconds(tasks: Sequence[TaskRecord]) -> dict[str, float | None]:
    return {task.name: None if task.status == "cached" else task.wall_s for task in tasks}
