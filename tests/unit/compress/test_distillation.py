"""Distillation: the loss is the paper's, answers stand beside the rows that they are of, the teacher is as told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tidemill.artifacts import parts
from tidemill.compress.distillation import ANSWER, Teacher, distance, teach
from tidemill.errors import TidemillError
from tidemill.evaluate.scoring import Model
from tidemill.transform.features import TransformedFeatures


def _sigmoid(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-value))


def test_the_distance_of_probabilities_is_the_cross_entropy_of_both_softened():
    teacher, student, temperature = np.array([0.9, 0.2, 0.5]), np.array([0.6, 0.1, 0.7]), 3.0
    p, q = (_sigmoid(np.log(value / (1 - value)) / temperature) for value in (teacher, student))
    expected = -(temperature**2) * (p * np.log(q) + (1 - p) * np.log(1 - q))
    tensors = tf.constant(teacher, tf.float32), tf.constant(student[:, None], tf.float32)
    np.testing.assert_allclose(distance("binary_classification", *tensors, temperature), expected, rtol=1e-4)


def test_the_distance_of_many_classes_is_that_of_softened_softmaxes():
    teacher, student = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]), np.array([[0.5, 0.3, 0.2], [0.3, 0.3, 0.4]])

    def softened(value: np.ndarray) -> np.ndarray:
        raised = value ** (1 / 2.0)
        return raised / raised.sum(axis=1, keepdims=True)

    expected = -4.0 * (softened(teacher) * np.log(softened(student))).sum(axis=1)
    tensors = tf.constant(teacher, tf.float32), tf.constant(student, tf.float32)
    np.testing.assert_allclose(distance("multiclass_classification", *tensors, 2.0), expected, rtol=1e-4)


def test_the_gradient_of_certain_answers_is_finite():
    student = tf.constant([[1.0], [0.0], [0.5]])
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = tf.reduce_sum(distance("binary_classification", tf.constant([0.0, 1.0, 1.0]), student, 1.0))
    assert np.isfinite(loss.numpy())
    assert np.isfinite(tape.gradient(loss, student).numpy()).all()


def test_the_distance_of_values_is_squared():
    found = distance("regression", tf.constant([1.0, 5.0]), tf.constant([[2.0], [2.0]]), 1.0)
    assert found.numpy().tolist() == [1.0, 9.0]


@pytest.mark.parametrize("task", ["binary_classification", "multiclass_classification"])
def test_the_answers_stand_beside_the_rows_that_they_are_of(project_of, tmp_path, task):
    project = project_of(task)
    described = TransformedFeatures.read(project.transform_graph)
    teacher = Teacher("trained", project.model, "")
    found = teach(teacher, project.inputs(), project.examples, project.transformed, described, tmp_path / "taught")
    assert found.features[-1].name == ANSWER
    model, score = Model(str(project.model)), "probability" if task == "binary_classification" else "probabilities"
    for split in ("train", "eval"):
        for part in parts(project.transformed, split):
            taught = pq.read_table(tmp_path / "taught" / split / part.name)
            assert taught.drop_columns([ANSWER]).equals(pq.read_table(part))
            raw = pq.read_table(project.examples / split / part.name).combine_chunks()
            expected = model.predict(raw.to_batches()[0])[score]
            column = np.array(taught.column(ANSWER).to_pylist())
            np.testing.assert_allclose(column, expected, atol=1e-6)


def _spoilt(project, directory: Path, change) -> Path:
    examples = directory / "examples"
    shutil.copytree(project.examples, examples)
    part = parts(examples, "train")[1]
    pq.write_table(change(pq.read_table(part)), part)
    return examples


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda table: table.take(np.arange(table.num_rows)[::-1]), "other labels"),
        (lambda table: table.slice(1), "600 rows instead of 599"),
    ],
)
def test_rows_in_another_order_are_refused(project, tmp_path, change, got):
    examples = _spoilt(project, tmp_path, change)
    described = TransformedFeatures.read(project.transform_graph)
    teacher = Teacher("trained", project.model, "")
    with pytest.raises(TidemillError, match=rf"train/part-00001\.parquet: must have the rows .*\(got {got}\)"):
        teach(teacher, project.inputs(), examples, project.transformed, described, tmp_path / "taught")


def test_the_champion_teaches_where_there_is_one_that_can(project, project_of, tmp_path):
    def chosen(wanted: str, champion: Path) -> Teacher:
        return Teacher.chosen(wanted, project.inputs(champion), project.model, champion)

    there = chosen("champion", project.model)
    assert (there.who, there.model, there.reason) == ("champion", project.model, "")
    absent = chosen("champion", tmp_path)
    assert (absent.who, absent.model, absent.reason) == ("trained", project.model, "no champion yet")
    other = chosen("champion", project_of("regression").model)
    assert other.who == "trained"
    assert other.reason == "the champion does regression, so they can't be compared"
    assert chosen("trained", project.model).reason == ""
