"""The kinds of feature that a problem can name, and how each is transformed by default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Strict(BaseModel):
    """A frozen model that takes no key that it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Sourced(Strict):
    column: str | None = Field(default=None, description="The source column, when it isn't named like the feature.")


class Numeric(_Sourced):
    """A number, scaled over the full training split; a missing value becomes the mean and raises a flag."""

    kind: Literal["numeric"] = "numeric"
    scale: Literal["z_score", "min_max", "log_z_score", "none"] = "z_score"


class Bucketized(_Sourced):
    """A number cut at the quantiles of the training split; missing values have a bucket of their own."""

    kind: Literal["bucketized"] = "bucketized"
    buckets: int = Field(default=10, ge=2, le=10_000)


class Categorical(_Sourced):
    """A string or integer out of a set, mapped through a vocabulary; missing is a category of its own."""

    kind: Literal["categorical"] = "categorical"
    max_vocabulary: int = Field(default=1000, ge=1)
    min_frequency: int = Field(default=1, ge=1, description="Rarer values go out of vocabulary.")
    oov_buckets: int = Field(default=1, ge=1)


class Text(_Sourced):
    """Free text: lower-cased words through a vocabulary, as a bag of words or in their order."""

    model_config = ConfigDict(serialize_by_alias=True)

    kind: Literal["text"] = "text"
    form: Literal["bag", "sequence"] = Field(
        default="bag", alias="as", description="Whether models are to read the order of the words."
    )
    max_vocabulary: int = Field(default=5000, ge=1)
    oov_buckets: int = Field(default=10, ge=1)
    max_words: int = Field(default=32, ge=1, description="Words beyond this many are dropped.")


class Image(_Sourced):
    """A picture as JPEG or PNG in base64, brought to one size; a missing or unreadable one is black.

    Models get float32 from 0 to 255, as Keras' own loaders give them.
    """

    kind: Literal["image"] = "image"
    height: int = Field(default=32, ge=8, le=512)
    width: int = Field(default=32, ge=8, le=512)
    channels: Literal[1, 3] = 3
    flip: bool = Field(default=True, description="Whether the default models see mirrored pictures in training too.")


class Date(_Sourced):
    """A moment, taken apart into cyclic parts (each as sine and cosine)."""

    kind: Literal["date"] = "date"
    format: Literal["epoch_s", "epoch_ms", "iso8601"] = "epoch_s"
    parts: tuple[Literal["hour", "weekday", "day", "month", "year_day"], ...] = ("hour", "weekday", "month")


class Crossed(Strict):
    """The combination of several columns, hashed."""

    kind: Literal["crossed"] = "crossed"
    of: tuple[str, ...] = Field(min_length=2)
    hash_buckets: int = Field(default=1000, ge=2)


def _expand(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


_InFull = Annotated[Numeric | Bucketized | Categorical | Text | Image | Date | Crossed, Field(discriminator="kind")]
_KindAlone = Literal["numeric", "bucketized", "categorical", "text", "image", "date"]
Feature = Annotated[_InFull, BeforeValidator(_expand, json_schema_input_type=_KindAlone | _InFull)]
"""A feature, written in full (``{kind: bucketized, buckets: 10}``) or as its kind alone (``numeric``)."""


def source_columns(name: str, feature: Feature) -> tuple[str, ...]:
    """Returns the raw columns that the feature ``name`` reads."""
    if isinstance(feature, Crossed):
        return feature.of
    return (feature.column or name,)
