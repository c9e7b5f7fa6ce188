"""Rows of larger classes are left out, others in each epoch, and the model answers probabilities of the data still."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from tidemill.artifacts import ModelManifest
from tidemill.errors import ProblemError, UserCodeError
from tidemill.problem import Problem
from tidemill.train.batches import Examples, Packing
from tidemill.train.place import Place
from tidemill.train.resampling import chosen, kept_rows, kept_shares
from tidemill.train.run import run
from tidemill.training import Training
from tidemill.transform.features import TransformedFeatures

CLASSES = ("no", "yes")


@pytest.mark.parametrize(
    ("share", "counts", "kept"),
    [
        (0.3, (980, 20), (47, 20)),
        (0.5, (20, 980), (20, 20)),
        (1 / 3, (100, 10, 50), (10, 10, 10)),
        (0.1, (500, 10, 30), (60, 10, 30)),  # the middle class is smaller than the cut, and stays whole
        (0.1, (500, 10, 200, 0), (45, 10, 45, 0)),
    ],
)
def test_the_smallest_class_has_its_share(share, counts, kept):
    shares = kept_shares(share, counts, [str(i) for i in range(len(counts))])
    assert [round(a * b) for a, b in zip(shares, counts, strict=True)] == list(kept)
    assert min(k for k in kept if k) / sum(kept) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("share", "got"), [(0.02, "0.02"), (0.01, "0.01"), (0.6, "0.6")])
def test_a_share_that_leaving_out_cannot_give_is_refused(share, got):
    message = rf"training.resample: must be more than the 0.02 that yes has .* at most 0.5, .* \(got {got}\)"
    with pytest.raises(ProblemError, match=message):
        kept_shares(share, (980, 20), CLASSES)


def test_regression_has_no_classes_to_leave_out():
    with pytest.raises(ProblemError, match=r"training.resample: has no meaning for regression"):
        kept_shares(0.5, (), ())
    assert kept_shares(None, (), ()) == ()


@pytest.mark.parametrize(
    "training", [{"resample": 0.3}, {"focal_gamma": 2.0}, {"class_weights": "balanced"}], ids=lambda t: next(iter(t))
)
def test_a_regression_that_asks_to_be_balanced_is_refused_when_it_is_read(training):
    value = {"name": "p", "task": "regression", "label": {"column": "y"}, "features": {"x": "numeric"}}
    Problem.model_validate(value)
    with pytest.raises(ValidationError, match=f"training.{next(iter(training))} has no meaning for regression"):
        Problem.model_validate({**value, "training": training})


def test_class_weights_and_resampling_are_two_ways_to_the_same():
    with pytest.raises(ValidationError, match="give `class_weights` or `resample`, not both"):
        Training(class_weights="balanced", resample=0.3)


def test_row_groups_give_what_makes_up_the_share_exactly():
    counts = np.array([[10, 1], [0, 3], [33, 0], [57, 0]])
    rows = kept_rows((0.33, 1.0), counts)
    assert rows.sum(axis=0).tolist() == [33, 4]
    assert (rows <= counts).all()
    assert (rows >= 0).all()


def test_the_choice_is_of_the_seed_alone_and_in_order():
    labels = np.array([0, 1, 0, 0, 0, 1, 0, 0, 0, 0])
    rows = chosen(labels, (3, 2), [0, 1, 2])
    assert np.bincount(labels[rows]).tolist() == [3, 2]
    assert (np.diff(rows) > 0).all()
    assert chosen(labels, (3, 2), [0, 1, 2]).tolist() == rows.tolist()
    assert any(chosen(labels, (3, 2), [0, 2, i]).tolist() != rows.tolist() for i in range(5))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def true_probability(columns) -> np.ndarray:
    """Returns a probability that a linear model can learn, of 2 % on average."""
    color = np.array([0.0, 1.5, 0, -1.5, 0, 0])[columns["1st color"]]
    return sigmoid(1.2 * columns["hours-per-week"] + 0.8 * columns["edu_parts"][:, 0] + color - 5.25)


def rare(split, columns):
    """Gives the rows rare positives. Text has no part in it."""
    seed = {"train": 1, "eval": 2, "test": 3}[split]
    truth = true_probability(columns)
    return {**columns, "__label__": (np.random.default_rng(seed).random(len(truth)) < truth).astype(np.float32)}


SETTINGS = {"model": "linear", "learning_rate": 0.03, "max_epochs": 8, "batch_size": 64, "seed": 3}


@pytest.fixture(scope="module")
def trained(make_inputs):
    """Returns answers, truths and the history of trainings on the same rare positives, whole and resampled."""
    found = {}
    for name, settings in (("whole", {}), ("resampled", {"resample": 0.3})):
        inputs = make_inputs(rows=12_000, training={**SETTINGS, **settings}, spoil=rare)
        paths = inputs.arguments("run")
        report = run(**paths)
        signatures = tf.saved_model.load(paths["model"] / "saved_model").signatures
        dtypes = {"hours-per-week": tf.float32, "education num": tf.int64}
        raw = {n: tf.constant(v, dtypes.get(n, tf.string)) for n, v in inputs.raw["eval"].items()}
        features = {n: t.numpy() for n, t in signatures["transform_features"](**raw).items()}
        answer = signatures["serving_default"](**raw)["probability"].numpy()
        history = json.loads((paths["history"] / "history.json").read_text())
        found[name] = (answer, true_probability(features), history, report, inputs, paths)
    return found


def test_probabilities_are_of_the_data_though_the_training_saw_15_times_as_many_positives(trained):
    """Calibration: mean answer by mean truth, and by mean truth of the tenth with the highest answers."""
    answer, truth, history, _, _, _ = trained["resampled"]
    assert 0.015 < truth.mean() < 0.025
    assert 0.85 < answer.mean() / truth.mean() < 1.15
    top = np.argsort(answer)[-len(answer) // 10 :]
    assert 0.8 < answer[top].mean() / truth[top].mean() < 1.2
    assert history["kept"]["yes"] == 1.0
    assert 0.03 < history["kept"]["no"] < 0.06
    seen = answer / (answer + (1 - answer) * history["kept"]["no"])
    assert seen.mean() / truth.mean() > 5  # what would be answered without the correction


def test_the_order_of_rows_is_about_as_good_and_the_steps_a_fraction(trained):
    (a, truth, _, whole, _, _), (b, _, _, resampled, _, _) = trained["whole"], trained["resampled"]
    label = np.random.default_rng(0).random(len(truth)) < truth
    assert roc_auc_score(label, b) == pytest.approx(roc_auc_score(label, a), abs=0.03)
    assert resampled.steps / resampled.epochs < 0.1 * whole.steps / whole.epochs


def test_early_stopping_sees_the_probabilities_that_are_served(trained):
    _, _, _, report, inputs, paths = trained["resampled"]
    signatures = tf.saved_model.load(paths["model"] / "saved_model").signatures
    dtypes = {"hours-per-week": tf.float32, "education num": tf.int64}
    raw = {n: tf.constant(v, dtypes.get(n, tf.string)) for n, v in inputs.raw["eval"].items()}
    answer = signatures["serving_default"](**raw)["probability"].numpy()
    features = {n: t.numpy() for n, t in signatures["transform_features"](**raw).items()}
    label = rare("eval", features)["__label__"]
    loss = -np.mean(np.log(np.where(label == 1, answer, 1 - answer)))
    assert report.eval_loss == pytest.approx(loss, rel=1e-3)


def test_a_linear_models_intercept_is_that_of_the_data(trained):
    *_, paths = trained["resampled"]
    written = json.loads((paths["history"] / "coefficients.json").read_text())
    assert written["intercept"][0] == pytest.approx(-5.25, abs=1.2)


def test_every_epoch_has_all_positives_and_other_negatives_however_many_workers(trained):
    *_, inputs, _ = trained["resampled"]
    described = TransformedFeatures.read(inputs.transform_graph)
    packing, kept = Packing(described), (0.05, 1.0)

    def rows(epoch: int, place: Place, skip: int = 0) -> list[bytes]:
        examples = Examples(inputs.transformed, "train", packing, place=place, kept=kept)
        blocks = examples.blocks(32, (7, epoch), skip)
        packed = (np.column_stack([b.label, b.dense, b.ids]) for b in blocks)
        return [row.tobytes() for block in packed for row in block]

    first, second = rows(0, Place()), rows(1, Place())
    labels = [np.frombuffer(row)[0] for row in first]
    assert len(first) == len(second) == Examples(inputs.transformed, "train", packing, kept=kept).total
    everything = Examples(inputs.transformed, "train", packing)
    assert sum(labels) == sum(float(block.label.sum()) for block in everything.blocks(1000))
    assert len(set(first) & set(second)) < len(first) / 2
    assert rows(0, Place()) == first
    assert rows(0, Place(), skip=64) == first[64:]
    halves = [row for worker in (0, 1) for row in rows(0, Place(worker, 2))]
    assert sorted(halves) == sorted(first)


USER = """
import keras
from keras import layers


def build_model(context):
    inputs = context.inputs()
    logits = layers.Dense(1)(layers.Concatenate()([inputs["edu_parts"], inputs["hours-per-week"][:, None]]))
    output = END
    model = keras.Model({k: inputs[k] for k in ("edu_parts", "hours-per-week")}, output)
    model.compile(optimizer=context.optimizer(), loss=context.loss())
    return model
"""


def test_a_users_model_must_end_in_what_corrects_it(make_inputs):
    settings = {"max_epochs": 1, "resample": 0.45}
    bare = make_inputs(
        model=USER.replace("END", 'layers.Activation("sigmoid")(logits)'), training=settings, spoil=rarer
    )
    with pytest.raises(
        UserCodeError, match=r"must end in context.probabilities\(\) where training.resample .*\(got no"
    ):
        run(**bare.arguments("run"))
    paths = make_inputs(
        model=USER.replace("END", "context.probabilities()(logits)"), training=settings, spoil=rarer
    ).arguments("run")
    run(**paths)
    assert ModelManifest.read(paths["model"]).task == "binary_classification"


def rarer(_, columns):
    return {**columns, "__label__": columns["__label__"] * (np.arange(len(columns["__label__"])) % 2)}
