"""Evaluates a model on the raw test split and decides whether it may be released."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tidemill.artifacts import MODEL_MANIFEST, ExamplesManifest, ModelManifest, parts
from tidemill.bundle import open_bundle
from tidemill.decisions import Decision
from tidemill.evaluate import outputs
from tidemill.evaluate.baselines import comparable_metrics, constant_answer
from tidemill.evaluate.binary import BinaryCells, binary_metrics, histogram_of, moments_of
from tidemill.evaluate.counts import CellsOf, Counts
from tidemill.evaluate.fairness import Group, groups
from tidemill.evaluate.intervals import CONFIDENCE
from tidemill.evaluate.labels import LabelReader, TrainLabels
from tidemill.evaluate.limits import Judge, Rival, validate_limits
from tidemill.evaluate.metrics import METRICS, Estimates, estimate
from tidemill.evaluate.multiclass import MulticlassCells, confusion_of, multiclass_metrics
from tidemill.evaluate.regression import RegressionCells, regression_metrics
from tidemill.evaluate.scoring import (
    BASELINE,
    CANDIDATE,
    CHAMPION,
    SCORES,
    PredictParts,
    score,
    split_parts,
)
from tidemill.evaluate.slices import SlicePlan, plan_slices
from tidemill.evaluate.tfma_files import eval_config, write_result
from tidemill.files import replaced_directory, write_json
from tidemill.problem import Problem


@dataclass(frozen=True)
class EvaluationReport:
    """What the evaluation came to.

    Attributes:
        metrics: the overall metrics that are defined.
        roc: false positive rates, true positive rates and thresholds; binary only.
        confusion: classes, and weight by actual and predicted class; classification only.
        passed: the gate's decision.
        refusals: one sentence per check that refused the model.
        rows: rows of the test split, all of which were evaluated.
        slices: number of slices, the whole included.
        champion: digest of the champion it was compared with.
    """

    metrics: dict[str, float]
    roc: tuple[list[float], list[float], list[float]] | None
    confusion: tuple[list[str], list[list[float]]] | None
    passed: bool
    refusals: tuple[str, ...]
    rows: int
    slices: int
    champion: str | None


def run(
    bundle: str | Path,
    examples: str | Path,
    model: str | Path,
    champion: str | Path,
    evaluation: str | Path,
    blessing: str | Path,
    predictions: str | Path,
) -> EvaluationReport:
    """Predicts every row of the raw test split, computes metrics per slice and holds them against the limits.

    A model that is refused is a result, not an error: the decision is in ``blessing`` and in the report.

    Args:
        bundle: the problem.
        examples: directory of ingested examples.
        model: directory of the candidate.
        champion: directory of the champion; empty when there is none.
        evaluation: directory that the metrics are written to.
        blessing: directory that the decision is written to.
        predictions: directory that the candidate's answers are written to, one row per test row.

    Raises:
        ProblemError: if a limit can't be decided for the task.
        DataError: if the test split is empty or its labels can't be read.
    """
    problem = open_bundle(Path(bundle)).problem
    validate_limits(problem)
    with (
        replaced_directory(Path(predictions)) as predictions_dir,
        replaced_directory(Path(evaluation)) as evaluation_dir,
        replaced_directory(Path(blessing)) as blessing_dir,
    ):
        done = _Evaluation.of(problem, Path(examples), Path(model), Path(champion), predictions_dir)
        done.write(evaluation_dir)
        write_json(
            blessing_dir / "blessing.json",
            {
                "decision": done.decision.to_json(),
                "challenger": done.manifest.digest,
                "champion": done.champion.digest if done.champion else None,
            },
        )
    return done.report()


@dataclass(frozen=True)
class _Evaluation:
    """Everything that is known once the rows are counted."""

    problem: Problem
    manifest: ModelManifest
    champion: ModelManifest | None
    plan: SlicePlan
    labels: TrainLabels
    counts: Counts
    models: Mapping[str, Estimates]
    rivals: Mapping[str, Rival]
    groups: Mapping[tuple[str, ...], Sequence[Group]]
    decision: Decision

    @classmethod
    def of(cls, problem: Problem, examples: Path, model: Path, champion: Path, predictions: Path) -> _Evaluation:
        manifest = ModelManifest.read(model)
        current = ModelManifest.read(champion) if (champion / MODEL_MANIFEST).is_file() else None
        reader = LabelReader.of(problem, ExamplesManifest.read(examples))
        files = split_parts(examples)
        plan = plan_slices(parts(examples, "test"), problem.sensitive)
        train = TrainLabels.read(examples, reader)
        directories = {CANDIDATE: str(model)}
        if current and not _not_comparable(manifest, current) and current.digest != manifest.digest:
            directories[CHAMPION] = str(champion)
        constants = (
            {BASELINE: constant_answer(problem.baseline, problem.task, train)} if problem.baseline is not None else {}
        )
        thresholds = {CANDIDATE: manifest.threshold, CHAMPION: current.threshold if current else 0.5}
        cells: dict[str, CellsOf] = {
            name: _cells(problem, manifest, train, thresholds.get(name, problem.threshold))
            for name in (*directories, *constants)
        }
        predict = PredictParts(reader, plan, directories, constants, str(predictions), SCORES[problem.task])
        with tempfile.TemporaryDirectory(dir=predictions.parent, prefix=".counts.") as scratch:
            counts = score(files, predict, cells, [len(key.names) for key in plan.keys], Path(scratch))
        models = {name: _estimates(problem, manifest, train, counts, name) for name in cells}
        if current and current.digest == manifest.digest:
            models[CHAMPION] = models[CANDIDATE]
        if problem.baseline is not None:
            models[BASELINE] = models[BASELINE].only(comparable_metrics(problem.baseline, problem.task))
        rivals = {
            CHAMPION: _champion_rival(current, models.get(CHAMPION), manifest),
            BASELINE: Rival(f"the rule `{problem.baseline}`", models.get(BASELINE), "no baseline", absent=True),
        }
        sensitive = [tuple(sorted(key)) for key in problem.sensitive]
        by_key: dict[tuple[str, ...], list[Group]] = {}
        if problem.task == "binary_classification":
            moments = moments_of(counts, f"{CANDIDATE}/moments")
            by_key = {key: groups(moments, plan.slices, plan.members(key)) for key in dict.fromkeys(sensitive)}
        judge = Judge(problem, plan, models[CANDIDATE], rivals[CHAMPION], rivals[BASELINE], by_key)
        return cls(problem, manifest, current, plan, train, counts, models, rivals, by_key, judge.decide())

    def write(self, directory: Path) -> None:
        """Writes metrics.json, metrics.parquet and TFMA's files."""
        task = self.problem.task
        roc, pr = self._curves()
        confusion = self._confusion()
        candidate = self.models[CANDIDATE]
        sensitive = [tuple(sorted(key)) for key in self.problem.sensitive]
        write_json(
            directory / "metrics.json",
            {
                "task": task,
                "threshold": self.manifest.threshold if task == "binary_classification" else None,
                "digest": self.manifest.digest,
                "rows": int(candidate.values["example_count"][0]),
                "weighted": self.problem.weight is not None,
                "classes": list(self.manifest.classes),
                "confidence": CONFIDENCE,
                "metrics": outputs.metric_rows(self.plan, candidate, sensitive),
                "fairness": outputs.fairness_rows(self.groups),
                "calibration": self._calibration(),
                "roc": roc,
                "pr": pr,
                "confusion": {"classes": confusion[0], "matrix": confusion[1]} if confusion else None,
                "baseline": self._rival_json(BASELINE, {"rule": self.problem.baseline})
                if self.problem.baseline
                else None,
                "champion": self._rival_json(CHAMPION, {"digest": self.champion.digest}) if self.champion else None,
                "decision": self.decision.to_json(),
            },
        )
        pq.write_table(outputs.metrics_table(self.plan, self.models), directory / "metrics.parquet")
        config = eval_config(
            task,
            self.problem.label.output,
            SCORES[task],
            self.problem.weight,
            self.manifest.threshold,
            [key.columns for key in self.plan.keys],
        )
        histogram = None
        if task == "binary_classification":
            histogram = self.counts[f"{CANDIDATE}/calibration"][0]
        write_result(directory, config, self.plan, candidate, self.decision, histogram)

    def report(self) -> EvaluationReport:
        candidate = self.models[CANDIDATE]
        overall = {name: float(values[0]) for name, values in candidate.values.items()}
        roc, _ = self._curves()
        return EvaluationReport(
            metrics={name: value for name, value in overall.items() if np.isfinite(value)},
            roc=(roc["fpr"], roc["tpr"], roc["thresholds"]) if roc else None,
            confusion=self._confusion(),
            passed=self.decision.passed,
            refusals=tuple(check.message for check in self.decision.refusals),
            rows=int(overall["example_count"]),
            slices=self.plan.size,
            champion=self.champion.digest if self.champion else None,
        )

    def _curves(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        if self.problem.task != "binary_classification":
            return None, None
        return outputs.roc_and_pr(histogram_of(self.counts, CANDIDATE)[0])

    def _confusion(self) -> tuple[list[str], list[list[float]]] | None:
        classes = list(self.manifest.classes)
        if self.problem.task == "binary_classification":
            m = {name: float(v[0]) for name, v in moments_of(self.counts, f"{CANDIDATE}/moments").items()}
            return classes, [[m["tn"], m["fp"]], [m["fn"], m["tp"]]]
        if self.problem.task == "multiclass_classification":
            return classes, confusion_of(self.counts, CANDIDATE, len(classes)).tolist()
        return None

    def _calibration(self) -> dict[str, Any]:
        bins = self.counts[f"{CANDIDATE}/calibration"][0]
        if self.problem.task == "regression":
            return outputs.calibration_bins(bins, [-np.inf, *self.labels.edges, np.inf], rates=False)
        return outputs.calibration_bins(bins, np.linspace(0, 1, len(bins) + 1).tolist(), rates=True)

    def _rival_json(self, name: str, about: dict[str, Any]) -> dict[str, Any]:
        rival = self.rivals[name]
        rows = (
            outputs.rival_rows(self.problem.task, self.plan, self.models[CANDIDATE], rival.estimates)
            if rival.estimates
            else []
        )
        return {**about, "comparable": rival.estimates is not None, "reason": rival.reason, "metrics": rows}


def _not_comparable(candidate: ModelManifest, champion: ModelManifest) -> str:
    """Returns why the two can't be held against each other, or nothing."""
    if champion.task != candidate.task:
        return f"the champion does {champion.task}"
    if champion.classes != candidate.classes:
        return f"the champion knows the classes {', '.join(champion.classes)}"
    return ""


def _champion_rival(champion: ModelManifest | None, estimates: Estimates | None, candidate: ModelManifest) -> Rival:
    if champion is None:
        return Rival("the champion", None, "no champion yet", absent=True)
    reason = _not_comparable(candidate, champion)
    return Rival("the champion", estimates, f"{reason}, so they can't be compared" if reason else "")


def _cells(problem: Problem, manifest: ModelManifest, train: TrainLabels, threshold: float) -> CellsOf:
    if problem.task == "binary_classification":
        return BinaryCells(threshold)
    if problem.task == "multiclass_classification":
        return MulticlassCells(len(manifest.classes))
    return RegressionCells(train.mean, train.edges)


def _estimates(problem: Problem, manifest: ModelManifest, train: TrainLabels, counts: Counts, model: str) -> Estimates:
    if problem.task == "binary_classification":
        computed = binary_metrics(counts, model)
    elif problem.task == "multiclass_classification":
        computed = multiclass_metrics(counts, model, manifest.classes)
    else:
        computed = regression_metrics(counts, model, train.mean)
    found = estimate(problem.task, *computed)
    order = {name: i for i, name in enumerate(METRICS[problem.task])}
    return found.only(tuple(sorted(found.values, key=lambda name: order.get(name, len(order)))))
