"""``compression:`` of problem.yaml: smaller forms of the trained model, and how much worse each may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from tidemill.features import Strict
from tidemill.gates import FairnessMetric, QualityMetric
from tidemill.metrics import METRICS

ORIGINAL: Final = "original"


class MetricLoss(Strict):
    """How much worse than the original's a metric may be, on the same rows and in the metric's own unit."""

    metric: QualityMetric
    max_worse: float = Field(ge=0)
    slices: Literal["overall", "sensitive"] = "overall"
    min_examples: int = Field(default=50, ge=1, description="Smaller slices are shown and don't decide.")


class FairnessLoss(Strict):
    """How much further apart than by the original groups may lie: a larger gap, or a smaller ratio."""

    metric: FairnessMetric
    max_worse: float = Field(ge=0)
    over: tuple[str, ...] | None = Field(
        default=None, description="Columns of one entry of `sensitive`; all by default."
    )
    min_examples: int = Field(default=50, ge=1, description="Smaller groups are shown and don't decide.")


class Limits(Strict):
    """What a variant is held to. The network alone is measured; all variants share the transform graph."""

    metrics: tuple[MetricLoss, ...] = ()
    fairness: tuple[FairnessLoss, ...] = ()
    max_bytes: int | None = Field(default=None, ge=1, description="Of the network, gzipped.")
    max_bytes_ratio: float | None = Field(default=None, gt=0, description="Likewise, of what the original has.")
    max_latency_ratio: float | None = Field(
        default=None, gt=0, description="Median time of a single row, of what the original takes in the same process."
    )


class _Variant(Strict):
    limits: Limits | None = Field(default=None, description="Instead of `compression.limits`.")
    required: bool = Field(
        default=True, description="Whether a breach stops the release; else the variant alone is left out."
    )


class LiteRT(_Variant):
    """A file for LiteRT (TensorFlow Lite), for phones and small machines."""

    kind: Literal["litert"] = "litert"
    quantization: Literal["none", "float16", "dynamic", "int8"] = Field(
        default="float16",
        description="float16: weights of half the size. dynamic: weights of 8 bits. int8: the arithmetic too.",
    )
    representative_rows: int = Field(
        default=256, ge=16, description="Of int8: training rows that the ranges are taken from."
    )


class Onnx(_Variant):
    """A file for ONNX Runtime and other runtimes of the format."""

    kind: Literal["onnx"] = "onnx"
    opset: int = Field(default=18, ge=13, le=18)


class Pruned(_Variant):
    """The same network with its smallest weights at zero, trained on so that the others make up for them."""

    kind: Literal["pruned"] = "pruned"
    sparsity: float = Field(default=0.5, gt=0, lt=1, description="Share of each kernel and table that is zero.")
    epochs: int = Field(default=4, ge=1)
    end: float = Field(default=0.75, gt=0, le=1, description="Share of the steps after which nothing more is pruned.")
    every_steps: int = Field(default=20, ge=1, description="Steps from one pruning to the next.")
    learning_rate: float | None = Field(default=None, gt=0, description="A tenth of that of `training` by default.")


class Distilled(_Variant):
    """A smaller network that learns from what a larger one answers."""

    kind: Literal["distilled"] = "distilled"
    model: Literal["wide_and_deep", "linear", "deep_and_cross", "ft_transformer"] = "wide_and_deep"
    hidden_units: tuple[Annotated[int, Field(ge=1)], ...] = (16,)
    embedding_dimensions: int | None = Field(default=None, ge=1, description="From the vocabulary's size by default.")
    teacher: Literal["champion", "trained"] = Field(
        default="champion", description="The model in production, or the one just trained, which stands in for it."
    )
    temperature: float = Field(default=2.0, ge=1, description="How much the answers are softened (classification).")
    soft: float = Field(default=0.7, ge=0, le=1, description="Share of the teacher's answers in the loss.")
    epochs: int = Field(default=10, ge=1)
    learning_rate: float | None = Field(default=None, gt=0, description="That of `training` by default.")


Variant = Annotated[LiteRT | Onnx | Pruned | Distilled, Field(discriminator="kind")]
VariantName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")]


class Compression(Strict):
    """Smaller forms of the model, made, measured and judged after every training."""

    variants: Mapping[VariantName, Variant] = Field(min_length=1)
    limits: Limits = Limits()
    release: str = Field(
        default=ORIGINAL, description="The model that is evaluated and served: the original, or a variant."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Compression:
        faults = []
        if ORIGINAL in self.variants:
            faults.append(f"`variants` must not call one {ORIGINAL}, which is the model itself")
        released = self.variants.get(self.release)
        if self.release != ORIGINAL and released is None:
            faults.append(f"`release` names {self.release}; there are {', '.join((ORIGINAL, *self.variants))}")
        if isinstance(released, (LiteRT, Onnx)):
            faults.append(f"`release` must be {ORIGINAL} or a variant of kind pruned or distilled, not {released.kind}")
        elif released is not None and not released.required:
            faults.append(f"variants.{self.release} is released and can't be left out: `required` must be true")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def limits_of(self, name: str) -> Limits:
        """Returns what a variant is held to: its own limits, or those of all."""
        return self.variants[name].limits or self.limits

    def faults(self, task: str, sensitive: Sequence[Sequence[str]], resampled: bool) -> Iterator[str]:
        """Yields what can't be meant for a problem.

        Args:
            sensitive: its slices.
            resampled: whether training leaves out rows.
        """
        own = ((f"variants.{name}.limits", v.limits) for name, v in self.variants.items() if v.limits)
        for where, limits in (("limits", self.limits), *own):
            yield from (f"compression.{where}.{fault}" for fault in _undecidable(limits, task, sensitive))
        for name, variant in self.variants.items():
            if isinstance(variant, Distilled) and task == "regression" and "temperature" in variant.model_fields_set:
                yield f"compression.variants.{name}.temperature has no meaning for regression"
            if isinstance(variant, Pruned) and resampled:
                yield f"compression.variants.{name}: pruned trains on all rows, which training.resample leaves out"


def _undecidable(limits: Limits, task: str, sensitive: Sequence[Sequence[str]]) -> Iterator[str]:
    known = {tuple(sorted(key)) for key in sensitive}
    for i, loss in enumerate(limits.metrics):
        if loss.metric not in METRICS[task]:
            yield f"metrics.{i}: {task} has no {loss.metric}, only {', '.join(METRICS[task])}"
        elif METRICS[task][loss.metric].better == "neither":
            yield f"metrics.{i}: {loss.metric} has no better or worse"
        if loss.slices == "sensitive" and not sensitive:
            yield f"metrics.{i}: `slices: sensitive` needs `sensitive`"
    if limits.fairness and (task != "binary_classification" or not sensitive):
        yield "fairness needs binary_classification and `sensitive`"
        return
    for i, change in enumerate(limits.fairness):
        if change.over is not None and tuple(sorted(change.over)) not in known:
            yield f"fairness.{i}.over {list(change.over)} is not an entry of `sensitive`"
