"""One trial: a training with its hyperparameters, as long as its rung says, judged on the eval rows or by folds."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from tidemill.bundle import open_bundle
from tidemill.errors import UserError
from tidemill.files import replaced_directory
from tidemill.hyperparameters import write_hyperparameters
from tidemill.train.run import TrainReport, forget
from tidemill.train.run import run as train
from tidemill.tune.study import CHECKPOINTS, Result


@dataclass(frozen=True)
class TrialReport:
    """What a trial came to; all but ``state`` is empty for a place in a round that had none."""

    state: str
    number: int | None = None
    hyperparameters: Mapping[str, Any] | None = None
    result: Result | None = None


def run(
    bundle: str | Path,
    transformed: str | Path,
    transform_graph: str | Path,
    item: str,
    result: str | Path,
    scratch: str | Path,
    examples: str | Path | None = None,
    folds: str | Path | None = None,
    continued: str | Path | None = None,
    champion: str | Path | None = None,
) -> TrialReport:
    """Trains one configuration and writes its result, with the checkpoints that a longer training goes on from.

    A configuration that can't be trained is a result, not an error.

    Args:
        bundle: the problem.
        transformed: as `transform` put out.
        transform_graph: as `transform` put out.
        item: what to try, as `suggest` says it.
        result: directory for what it came to.
        scratch: directory that outlives a killed try.
        examples: raw examples, where the fairness of the eval split counts.
        folds: as `fold` put out; the eval split judges without.
        continued: checkpoints of the trials that go on.
        champion: the model in production, where the problem starts from it.
    """
    order = json.loads(item)
    if "number" not in order:
        with replaced_directory(Path(result)):
            return TrialReport("idle")
    data = _data(Path(transformed), Path(examples) if examples else None, Path(folds) if folds else None)
    checkpoints = Path(scratch) / CHECKPOINTS
    if order["resumed"] and not checkpoints.exists():
        assert continued is not None
        with replaced_directory(checkpoints) as partial:
            shutil.copytree(Path(continued) / f"trial-{order['number']}", partial, dirs_exist_ok=True)
    origin = Path(champion) if champion else None
    outcome = _outcome(Path(bundle), data, Path(transform_graph), order, checkpoints, origin)
    with replaced_directory(Path(result)) as partial:
        if order["epochs"] is not None and outcome.error is None:
            shutil.copytree(checkpoints, partial / CHECKPOINTS)
        outcome.write(partial)
    for i in range(len(data)):
        forget(bundle, checkpoints / f"fold-{i}")
    state = "failed" if outcome.error else "trained"
    print(f"tune: trial {outcome.number} {state}: {outcome.error or _metrics(outcome.metrics)}", flush=True)
    return TrialReport(state, outcome.number, order["hyperparameters"], outcome)


@dataclass(frozen=True)
class _Rows:
    """What one training is trained and judged on: transformed examples, and the same rows raw where they are needed."""

    transformed: Path
    examples: Path | None


def _data(transformed: Path, examples: Path | None, folds: Path | None) -> list[_Rows]:
    if folds is None:
        return [_Rows(transformed, examples)]
    return [_Rows(fold, fold / "examples") for fold in sorted(folds.glob("fold-*"))]


def _outcome(
    bundle: Path,
    data: Sequence[_Rows],
    graph: Path,
    order: Mapping[str, Any],
    checkpoints: Path,
    champion: Path | None,
) -> Result:
    reports, gaps = [], []
    try:
        for i, rows in enumerate(data):
            report, gap = _trained(bundle, rows, graph, order, checkpoints / f"fold-{i}", champion)
            reports.append(report)
            gaps.append(gap)
    except (UserError, tf.errors.ResourceExhaustedError) as error:  # too large for the accelerator: its own fault too
        return Result(order["number"], order["rung"], error=str(error))
    folds = tuple({**report.metrics, "loss": report.eval_loss} for report in reports)
    means = {name: _mean([fold.get(name) for fold in folds]) for name in folds[0]}
    return Result(
        number=order["number"],
        rung=order["rung"],
        epochs=max(report.epochs for report in reports),
        metrics=means,
        folds=folds,
        gap=_mean(gaps),
        seconds=sum(report.train_s for report in reports),
    )


def _trained(
    bundle: Path, rows: _Rows, graph: Path, order: Mapping[str, Any], checkpoints: Path, champion: Path | None
) -> tuple[TrainReport, float | None]:
    fairness = order.get("fairness")
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        # Checkpoints that another task goes on from are handed on in the result, not left at an address.
        handed_on = order["resumed"] or order["epochs"] is not None
        values = {**order["hyperparameters"], **({"checkpoint_uri": None} if handed_on else {})}
        write_hyperparameters(place / "hyperparameters", values)
        report = train(
            bundle,
            rows.transformed,
            graph,
            place / "model" if fairness else None,
            place / "history",
            checkpoints,
            hyperparameters=place / "hyperparameters",
            epochs=order["epochs"],
            champion=champion,
        )
        if fairness is None:
            return report, None
        from tidemill.tune.fairness import gap

        assert rows.examples is not None
        return report, gap(place / "model", rows.examples, open_bundle(bundle).problem, fairness)


def _mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean, or None if any of the values is undefined."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if len(defined) == len(values) else None


def _metrics(metrics: Mapping[str, float | None]) -> str:
    return ", ".join(f"{n} {'undefined' if v is None else format(v, '.4f')}" for n, v in sorted(metrics.items()))
