"""A user's own TFMA EvalConfig: ``eval_config.pbtxt`` beside problem.yaml.

Its slicing specs add slices, its metrics add metrics, its thresholds add checks to the model gate. The problem says
which label, output and weight there are, so model specs say nothing new and are ignored. Metrics that the counts give
(see ``tfma_files.EQUIVALENTS``) are taken from them; TFMA itself computes the others.

Not taken: more than one model, query keys, cross slicing, slices by SQL; and change thresholds on metrics that TFMA
computes, because the champion's are only counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2
from tf_keras import metrics as keras_metrics

from tidemill.errors import ProblemError
from tidemill.evaluate.slices import SlicePlan
from tidemill.evaluate.tfma_files import EQUIVALENTS, equivalent_options
from tidemill.problem import Problem


@dataclass(frozen=True)
class SliceSpec:
    """Slices of some columns, perhaps only those with given values."""

    columns: tuple[str, ...]
    values: Mapping[str, str]

    def members(self, plan: SlicePlan) -> list[int]:
        """Returns the numbers of the slices that are meant."""
        numbers = plan.members(self.columns) if self.columns else range(1)
        return [n for n in numbers if all(plan.slices[n][column] == value for column, value in self.values.items())]


@dataclass(frozen=True)
class Threshold:
    """One threshold of the config.

    Attributes:
        metric: name among the evaluation's metrics.
        shown: name in the config.
        slices: where it holds.
        lower, upper: bounds of the value.
        absolute, relative: bounds of candidate minus champion, and of that divided by the champion's value.
        lower_is_better: then the change must be at most its bounds, else at least.
    """

    metric: str
    shown: str
    slices: SliceSpec
    lower: float | None = None
    upper: float | None = None
    absolute: float | None = None
    relative: float | None = None
    lower_is_better: bool = False

    @property
    def compares(self) -> bool:
        return self.absolute is not None or self.relative is not None


@dataclass(frozen=True)
class UserConfig:
    """What a user's EvalConfig adds to an evaluation.

    Attributes:
        slices: further slices.
        engine: the metrics that only TFMA can compute, without thresholds; often empty.
        thresholds: further limits.
    """

    slices: tuple[SliceSpec, ...] = ()
    engine: tuple[config_pb2.MetricsSpec, ...] = ()
    thresholds: tuple[Threshold, ...] = ()

    @property
    def keys(self) -> list[tuple[str, ...]]:
        specs = [*self.slices, *(threshold.slices for threshold in self.thresholds)]
        return [spec.columns for spec in specs if spec.columns]


def read_user_config(path: Path, problem: Problem) -> UserConfig:
    """Reads an EvalConfig in text format; a file that isn't there adds nothing.

    Raises:
        ProblemError: naming everything in it that can't be taken.
    """
    if not path.is_file():
        return UserConfig()
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), config_pb2.EvalConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ProblemError(path.name, "is not an EvalConfig in text format", str(error)) from error
    faults = list(_faults(config))
    metrics = [_metrics_of(spec, problem) for spec in config.metrics_specs] if not faults else []
    thresholds = [threshold for _, found in metrics for threshold in found]
    engine = [spec for spec, _ in metrics if spec.metrics]
    ours = set(EQUIVALENTS[problem.task])
    faults += [
        f"{t.shown}: change thresholds need a metric that counts give: {', '.join(sorted(ours))}"
        for t in thresholds
        if t.compares and t.metric not in ours
    ]
    if faults:
        raise ProblemError(path.name, "cannot be taken\n  " + "\n  ".join(faults))
    return UserConfig(tuple(_slice_spec(s) for s in config.slicing_specs), tuple(engine), tuple(thresholds))


def _faults(config: config_pb2.EvalConfig) -> Iterator[str]:
    if len([spec for spec in config.model_specs if not spec.is_baseline]) > 1:
        yield "model_specs: more than one model"
    if config.cross_slicing_specs:
        yield "cross_slicing_specs: not supported"
    if any(spec.slice_keys_sql for spec in config.slicing_specs):
        yield "slicing_specs: slice_keys_sql is not supported"
    for spec in config.metrics_specs:
        yield from _spec_faults(spec)


def _spec_faults(spec: config_pb2.MetricsSpec) -> Iterator[str]:
    if spec.query_key:
        yield "metrics_specs: query_key is not supported"
    if spec.cross_slice_thresholds or any(metric.cross_slice_thresholds for metric in spec.metrics):
        yield "metrics_specs: cross_slice_thresholds are not supported"
    known = {*metric_types.registered_metrics(), *dir(keras_metrics)}
    unknown = [metric.class_name for metric in spec.metrics if metric.class_name not in known]
    yield from (f"metrics_specs: there is no metric {name}" for name in unknown)
    names = set() if unknown else {_name(metric) for metric in spec.metrics}
    for name in {*spec.thresholds, *spec.per_slice_thresholds} - names:
        yield f"metrics_specs: there is a threshold for {name}, and no such metric in the same spec"


def _slice_spec(spec: config_pb2.SlicingSpec) -> SliceSpec:
    return SliceSpec(tuple(sorted({*spec.feature_keys, *spec.feature_values})), dict(spec.feature_values))


def _name(metric: config_pb2.MetricConfig) -> str:
    options = json.loads(metric.config or "{}")
    made = metric_types.registered_metrics().get(metric.class_name) or getattr(keras_metrics, metric.class_name)
    try:
        return str(made(**options).name)
    except (TypeError, ValueError) as error:
        raise ProblemError("eval_config.pbtxt", f"{metric.class_name} cannot be made", str(error)) from error


def _metrics_of(spec: config_pb2.MetricsSpec, problem: Problem) -> tuple[config_pb2.MetricsSpec, list[Threshold]]:
    """Splits a spec into what TFMA must compute and the thresholds on everything."""
    plain = not (spec.HasField("binarize") or spec.HasField("aggregate") or spec.HasField("example_weights"))
    engine = config_pb2.MetricsSpec()
    engine.CopyFrom(spec)
    del engine.metrics[:]
    engine.thresholds.clear()
    engine.per_slice_thresholds.clear()
    thresholds: list[Threshold] = []
    for metric in spec.metrics:
        shown = _name(metric)
        counted = _counted(metric, problem) if plain else None
        if counted is None:
            engine.metrics.add(class_name=metric.class_name, module=metric.module, config=metric.config)
        limits: list[tuple[config_pb2.MetricThreshold, SliceSpec]] = []
        if metric.HasField("threshold"):
            limits.append((metric.threshold, SliceSpec((), {})))
        if shown in spec.thresholds:
            limits.append((spec.thresholds[shown], SliceSpec((), {})))
        limits += list(_per_slice(metric.per_slice_thresholds))
        if shown in spec.per_slice_thresholds:
            limits += list(_per_slice(spec.per_slice_thresholds[shown].thresholds))
        thresholds += [_threshold(counted or shown, shown, limit, slices) for limit, slices in limits]
    return engine, thresholds


def _counted(metric: config_pb2.MetricConfig, problem: Problem) -> str | None:
    """Returns the name under which the counts give this very metric.

    A metric without a threshold is meant at 0.5, which is the model's own unless the problem says otherwise.
    """
    options = {k: v for k, v in json.loads(metric.config or "{}").items() if k != "name"}
    for name, (class_name, own) in EQUIVALENTS[problem.task].items():
        ours = equivalent_options(own, problem.threshold)
        meant = options or (ours if ... in own.values() and problem.threshold == 0.5 else {})
        if class_name == metric.class_name and meant == ours:
            return name
    return "pr_auc" if metric.class_name == "AUCPrecisionRecall" and not options else None


def _per_slice(
    limits: Iterable[config_pb2.PerSliceMetricThreshold],
) -> Iterator[tuple[config_pb2.MetricThreshold, SliceSpec]]:
    for limit in limits:
        for spec in limit.slicing_specs:
            yield limit.threshold, _slice_spec(spec)


def _threshold(metric: str, shown: str, limit: config_pb2.MetricThreshold, slices: SliceSpec) -> Threshold:
    value, change = limit.value_threshold, limit.change_threshold
    return Threshold(
        metric,
        shown,
        slices,
        value.lower_bound.value if value.HasField("lower_bound") else None,
        value.upper_bound.value if value.HasField("upper_bound") else None,
        change.absolute.value if change.HasField("absolute") else None,
        change.relative.value if change.HasField("relative") else None,
        change.direction == config_pb2.LOWER_IS_BETTER,
    )
