"""What the page reads of each artefact: the stages' own formats, reduced to what is shown.

A key that is not listed here is not looked at. A key with a default may be absent, and then what it would show is left
out. Anything else that doesn't fit makes the document unreadable, which the page says where the reader sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Lenient(BaseModel):
    """Frozen; ignores keys that it doesn't know, so that stages may add to their artefacts."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _strings(value: Any) -> Any:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, Mapping) else value


SliceKey = Annotated[dict[str, str], BeforeValidator(_strings)]
"""Value by column; empty for the whole."""


class Check(Lenient):
    """See :class:`tidemill.decisions.Check`."""

    name: str
    passed: bool
    expected: str = ""
    got: str = ""
    message: str = ""
    value: float | None = None
    limit: float | None = None
    slice: SliceKey = {}
    blocking: bool = True


class Decision(Lenient):
    """See :class:`tidemill.decisions.Decision`."""

    gate: str
    checks: tuple[Check, ...] = ()


class Judged(Lenient):
    """An evidence artefact, whatever else it holds."""

    decision: Decision


class Examples(Lenient):
    """``examples/manifest.json``; see :class:`tidemill.artifacts.ExamplesManifest`."""

    rows: dict[str, int]
    columns: dict[str, str] = {}
    classes: tuple[str, ...] = ()
    files: dict[str, dict[str, Any]] = {}
    source: dict[str, Any] = {}
    duplicates: int = 0
    quarantined: int = 0


class Histogram(Lenient):
    """``counts[i]`` rows lie between ``edges[i]`` and ``edges[i + 1]``."""

    edges: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Histogram:
        if self.counts and len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"{len(self.counts)} counts need as many edges and one, not {len(self.edges)}")
        return self


class FeatureStatistics(Lenient):
    """One column in one split; ``count`` and ``missing`` are rows, ``missing_share`` is of 1."""

    count: float = 0
    missing_share: float | None = None
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    unique: int | None = None
    histogram: Histogram = Histogram()
    top: tuple[tuple[str, float], ...] = ()


class LabelStatistics(Lenient):
    """How the label is distributed: shares by class, or a mean for regression."""

    shares: dict[str, float | None] = {}
    positive_rate: float | None = None
    mean: float | None = None


class SliceStatistics(Lenient):
    slice: SliceKey
    rows: int
    label: LabelStatistics = LabelStatistics()


class SplitStatistics(Lenient):
    rows: int = 0
    label: LabelStatistics = LabelStatistics()
    features: dict[str, FeatureStatistics] = {}
    slices: tuple[SliceStatistics, ...] = ()


class Column(Lenient):
    type: str = ""
    read: bool = True


class LabelColumn(Lenient):
    column: str = ""
    classes: tuple[str, ...] = ()


class Statistics(Lenient):
    """``statistics/summary.json``; see ``tidemill.validate.summary``."""

    schema_source: str = Field(default="", alias="schema")
    label: LabelColumn = LabelColumn()
    columns: dict[str, Column] = {}
    splits: dict[str, SplitStatistics] = {}


class Anomaly(Lenient):
    column: str = ""
    type: str = ""
    split: str = ""
    environment: str = ""
    severity: str = ""
    description: str = ""

    @property
    def blocking(self) -> bool:
        return self.severity == "error"


class Distance(Lenient):
    """How far one column has moved; ``allowance`` is what chance may add to the limit."""

    column: str
    value: float | None = None
    limit: float | None = None
    allowance: float = 0.0
    measure: str = ""
    where: str = ""
    exceeded: bool = False

    @property
    def bound(self) -> float | None:
        return None if self.limit is None else self.limit + self.allowance


class Anomalies(Judged):
    """``anomalies/anomalies.json``; see ``tidemill.validate.run``."""

    anomalies: tuple[Anomaly, ...] = ()
    skew: tuple[Distance, ...] = ()
    drift: tuple[Distance, ...] = ()


class Epoch(Lenient):
    """Loss and metrics by split."""

    epoch: int
    train: dict[str, float | None] = {}
    eval: dict[str, float | None] = {}
    seconds: float = 0
    examples_per_second: float | None = None


class History(Lenient):
    """``history/history.json``."""

    model: str = ""
    epochs: tuple[Epoch, ...] = ()
    steps: int | None = None
    kept_epoch: int | None = None
    stopped: str | None = None


class SearchTrial(Lenient):
    """One trial of a tuning; ``settings`` are all that was searched, the problem's own where it says nothing."""

    number: int
    state: str = ""
    reason: str = ""
    hyperparameters: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    rung: int = 0
    epochs: int = 0
    value: float | None = None
    gap: float | None = None
    seconds: float = 0


class SearchFairness(Lenient):
    metric: str
    max: float | None = None


class SearchPruning(Lenient):
    factor: int = 3


class SearchFolds(Lenient):
    folds: int = 0


class Tuning(Lenient):
    """``tuning/tuning.json``."""

    best: int
    objective: str
    value: float
    own_value: float | None = None
    own_epochs: int = 0
    gap: float | None = None
    maximize: bool = False
    sampler: str = ""
    seed: int = 0
    stopped: str = ""
    train_s: float = 0
    cost: float | None = None
    rungs: tuple[int, ...] = ()
    pruning: SearchPruning = SearchPruning()
    fairness: SearchFairness | None = None
    cross_validation: SearchFolds | None = None
    front: tuple[int, ...] = ()
    importance: dict[str, float] = {}
    log: tuple[str, ...] = ()
    all: tuple[SearchTrial, ...] = ()


class Estimate(Lenient):
    """A value with its interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class SliceMetrics(Lenient):
    slice: SliceKey = {}
    count: float
    values: dict[str, Estimate] = {}


class FairnessGroup(Lenient):
    slice: SliceKey
    count: float = 0
    small: bool = False
    rates: dict[str, Estimate] = {}


class Disparity(Estimate):
    rate: str = ""
    lowest: SliceKey | None = None
    highest: SliceKey | None = None


class Fairness(Lenient):
    """The groups of one sensitive key, and how far they lie apart."""

    over: tuple[str, ...]
    min_examples: int | None = None
    groups: tuple[FairnessGroup, ...] = ()
    metrics: dict[str, Disparity] = {}


class CalibrationBin(Lenient):
    weight: float = 0
    mean_prediction: float | None = None
    mean_label: float | None = None
    label_low: float | None = None
    label_high: float | None = None


class Calibration(Lenient):
    bins: tuple[CalibrationBin, ...] = ()


class Roc(Lenient):
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


class PrecisionRecall(Lenient):
    recall: tuple[float, ...]
    precision: tuple[float, ...]


class Confusion(Lenient):
    """``matrix[actual][predicted]``, in the order of ``classes``."""

    classes: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]


class Difference(Estimate):
    """A rival's value; the difference is candidate minus rival, and the interval is the difference's."""

    difference: float | None = None


class RivalSlice(Lenient):
    slice: SliceKey = {}
    values: dict[str, Difference] = {}


class Rival(Lenient):
    """The baseline rule or the champion."""

    rule: str = ""
    digest: str = ""
    comparable: bool = True
    reason: str = ""
    metrics: tuple[RivalSlice, ...] = ()


class Evaluation(Lenient):
    """``evaluation/metrics.json``; see ``tidemill.evaluate.outputs``."""

    task: str = ""
    threshold: float | None = None
    confidence: float = 0.95
    metrics: tuple[SliceMetrics, ...]
    fairness: tuple[Fairness, ...] = ()
    calibration: Calibration | None = None
    roc: Roc | None = None
    pr: PrecisionRecall | None = None
    confusion: Confusion | None = None
    baseline: Rival | None = None
    champion: Rival | None = None

    @property
    def whole(self) -> SliceMetrics | None:
        """The metrics over all rows of the test split."""
        return next((m for m in self.metrics if not m.slice), None)


class CompressedEstimate(Estimate):
    change: Difference | None = None


class CompressedSlice(Lenient):
    slice: SliceKey = {}
    sensitive: bool = False
    count: float = 0
    values: dict[str, CompressedEstimate] = {}


class CompressedGroup(Lenient):
    slice: SliceKey = {}
    count: float = 0
    rates: dict[str, Difference] = {}


class CompressedFairness(Lenient):
    min_examples: int | None = None
    groups: tuple[CompressedGroup, ...] = ()


class CallLatency(Lenient):
    p50_ms: float | None = None
    p99_ms: float | None = None


class CompressedModel(Lenient):
    """A variant of the model, or the original."""

    kind: str = ""
    settings: dict[str, Any] = {}
    required: bool = True
    passed: bool = True
    gzip_bytes: int = 0
    latency: dict[str, CallLatency] = {}
    metrics: tuple[CompressedSlice, ...] = ()
    fairness: tuple[CompressedFairness, ...] = ()
    sparsity: float | None = None
    teacher: str = ""

    @property
    def whole(self) -> dict[str, Difference]:
        """The metrics over all rows of the test split; the difference is from the original's."""
        found = next((m.values for m in self.metrics if not m.slice), {})
        changes = {name: each.change or Difference() for name, each in found.items()}
        return {
            name: Difference(value=each.value, difference=by.difference, low=by.low, high=by.high)
            for (name, each), by in zip(found.items(), changes.values(), strict=True)
        }


class Compression(Lenient):
    """``compressed/manifest.json``; see ``tidemill.compress``."""

    rows: int = 0
    measured_on: str = ""
    release: str = "original"
    models: dict[str, CompressedModel]


class LatencyBin(Lenient):
    from_ms: float
    to_ms: float | None = None
    requests: int


class Latencies(Lenient):
    requests: int = 0
    histogram: tuple[LatencyBin, ...] = ()
    method: str = ""


class Budget(Lenient):
    p50_ms: float | None = None
    p99_ms: float | None = None


class Rehearsal(Judged):
    """``rehearsal/rehearsal.json``; see ``tidemill.rehearse.run``."""

    rows: int | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_difference: float | None = None
    tolerance: float | None = None
    startup_s: float | None = None
    budget: Budget = Budget()
    latencies: Latencies | None = None


class Registered(Lenient):
    """``registered/registered.json``."""

    name: str = ""
    version: str | int = ""
    path: str = ""


class Model(Lenient):
    """``model/model.json``; see :class:`tidemill.artifacts.ModelManifest`."""

    name: str
    task: str = ""
    classes: tuple[str, ...] = ()
    threshold: float | None = None
    signatures: tuple[str, ...] = ()
    digest: str = ""
    framework: dict[str, Any] = {}
    lineage: dict[str, Any] = {}


class Deployment(Lenient):
    """``deployment/deployment.json``; see ``tidemill.deploy.run``."""

    version: str | int = ""
    address: str = ""
    former: str | int | None = None
    traffic: Mapping[str, int] = {}
    curl: str = ""
    answer: Any = None
