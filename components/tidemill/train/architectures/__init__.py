"""The models of a problem that brings none of its own, by the name that `training.model` gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras

from tidemill.train.architectures.deep_and_cross import deep_and_cross
from tidemill.train.architectures.ft_transformer import ft_transformer
from tidemill.train.architectures.linear import linear
from tidemill.train.architectures.wide_and_deep import wide_and_deep
from tidemill.train.context import TrainContext

ARCHITECTURES: Mapping[str, Callable[[TrainContext], keras.Model]] = {
    "wide_and_deep": wide_and_deep,
    "linear": linear,
    "deep_and_cross": deep_and_cross,
    "ft_transformer": ft_transformer,
}
