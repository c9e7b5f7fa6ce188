"""``training:`` of problem.yaml: how the default models are built, and how any model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from tidemill.features import Strict

TOKEN_DIMENSIONS: Final = 64
"""How wide the tokens of ft_transformer are where `embedding_dimensions` doesn't say it."""
Strategy = Literal["auto", "default", "mirrored", "multi_worker_mirrored", "tpu", "parameter_server"]


class Optimizer(Strict):
    """What moves the weights. A user's model that is compiled with its own optimizer keeps that one."""

    kind: Literal["adam", "adamw", "sgd", "adagrad", "rmsprop", "lion"] = "adam"
    momentum: float = Field(default=0.0, ge=0, lt=1, description="Of sgd and rmsprop.")
    weight_decay: float = Field(
        default=0.0, ge=0, description="Of adamw, lion and sgd: share of a weight that a step takes, times the rate."
    )
    clip_norm: float | None = Field(default=None, gt=0, description="The largest norm of all gradients together.")
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Momentum of a moving average of the weights, which is what is evaluated and exported.",
    )
    accumulate_steps: int = Field(
        default=1,
        ge=1,
        description="Parts of a batch that are computed one after the other and make one update: for batches larger "
        "than the memory.",
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> Optimizer:
        takers = {"momentum": ("sgd", "rmsprop"), "weight_decay": ("adamw", "lion", "sgd")}
        foreign = [name for name, kinds in takers.items() if name in self.model_fields_set and self.kind not in kinds]
        if foreign:
            raise ValueError(f"{self.kind} has no {' and no '.join(foreign)}")
        return self


class Schedule(Strict):
    """The learning rate over the steps of a training, as many as are taken without early stopping."""

    kind: Literal["constant", "cosine", "exponential", "linear"] = "constant"
    warmup_steps: int = Field(default=0, ge=0, description="Steps in which the rate grows from 0.")
    final: float = Field(default=0.0, ge=0, le=1, description="Share of the rate that is left in the end.")

    @model_validator(mode="after")
    def _final_of_a_decay(self) -> Schedule:
        if self.kind == "constant" and "final" in self.model_fields_set:
            raise ValueError("a constant rate has no `final`")
        if self.kind == "exponential" and self.final == 0:
            raise ValueError("an exponential decay needs `final` > 0, which it never reaches otherwise")
        return self


class FineTuning(Strict):
    """Which weights of the model that a training starts from stay as they are."""

    freeze: tuple[str, ...] = Field(default=(), description="Patterns of layer names, as in the shell: `hidden_*`.")
    unfreeze_after_epochs: int | None = Field(default=None, ge=1, description="From when on all layers are trained.")

    @model_validator(mode="after")
    def _something_to_unfreeze(self) -> FineTuning:
        if self.unfreeze_after_epochs is not None and not self.freeze:
            raise ValueError("`unfreeze_after_epochs` needs `freeze`")
        return self


class Training(Strict):
    """How the default model is built and any model is trained."""

    model: Literal["wide_and_deep", "linear", "deep_and_cross", "ft_transformer"] = "wide_and_deep"
    hidden_units: tuple[Annotated[int, Field(ge=1)], ...] = (64, 32)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    embedding_dimensions: int | None = Field(default=None, ge=1, description="From the vocabulary's size by default.")
    cross_layers: int = Field(default=2, ge=1, description="Of deep_and_cross: the degree of its products, less one.")
    transformer_blocks: int = Field(default=3, ge=1, description="Of ft_transformer.")
    attention_heads: int = Field(default=8, ge=1, description="Of ft_transformer; they share embedding_dimensions.")
    learning_rate: float = Field(default=3e-3, gt=0)
    learning_rate_scaling: Literal["none", "linear", "sqrt"] = Field(
        default="none", description="How the rate grows with the replicas; for use with `per_replica_batch_size`."
    )
    schedule: Schedule = Schedule()
    optimizer: Optimizer = Optimizer()
    l2: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=256, ge=1, description="Examples per step over all replicas.")
    per_replica_batch_size: int | None = Field(
        default=None, ge=1, description="Instead of batch_size: the batch grows with the replicas."
    )
    max_epochs: int = Field(default=20, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    early_stopping_patience: int | None = Field(default=3, ge=1, description="Epochs; null trains to the end.")
    class_weights: Literal["balanced"] | Mapping[str, float] | None = None
    focal_gamma: float | None = Field(
        default=None, gt=0, description="Focal loss: how much less the examples that are already right count."
    )
    resample: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the smallest class in what is trained on, by leaving out rows of the larger ones, others "
        "in every epoch; probabilities are corrected.",
    )
    start_from: str | None = Field(
        default=None,
        pattern=r"^(champion|([a-z][a-z0-9+.-]*:/)?/.+)$",
        description="What to take weights from: `champion`, or path or URI of a model artefact, SavedModel, .keras or "
        ".weights.h5 file, ending in `#sha256=` and the digest of what lies there.",
    )
    fine_tuning: FineTuning = FineTuning()
    strategy: Strategy = "auto"
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    xla: bool = False
    steps_per_execution: int | None = Field(
        default=None, ge=1, description="Steps in one call of TensorFlow; as many as there are by default."
    )
    checkpoint_every_steps: int = Field(default=500, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    checkpoint_uri: str | None = Field(
        default=None,
        pattern=r"^\w+://.+",
        description="Where checkpoints go, such as gs://bucket/directory; beside the task's other files by default.",
    )
    hang_timeout_s: int = Field(
        default=600, ge=10, description="A worker that takes no step for so long is told by name, and all start again."
    )
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_batch_size(self) -> Training:
        if self.per_replica_batch_size is not None and "batch_size" in self.model_fields_set:
            raise ValueError("give `batch_size` (of all replicas) or `per_replica_batch_size`, not both")
        return self

    @model_validator(mode="after")
    def _heads_share_evenly(self) -> Training:
        width = self.embedding_dimensions or TOKEN_DIMENSIONS
        if self.model == "ft_transformer" and width % self.attention_heads:
            raise ValueError(
                f"`embedding_dimensions` ({width}) must be a multiple of `attention_heads` ({self.attention_heads})"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_balance(self) -> Training:
        if self.resample is not None and self.class_weights is not None:
            raise ValueError("give `class_weights` or `resample`, not both")
        return self

    @model_validator(mode="after")
    def _freezes_what_it_was_given(self) -> Training:
        if self.fine_tuning.freeze and self.start_from is None:
            raise ValueError("`fine_tuning.freeze` needs `start_from`: what nobody has trained is no use frozen")
        return self
