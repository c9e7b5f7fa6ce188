"""From the inputs of an evaluation to its metrics and its decision."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tidemill.artifacts import MODEL_MANIFEST, ExamplesManifest, ModelManifest, parts
from tidemill.beam import Cluster
from tidemill.bundle import EVAL_CONFIG_FILE, Bundle
from tidemill.decisions import Decision
from tidemill.errors import DataError
from tidemill.evaluate import outputs
from tidemill.evaluate.baselines import constant_answer
from tidemill.evaluate.binary import BinaryCells, binary_metrics, histogram_of, moments_of
from tidemill.evaluate.counts import CellsOf, Counts
from tidemill.evaluate.engine import ReadScored, run_engine
from tidemill.evaluate.fairness import Group, groups
from tidemill.evaluate.intervals import CONFIDENCE
from tidemill.evaluate.labels import LabelReader, TrainLabels
from tidemill.evaluate.limits import Judge, Rival
from tidemill.evaluate.metrics import Estimates, estimate
from tidemill.evaluate.multiclass import MulticlassCells, confusion_of, multiclass_metrics
from tidemill.evaluate.regression import RegressionCells, regression_metrics
from tidemill.evaluate.scoring import BASELINE, CANDIDATE, CHAMPION, SCORES, Part, PredictParts, score, split_parts
from tidemill.evaluate.slices import SlicePlan, plan_slices
from tidemill.evaluate.tfma_files import eval_config, write_result
from tidemill.evaluate.user_config import UserConfig, read_user_config
from tidemill.files import write_json
from tidemill.metrics import METRICS, comparable_metrics
from tidemill.problem import Problem


@dataclass(frozen=True)
class Inputs:
    """What is evaluated, read and found usable.

    Attributes:
        directories: the models that have to predict, by name.
        candidate: manifest of the candidate.
        champion: manifest of the champion, if there is one.
        incomparable: why the champion can't be held against the candidate, or nothing.
        labels: what the training split's labels say.
    """

    problem: Problem
    config: UserConfig
    reader: LabelReader
    files: Sequence[Part]
    plan: SlicePlan
    labels: TrainLabels
    directories: Mapping[str, str]
    candidate: ModelManifest
    champion: ModelManifest | None
    incomparable: str

    @classmethod
    def read(cls, bundle: Bundle, examples: Path, model: Path, champion: Path) -> Inputs:
        """Reads everything but the rows.

        Raises:
            ProblemError: if a limit, or the user's EvalConfig, can't be held.
            DataError: if the examples can't be evaluated.
        """
        problem = bundle.problem
        config = read_user_config(bundle.directory / EVAL_CONFIG_FILE, problem)
        manifest = ExamplesManifest.read(examples)
        reader = LabelReader.of(problem, manifest)
        files = split_parts(examples)
        candidate = ModelManifest.read(model)
        if candidate.classes != reader.classes:
            raise DataError(
                "model", f"must know the classes {reader.classes}", f"{candidate.classes}", "train it again"
            )
        current = ModelManifest.read(champion) if (champion / MODEL_MANIFEST).is_file() else None
        directories = {CANDIDATE: str(model)}
        incomparable = not_comparable(candidate, current, manifest.columns) if current else ""
        if current and not incomparable and current.digest != candidate.digest:
            directories[CHAMPION] = str(champion)
        plan = plan_slices(parts(examples, "test"), [*problem.sensitive, *config.keys])
        labels = TrainLabels.read(examples, reader)
        return cls(problem, config, reader, files, plan, labels, directories, candidate, current, incomparable)

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """Answers of the rules that answer every row alike, by name."""
        rule = self.problem.baseline
        return {} if rule is None else {BASELINE: constant_answer(rule, self.problem.task, self.labels)}

    @property
    def sensitive(self) -> list[tuple[str, ...]]:
        """The sensitive keys, their columns sorted."""
        return list(dict.fromkeys(tuple(sorted(key)) for key in self.problem.sensitive))

    def cells(self) -> dict[str, CellsOf]:
        """Returns how each model's answers are counted; each decides at its own threshold."""
        thresholds = {CANDIDATE: self.candidate.threshold, BASELINE: self.candidate.threshold}
        if self.champion:
            thresholds[CHAMPION] = self.champion.threshold
        return {name: self._cells_at(thresholds[name]) for name in (*self.directories, *self.constants)}

    def _cells_at(self, threshold: float) -> CellsOf:
        if self.problem.task == "binary_classification":
            return BinaryCells(threshold)
        if self.problem.task == "multiclass_classification":
            return MulticlassCells(len(self.candidate.classes))
        return RegressionCells(self.labels.mean, self.labels.edges)

    def count(self, predictions: Path, cluster: Cluster) -> Counts:
        """Predicts and counts all rows, leaving the candidate's answers in ``predictions``."""
        score_name = SCORES[self.problem.task]
        directories = {name: cluster.exchange.given(Path(path)) for name, path in self.directories.items()}
        files = [replace(file, path=cluster.exchange.given(Path(file.path))) for file in self.files]
        sizes = [len(key.names) for key in self.plan.keys]
        with (
            tempfile.TemporaryDirectory(dir=predictions) as scratch,
            cluster.exchange.made(predictions) as answers,
        ):
            predict = PredictParts(self.reader, self.plan, directories, self.constants, answers, score_name)
            return score(files, predict, self.cells(), sizes, Path(scratch), cluster)

    def estimates(self, counts: Counts, model: str) -> Estimates:
        """Returns one model's metrics with intervals, in the order in which they are shown."""
        task = self.problem.task
        if task == "binary_classification":
            computed = binary_metrics(counts, model)
        elif task == "multiclass_classification":
            computed = multiclass_metrics(counts, model, self.candidate.classes)
        else:
            computed = regression_metrics(counts, model, self.labels.mean)
        found = estimate(task, *computed)
        order = {name: i for i, name in enumerate(METRICS[task])}
        found = found.only(tuple(sorted(found.values, key=lambda name: order.get(name, len(order)))))
        rule = self.problem.baseline
        return found.only(comparable_metrics(rule, task)) if rule and model == BASELINE else found

    def engine_metrics(self, predictions: Path, output: Path, cluster: Cluster) -> Mapping[str, np.ndarray]:
        """Returns the metrics that only TFMA can compute."""
        if not self.config.engine:
            return {}
        exchange = cluster.exchange
        read = ReadScored(self.reader, self.plan, exchange.given(predictions), SCORES[self.problem.task])
        files = [replace(file, path=exchange.given(Path(file.path))) for file in self.files]
        return run_engine(files, read, self.config.engine, self.plan, output, cluster)


_READABLE: Mapping[str, tuple[str, ...]] = {
    "float32": ("float64", "int64"),
    "int64": ("int64",),
    "string": ("string",),
}
"""Types of columns that a model can read, by dtype of its input."""


def not_comparable(candidate: ModelManifest, champion: ModelManifest, columns: Mapping[str, str]) -> str:
    """Returns why the two can't be held against each other, or nothing.

    Args:
        columns: type by column of the rows. A column that there is no more is missing to the champion, as it is to
            the endpoint.
    """
    if champion.task != candidate.task:
        return f"the champion does {champion.task}, so they can't be compared"
    if champion.classes != candidate.classes:
        return f"the champion knows the classes {', '.join(champion.classes)}, so they can't be compared"
    for name, dtype in champion.inputs.items():
        if name in columns and columns[name] not in _READABLE[dtype]:
            return f"the champion reads {name} as {dtype} and it is {columns[name]} now, so they can't be compared"
    return ""


@dataclass(frozen=True)
class Evaluation:
    """Everything that is known once the rows are counted."""

    inputs: Inputs
    counts: Counts
    models: Mapping[str, Estimates]
    rivals: Mapping[str, Rival]
    groups: Mapping[tuple[str, ...], Sequence[Group]]
    decision: Decision

    @classmethod
    def of(cls, inputs: Inputs, predictions: Path, engine: Path, cluster: Cluster) -> Evaluation:
        """Predicts, counts, computes and decides.

        Args:
            predictions: directory for the candidate's answers.
            engine: directory for what TFMA computes itself, if anything.
            cluster: where all that runs over the rows.
        """
        counts = inputs.count(predictions, cluster)
        models = {name: inputs.estimates(counts, name) for name in inputs.cells()}
        if inputs.champion and inputs.champion.digest == inputs.candidate.digest:
            models[CHAMPION] = models[CANDIDATE]
        models[CANDIDATE] = models[CANDIDATE].also(inputs.engine_metrics(predictions, engine, cluster))
        rivals = {CHAMPION: _champion(inputs, models), BASELINE: _baseline(inputs, models)}
        by_key: dict[tuple[str, ...], list[Group]] = {}
        if inputs.problem.task == "binary_classification":
            moments = moments_of(counts, CANDIDATE)
            by_key = {key: groups(moments, inputs.plan.slices, inputs.plan.members(key)) for key in inputs.sensitive}
        judge = Judge(inputs.problem, inputs.plan, models[CANDIDATE], rivals[CHAMPION], rivals[BASELINE], by_key)
        return cls(inputs, counts, models, rivals, by_key, judge.decide(inputs.config.thresholds))

    @property
    def overall(self) -> dict[str, float]:
        """The candidate's metrics over all rows that are defined."""
        values = {name: float(array[0]) for name, array in self.models[CANDIDATE].values.items()}
        return {name: value for name, value in values.items() if np.isfinite(value)}

    def write(self, directory: Path) -> None:
        """Writes metrics.json, metrics.parquet and TFMA's files."""
        write_json(directory / "metrics.json", self._document())
        pq.write_table(outputs.metrics_table(self.inputs.plan, self.models), directory / "metrics.parquet")
        problem, candidate = self.inputs.problem, self.inputs.candidate
        keys = [key.columns for key in self.inputs.plan.keys]
        score_name = SCORES[problem.task]
        config = eval_config(problem.task, problem.label.output, score_name, problem.weight, candidate.threshold, keys)
        bins = self.counts[f"{CANDIDATE}/calibration"][0] if problem.task == "binary_classification" else None
        write_result(directory, config, self.inputs.plan, self.models[CANDIDATE], self.decision, bins)

    def _document(self) -> dict[str, Any]:
        problem, manifest = self.inputs.problem, self.inputs.candidate
        roc, pr = self.curves()
        confusion = self.confusion()
        return {
            "task": problem.task,
            "threshold": manifest.threshold if problem.task == "binary_classification" else None,
            "digest": manifest.digest,
            "rows": int(self.overall["example_count"]),
            "weighted": problem.weight is not None,
            "classes": list(manifest.classes),
            "confidence": CONFIDENCE,
            "metrics": outputs.metric_rows(self.inputs.plan, self.models[CANDIDATE], self.inputs.sensitive),
            "fairness": outputs.fairness_rows(self.groups),
            "calibration": self._calibration(),
            "roc": roc,
            "pr": pr,
            "confusion": {"classes": confusion[0], "matrix": confusion[1]} if confusion else None,
            "baseline": self._rival(BASELINE, {"rule": problem.baseline}) if problem.baseline else None,
            "champion": self._rival(CHAMPION, {"digest": self.inputs.champion.digest})
            if self.inputs.champion
            else None,
            "decision": self.decision.to_json(),
        }

    def curves(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Returns the ROC and the precision-recall curve of a binary classifier, else None."""
        if self.inputs.problem.task != "binary_classification":
            return None, None
        return outputs.roc_and_pr(histogram_of(self.counts, CANDIDATE)[0])

    def confusion(self) -> tuple[list[str], list[list[float]]] | None:
        """Returns the classes and the weight by actual and predicted class; None for regression."""
        classes = list(self.inputs.candidate.classes)
        if self.inputs.problem.task == "binary_classification":
            m = {name: float(v[0]) for name, v in moments_of(self.counts, CANDIDATE).items()}
            return classes, [[m["tn"], m["fp"]], [m["fn"], m["tp"]]]
        if self.inputs.problem.task == "multiclass_classification":
            return classes, confusion_of(self.counts, CANDIDATE, len(classes)).tolist()
        return None

    def _calibration(self) -> dict[str, Any]:
        bins = self.counts[f"{CANDIDATE}/calibration"][0]
        if self.inputs.problem.task == "regression":
            return outputs.calibration_bins(bins, [-np.inf, *self.inputs.labels.edges, np.inf], rates=False)
        return outputs.calibration_bins(bins, np.linspace(0, 1, len(bins) + 1).tolist(), rates=True)

    def _rival(self, name: str, about: dict[str, Any]) -> dict[str, Any]:
        rival = self.rivals[name]
        ours = self.models[CANDIDATE]
        rows = outputs.rival_rows(self.inputs.plan, ours, rival.estimates) if rival.estimates else []
        return {**about, "comparable": rival.estimates is not None, "reason": rival.reason, "metrics": rows}


def _champion(inputs: Inputs, models: Mapping[str, Estimates]) -> Rival:
    if inputs.champion is None:
        return Rival("the champion", None, "no champion yet", absent=True)
    return Rival("the champion", models.get(CHAMPION), inputs.incomparable)


def _baseline(inputs: Inputs, models: Mapping[str, Estimates]) -> Rival:
    return Rival(f"the rule `{inputs.problem.baseline}`", models.get(BASELINE), "no baseline", absent=True)
