"""What the page reads of each artefact: the stages' own formats, reduced to what is shown.

A key that is not listed here is not looked at. A key with a default may be absent, and then what it would show is left
out. Anything else that doesn't fit makes the document unreadable, which the page says where the reader sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


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


class Bin(Lenient):
    low: float
    high: float
    count: float


class TopValue(Lenient):
    value: str
    count: float


class FeatureStatistics(Lenient):
    """One feature in one split."""

    type: str = ""
    count: float = 0
    missing: float = Field(default=0, description="Share of the rows, 0 to 1.")
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    median: float | None = None
    max: float | None = None
    unique: int | None = None
    histogram: tuple[Bin, ...] = ()
    top_values: tuple[TopValue, ...] = ()


class SplitStatistics(Lenient):
    rows: int = 0
    features: dict[str, FeatureStatistics] = {}


class SliceStatistics(Lenient):
    slice: SliceKey
    rows: int
    label_rate: float | None = None


class Statistics(Lenient):
    """``statistics/summary.json``."""

    splits: dict[str, SplitStatistics] = {}
    slices: tuple[SliceStatistics, ...] = ()


class Anomaly(Lenient):
    column: str = ""
    type: str = ""
    blocking: bool = True
    message: str = ""


class Distance(Lenient):
    column: str
    value: float
    limit: float | None = None
    measure: str = ""


class Anomalies(Judged):
    """``anomalies/anomalies.json``."""

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
    best_epoch: int | None = None
    stopped: str | None = None


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
    value: float | None = None
    low: float | None = None
    high: float | None = None


class Fairness(Lenient):
    metric: str
    over: tuple[str, ...] = ()
    value: float | None = None
    groups: tuple[FairnessGroup, ...] = ()


class CalibrationBin(Lenient):
    low: float = 0
    high: float = 1
    count: float = 0
    mean_prediction: float | None = None
    mean_label: float | None = None


class Confusion(Lenient):
    labels: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]


class Evaluation(Lenient):
    """``evaluation/metrics.json``."""

    metrics: tuple[SliceMetrics, ...]
    fairness: tuple[Fairness, ...] = ()
    calibration: tuple[CalibrationBin, ...] = ()
    roc: tuple[tuple[float, float], ...] = ()
    pr: tuple[tuple[float, float], ...] = ()
    confusion: Confusion | None = None
    baseline: dict[str, float | None] = {}
    champion: dict[str, float | None] = {}


class Rehearsal(Judged):
    """``rehearsal/rehearsal.json``."""

    latencies_ms: tuple[float, ...] = ()
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_difference: float | None = None


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
    """``deployment/deployment.json``."""

    address: str = ""
    curl: str = ""
    version: str | int = ""
