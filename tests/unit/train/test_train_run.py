"""The stage as a whole: what it reports, what it writes, and how classes and examples are weighted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tidemill.artifacts import ModelManifest
from tidemill.errors import ProblemError
from tidemill.files import digest_tree
from tidemill.train.context import LabelSummary
from tidemill.train.run import class_weights, run
from tidemill.training import Training
from tidemill.transform.features import TransformedFeatures

TRAINING = {"max_epochs": 2, "batch_size": 64, "learning_rate": 0.01}
LINEAR = {"model": "linear", "max_epochs": 6, "batch_size": 64, "learning_rate": 0.03}


@pytest.fixture(scope="module")
def twice(make_inputs):
    """Returns the paths of two runs of the same inputs, and the report of the first."""
    inputs = make_inputs(rows=500, training=TRAINING)
    first, second = inputs.arguments("first"), inputs.arguments("second")
    report = run(**first)
    run(**second)
    return first, second, report


def test_the_report_agrees_with_the_history(twice):
    paths, _, report = twice
    history = json.loads((paths["history"] / "history.json").read_text())
    best = history["epochs"][report.kept_epoch - 1]
    assert (report.epochs, report.steps, report.stopped) == (2, 16, "max_epochs")
    assert (history["steps"], history["stopped"], history["best_epoch"]) == (16, "max_epochs", report.kept_epoch)
    assert report.train_loss == best["train"]["loss"]
    assert {"loss": report.eval_loss, **report.metrics} == best["eval"]
    assert report.examples_per_second > 0
    assert report.parameters > 100
    assert history["training"]["learning_rate"] == 0.01
    assert history["seeds"] == {"weights": 0, "order": 0}
    assert history["label"]["rows"] == 500
    json.dumps(report.__dict__)


def test_the_history_is_there_for_tensorboard(twice):
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    paths, _, _ = twice
    epochs = json.loads((paths["history"] / "history.json").read_text())["epochs"]
    for split in ("train", "eval"):
        events = EventAccumulator(str(paths["history"] / "tensorboard" / split), {"tensors": 0}).Reload()
        found = [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors("loss")]
        assert found == [(e["step"], pytest.approx(e[split]["loss"], rel=1e-6)) for e in epochs]


def test_the_same_inputs_give_the_same_weights(twice):
    first, second, _ = twice
    manifests = [ModelManifest.read(paths["model"]) for paths in (first, second)]
    assert manifests[0].digest == digest_tree(first["model"] / "saved_model")
    assert manifests[0].lineage == manifests[1].lineage


def test_nothing_is_left_beside_the_outputs(twice):
    first, _, _ = twice
    assert sorted(p.name for p in first["model"].parent.iterdir()) == ["checkpoints", "history", "model"]
    assert sorted(p.name for p in first["model"].iterdir()) == ["model.json", "network", "saved_model"]


def described(task="binary_classification", classes=("no", "yes")):
    return TransformedFeatures({}, (), "__label__", None, classes, task)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [(None, None), ("balanced", [0.625, 2.5]), ({"yes": 4.0}, [0.625, 2.5]), ({"no": 0, "yes": 1}, [0, 5])],
)
def test_class_weights_have_a_mean_of_one_over_the_rows(setting, expected):
    weights = class_weights(Training(class_weights=setting), described(), LabelSummary(100, 0.2, 0.4, (80, 20), 100))
    assert weights is None if expected is None else weights.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("setting", "told", "message"),
    [
        ("balanced", described("regression", ()), "has no meaning for regression"),
        ({"maybe": 1.0}, described(), "must name classes among no, yes .got maybe"),
        ({"yes": -1.0}, described(), "must not be negative or all 0"),
    ],
)
def test_class_weights_that_mean_nothing_are_refused(setting, told, message):
    label = LabelSummary(100, 0.2, 0.4, (80, 20) if told.classes else (), 100)
    with pytest.raises(ProblemError, match=message):
        class_weights(Training(class_weights=setting), told, label)


def rare(split, columns):
    """Makes positives one in ten."""
    score = columns["hours-per-week"] + np.random.default_rng(len(split)).logistic(size=len(columns["__label__"]))
    return {**columns, "__label__": (score > np.quantile(score, 0.9)).astype(np.float32)}


def test_balanced_classes_raise_the_rare_classs_probability(make_inputs):
    """Unweighted, the mean probability is the prior 0.1; balanced, it is near one half."""
    import tensorflow as tf

    means = []
    for setting in (None, "balanced"):
        inputs = make_inputs(rows=500, training={**LINEAR, "class_weights": setting}, spoil=rare)
        paths = inputs.arguments("run")
        run(**paths)
        signature = tf.saved_model.load(paths["model"] / "saved_model").signatures["serving_default"]
        dtypes = {"hours-per-week": tf.float32, "education num": tf.int64}
        raw = {n: tf.constant(v, dtypes.get(n, tf.string)) for n, v in inputs.raw["test"].items()}
        means.append(float(np.mean(signature(**raw)["probability"])))
    assert means[0] == pytest.approx(0.1, abs=0.05)
    assert 0.3 < means[1] < 0.7
