"""A tiny model whose answer is a known function of every input, so that no answer can be another row's unnoticed.

Also a script, for tests of environments without tensorflow: ``python toy.py DIRECTORY...`` (of shift 0, 1 …).
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tidemill.artifacts import SAVED_MODEL, ModelManifest
from tidemill.files import digest_tree

INPUTS = {"age": "float32", "hours": "int64", "job": "string"}
CLASSES = ("<=50K", ">50K")
_LEAST = np.iinfo(np.int64).min


def probability(instance: dict[str, Any], shift: float) -> float:
    """Returns what the model answers to an instance."""
    age, hours, job = (instance.get(name) for name in INPUTS)
    logit = shift + (age or 0.0) / 100 + (hours or 0) / 1000 + len((job or "").encode()) / 10
    return 1 / (1 + math.exp(-logit))


class Toy(tf.Module):
    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = tf.Variable(shift, dtype=tf.float32)

    def logit(self, age: tf.Tensor, hours: tf.Tensor, job: tf.Tensor) -> tf.Tensor:
        age = tf.where(tf.math.is_nan(age), 0.0, age)
        hours = tf.where(hours == _LEAST, tf.constant(0, tf.int64), hours)
        length = tf.cast(tf.strings.length(job), tf.float32)
        return self.shift + age / 100 + tf.cast(hours, tf.float32) / 1000 + length / 10

    def answer(self, logit: tf.Tensor) -> dict[str, tf.Tensor]:
        probability = tf.sigmoid(logit)
        return {"probability": probability, "label": tf.where(probability >= 0.5, *reversed(CLASSES))}

    def signatures(self) -> dict[str, Any]:
        raw = [tf.TensorSpec([None], tf.as_dtype(dtype), name=name) for name, dtype in INPUTS.items()]
        examples = [tf.TensorSpec([None], tf.string, name="examples")]
        absent = {"age": math.nan, "hours": _LEAST, "job": ""}
        features = {name: tf.io.FixedLenFeature([], tf.as_dtype(INPUTS[name]), absent[name]) for name in INPUTS}

        @tf.function(input_signature=raw)
        def serving_default(age: tf.Tensor, hours: tf.Tensor, job: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.answer(self.logit(age, hours, job))

        @tf.function(input_signature=examples)
        def serving_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.answer(self.logit(**tf.io.parse_example(examples, features)))

        @tf.function(input_signature=raw)
        def transform_features(age: tf.Tensor, hours: tf.Tensor, job: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"z": self.logit(age, hours, job)}

        functions = (serving_default, serving_examples, transform_features)
        return {function.__name__: function for function in functions}


def export(directory: Path, shift: float, name: str = "toy", classes: tuple[str, ...] = CLASSES) -> Path:
    """Writes a model artefact and returns its directory."""
    module = Toy(shift)
    signatures = module.signatures()
    tf.saved_model.save(module, str(directory / SAVED_MODEL), signatures=signatures)
    ModelManifest(
        name=name,
        task="binary_classification",
        classes=classes,
        threshold=0.5,
        inputs=INPUTS,
        outputs={"probability": "float32", "label": "string"},
        signatures=tuple(signatures),
        digest=digest_tree(directory / SAVED_MODEL),
        framework={"tensorflow": tf.__version__},
    ).write(directory)
    return directory


if __name__ == "__main__":
    for number, target in enumerate(sys.argv[1:]):
        export(Path(target), float(number))
