"""A transformer over the features of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
from keras import layers, ops

from tidemill.train.architectures.columns import Inputs, l2, of_kind, symbolic_inputs
from tidemill.train.architectures.heads import compiled, prior
from tidemill.train.architectures.tables import BagEmbedding, JointEmbedding
from tidemill.train.architectures.towers import tower_columns
from tidemill.train.context import TrainContext
from tidemill.training import TOKEN_DIMENSIONS
from tidemill.transform.features import TransformedFeature


def ft_transformer(context: TrainContext) -> keras.Model:
    """Each feature is a token; blocks of attention let a start token gather what the answer takes.

    Source: Gorishniy et al. 2021 (FT-Transformer): feature tokenizer with biases, pre-norm blocks without the first
    norm, ReGLU of 4/3 the width, answer from the start token, for which alone the last block computes. Tokens are
    ``embedding_dimensions`` wide, 64 by default (192 in the paper, at nine times the time). A dense feature of several
    columns is one token.
    """
    training, inputs = context.training, symbolic_inputs(context)
    width = training.embedding_dimensions or TOKEN_DIMENSIONS
    tokens = Tokens(name="tokens")(_tokens(context, inputs, width))
    for i in range(training.transformer_blocks):
        tokens = _block(context, tokens, i)
    answer = layers.Activation("relu", name="answer")(layers.LayerNormalization(name="answer_norm")(tokens[:, 0]))
    return compiled(
        context, inputs, [layers.Dense(context.outputs, bias_initializer=prior(context), name="output")(answer)]
    )


def _tokens(context: TrainContext, inputs: Inputs, width: int) -> list[keras.KerasTensor]:
    """Returns the features' embeddings, each [batch, features, width]."""
    penalty = context.training.l2
    sizes: dict[int, list[TransformedFeature]] = {}
    for feature in of_kind(context, "dense"):
        sizes.setdefault(feature.size, []).append(feature)
    found = []
    for size, group in sorted(sizes.items()):
        stacked = ops.stack([ops.reshape(inputs[f.name], (-1, size)) for f in group], axis=1)
        # b: row, f: feature, s: column of the feature, w: column of the token
        to_tokens = layers.EinsumDense(
            "bfs,fsw->bfw",
            (len(group), width),
            None,
            None,
            _uniform(width),
            kernel_regularizer=l2(context),
            name=f"dense_{size}",
        )
        found.append(to_tokens(stacked))
    if ids := of_kind(context, "ids"):
        table = JointEmbedding(ids, width, penalty, _uniform(width), "embeddings")
        found.append(ops.reshape(table([inputs[f.name] for f in ids]), (-1, len(ids), width)))
    for i, feature in enumerate(of_kind(context, "bag")):
        bag = BagEmbedding(feature, width, penalty, _uniform(width), True, f"bag_embedding_{i}")
        found.append(ops.expand_dims(bag(inputs[feature.name]), 1))
    for i, column in enumerate(tower_columns(context, inputs)):
        token = layers.Dense(width, kernel_regularizer=l2(context), name=f"tower_token_{i}")(column)
        found.append(ops.expand_dims(token, 1))
    return found


def _uniform(width: int) -> keras.initializers.Initializer:
    """Returns what one weight begins with; an initializer that several had would give all of them the same numbers."""
    return keras.initializers.RandomUniform(-1 / math.sqrt(width), 1 / math.sqrt(width))


class Tokens(layers.Layer):
    """Puts a start token before the features' embeddings, and adds to each its feature's bias.

    Input: a list of [batch, features, width]. Output: [batch, 1 + all features, width].
    """

    def build(self, shapes: Sequence[tuple[int | None, ...]]) -> None:
        width, features = shapes[0][-1] or 1, sum(shape[1] or 0 for shape in shapes)
        self.token = self.add_weight(shape=(1, 1, width), initializer=_uniform(width), name="token")
        self.bias = self.add_weight(shape=(1, features, width), initializer=_uniform(width), name="bias")

    def call(self, embeddings: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        features = ops.concatenate(embeddings, axis=1) + self.bias
        start = ops.repeat(self.token, ops.shape(features)[0], axis=0)
        return ops.concatenate([start, features], axis=1)


def _block(context: TrainContext, tokens: keras.KerasTensor, i: int) -> keras.KerasTensor:
    """Returns the tokens after attention and a feed-forward network; of the last block only the start token."""
    training, width = context.training, tokens.shape[-1]
    attended = layers.LayerNormalization(name=f"attention_norm_{i}")(tokens) if i else tokens
    last = i + 1 == training.transformer_blocks
    asking, kept = (attended[:, :1], tokens[:, :1]) if last else (attended, tokens)
    attention = layers.MultiHeadAttention(
        training.attention_heads,
        width // training.attention_heads,
        dropout=training.dropout,
        kernel_regularizer=l2(context),
        name=f"attention_{i}",
    )
    kept = layers.Add(name=f"attended_{i}")([kept, attention(asking, attended)])
    hidden = layers.LayerNormalization(name=f"feed_forward_norm_{i}")(kept)
    units = width * 4 // 3
    opened = layers.Dense(units, "relu", kernel_regularizer=l2(context), name=f"gate_{i}")(hidden)
    hidden = layers.Dense(units, kernel_regularizer=l2(context), name=f"hidden_{i}")(hidden)
    hidden = layers.Multiply(name=f"gated_{i}")([opened, hidden])
    if training.dropout:
        hidden = layers.Dropout(training.dropout, name=f"dropout_{i}")(hidden)
    hidden = layers.Dense(width, kernel_regularizer=l2(context), name=f"output_{i}")(hidden)
    return layers.Add(name=f"block_{i}")([kept, hidden])
