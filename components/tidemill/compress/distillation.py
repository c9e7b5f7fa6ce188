"""A small network that learns from a teacher's answers.

Source: Hinton, Vinyals & Dean 2015, "Distilling the knowledge in a neural network": the loss is a mean of the cross
entropy with the labels and of that with the teacher's answers, both answers softened by a temperature; the latter is
multiplied by the temperature squared, so that its gradients keep their size (section 2). For regression it is the
squared distance from the teacher's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tidemill.artifacts import parts
from tidemill.errors import TidemillError
from tidemill.evaluate.evaluation import Inputs
from tidemill.evaluate.scoring import SCORES, Model
from tidemill.train.models import call_model
from tidemill.transform.features import TransformedFeature, TransformedFeatures

ANSWER: Final = "__teacher__"
_EPSILON: Final = 1e-7  # Keras' clip of probabilities


@dataclass(frozen=True)
class Teacher:
    """Who teaches.

    Attributes:
        who: champion or trained.
        model: its artefact.
        digest: of its SavedModel.
        reason: why it is not the champion, where that was asked for.
    """

    who: str
    model: Path
    digest: str
    reason: str = ""

    @classmethod
    def chosen(cls, wanted: str, inputs: Inputs, trained: Path, champion: Path) -> Teacher:
        """Returns the champion if it is wanted and can teach, else the trained model."""
        current = inputs.champion
        if wanted == "champion" and current is not None and not inputs.incomparable:
            return cls("champion", champion, current.digest)
        reason = (inputs.incomparable or "no champion yet") if wanted == "champion" else ""
        return cls("trained", trained, inputs.candidate.digest, reason)

    @property
    def about(self) -> dict[str, str]:
        return {"teacher": self.who, "teacher_digest": self.digest, "teacher_reason": self.reason}


def teach(
    teacher: Teacher, inputs: Inputs, examples: Path, transformed: Path, described: TransformedFeatures, taught: Path
) -> TransformedFeatures:
    """Writes the transformed train and eval split with the teacher's answer to each row beside.

    Args:
        examples: the raw rows, part by part those of ``transformed``.
        taught: directory for the splits.

    Returns:
        What ``taught`` holds: the features, and :data:`ANSWER`, float32, as wide as an output.

    Raises:
        TidemillError: if the rows of the two aren't the same in the same order.
    """
    model, score = Model(str(teacher.model)), SCORES[described.task]
    width = len(described.classes) if described.task == "multiclass_classification" else 1
    for split in ("train", "eval"):
        (taught / split).mkdir(parents=True)
        for part in parts(transformed, split):
            labels, answers = _answers(examples / split / part.name, model, score, inputs)
            _write(part, taught / split / part.name, labels, answers, described.label)
    answer = TransformedFeature(ANSWER, "dense", width, 0, ANSWER)
    return replace(described, features=(*described.features, answer))


def _answers(raw: Path, model: Model, score: str, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels, float64 [rows], and the teacher's answers, float32 [rows] or [rows, classes], of a part."""
    labels, answers = [], []
    with pq.ParquetFile(raw, pre_buffer=False) as file:
        for batch in file.iter_batches():
            labels.append(inputs.reader.labels(batch))
            answers.append(model.predict(batch)[score].astype(np.float32))
    return np.concatenate(labels), np.concatenate(answers)


def _write(part: Path, target: Path, labels: np.ndarray, answers: np.ndarray, label: str) -> None:
    with pq.ParquetFile(part, pre_buffer=False) as file:
        if file.metadata.num_rows != len(labels):
            _misaligned(part, f"{file.metadata.num_rows} rows instead of {len(labels)}")
        first = 0
        schema = file.schema_arrow.append(pa.field(ANSWER, _arrow(answers[:0]).type))
        with pq.ParquetWriter(target, schema) as writer:
            for i in range(file.num_row_groups):
                table = file.read_row_group(i)
                rows = slice(first, first + table.num_rows)
                found = table.column(label).to_numpy().astype(np.float64)
                if not np.allclose(found, labels[rows], rtol=1e-5, atol=1e-5):  # one of them was float32
                    _misaligned(part, "other labels")
                writer.write_table(table.append_column(ANSWER, _arrow(answers[rows])))
                first += table.num_rows


def _arrow(answers: np.ndarray) -> pa.Array:
    flat = pa.array(answers.reshape(-1))
    return flat if answers.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, answers.shape[1])


def _misaligned(part: Path, got: str) -> None:
    where = f"transformed examples: {part.parent.name}/{part.name}"
    raise TidemillError(where, "must have the rows of the raw part of that name, in their order", got)


@keras.saving.register_keras_serializable("tidemill")
class Student(keras.Model):
    """A network while it learns from the answers beside its features.

    Args:
        network: compiled; what is kept in the end.
        task: the problem's.
        temperature: softens both answers; 1 leaves them as they are.
        soft: share of the teacher in the loss.
    """

    def __init__(self, network: keras.Model, task: str, temperature: float, soft: float) -> None:
        super().__init__(name="student")
        self.network, self._task, self._temperature, self._soft = network, task, temperature, soft

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        return call_model(self.network, inputs, training)

    def compute_loss(
        self,
        x: Mapping[str, Any] | None = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        assert x is not None
        hard = self.network.compute_loss(x, y, y_pred, sample_weight, training)
        soft = distance(self._task, x[ANSWER], y_pred, self._temperature)
        weighted = soft if sample_weight is None else soft * tf.reshape(sample_weight, [-1])
        return (1 - self._soft) * hard + self._soft * tf.reduce_mean(weighted)


def distance(task: str, teacher: Any, student: Any, temperature: float) -> Any:
    """Returns how far a student's answers are from its teacher's, float32 [batch].

    Args:
        teacher: [batch] or [batch, outputs].
        student: [batch, outputs].
    """
    teacher = tf.reshape(teacher, tf.shape(student))
    if task == "regression":
        return tf.square(teacher - student)[:, 0]
    teacher, student = (tf.clip_by_value(value, _EPSILON, 1 - _EPSILON) for value in (teacher, student))
    if task == "binary_classification":
        first, second = (tf.math.log(p / (1 - p)) / temperature for p in (teacher, student))
        found = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.sigmoid(first), logits=second)[:, 0]
    else:
        first, second = (tf.math.log(p) / temperature for p in (teacher, student))
        found = tf.nn.softmax_cross_entropy_with_logits(labels=tf.nn.softmax(first), logits=second)
    return temperature**2 * found
