"""The course of a training: the same after a kill, stopped when it should be, refused when it can't go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tidemill.artifacts import ModelManifest
from tidemill.errors import DataError, UserError
from tidemill.train import batches
from tidemill.train.heartbeats import Heart
from tidemill.train.run import run

TRAINING = {"max_epochs": 4, "batch_size": 32, "checkpoint_every_steps": 8, "learning_rate": 0.01}
SIMPLE = {**TRAINING, "model": "linear"}  # less to trace, where the model doesn't matter


def history_of(paths):
    return json.loads((paths["history"] / "history.json").read_text())


def weights_of(paths):
    return ModelManifest.read(paths["model"]).lineage["weights"]


def without_times(history):
    epochs = [{k: v for k, v in e.items() if k not in ("seconds", "examples_per_second")} for e in history["epochs"]]
    return {**history, "epochs": epochs, "resumed_from_step": None, "efficiency": None}


@pytest.fixture(scope="module")
def inputs(make_inputs):
    return make_inputs(rows=600, training=TRAINING)


@pytest.fixture(scope="module")
def uninterrupted(inputs):
    paths = inputs.arguments("uninterrupted")
    run(**paths)
    return paths


def test_a_training_that_is_killed_twice_goes_on_and_ends_with_the_same_weights(inputs, uninterrupted):
    """19 steps an epoch, a checkpoint every 8: it dies in the middle of the first and then of the third epoch."""
    paths = inputs.arguments("killed")
    arguments = json.dumps({name: str(path) for name, path in paths.items()})
    script = Path(__file__).with_name("killed.py")
    for blocks in ("1", "6"):
        killed = subprocess.run([sys.executable, script, arguments, blocks], capture_output=True, timeout=200)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
        assert not paths["model"].exists()
    assert b"resumed in epoch 1 after step 8" in killed.stdout
    report = run(**paths)
    assert report.resumed_from_step == 40
    assert report.steps == 76
    assert weights_of(paths) == weights_of(uninterrupted)
    assert without_times(history_of(paths)) == without_times(history_of(uninterrupted))


def test_a_long_evaluation_is_told_to_get_on(make_inputs, monkeypatch):
    """By every block; or else one that takes longer than `hang_timeout_s` would be taken for a hang."""
    phases = []

    class Listened(Heart):
        def at(self, phase):
            phases.append(phase)
            super().at(phase)

    monkeypatch.setattr(batches, "BLOCK_ROWS", 32)
    inputs = make_inputs(rows=600, training={**SIMPLE, "max_epochs": 1})
    run(**inputs.arguments("listened"), heart=Listened())
    assert phases.count("evaluation") > 3


def test_another_seed_gives_other_weights(make_inputs, uninterrupted):
    """That the same seed gives the same weights is what the test above needs, and one in test_train_run.py."""
    other = make_inputs(rows=600, training={**TRAINING, "seed": 1}).arguments("other")
    run(**other)
    assert weights_of(other) != weights_of(uninterrupted)


def test_a_run_that_was_killed_while_exporting_trains_nothing_again(inputs, uninterrupted):
    paths = {**inputs.arguments("exporting"), "checkpoints": uninterrupted["checkpoints"]}
    report = run(**paths)
    assert report.resumed_from_step == report.steps
    assert weights_of(paths) == weights_of(uninterrupted)


def test_a_checkpoint_of_other_inputs_is_told_and_not_used(make_inputs, uninterrupted, capsys, tmp_path):
    other = make_inputs(rows=600, training={**SIMPLE, "max_epochs": 1})
    report = run(**{**other.arguments("other"), "checkpoints": uninterrupted["checkpoints"]})
    assert report.resumed_from_step is None
    assert report.steps == 19
    assert "is of other inputs; it is not used" in capsys.readouterr().out


def test_two_checkpoints_are_kept(uninterrupted, make_inputs):
    paths = make_inputs(rows=100, training={**SIMPLE, "checkpoint_every_steps": 1}).arguments("run")
    run(**paths)
    kept = sorted(p.name.partition(".")[0] for p in (paths["checkpoints"] / "train").iterdir())
    assert kept == ["checkpoint-0000000015", "checkpoint-0000000016"]


def noise(split, columns):
    """Leaves nothing to learn, so that training can only overfit."""
    rng = np.random.default_rng(len(split))
    return {**columns, "__label__": rng.integers(0, 2, len(columns["__label__"])).astype(np.float32)}


def test_training_stops_early_and_keeps_the_best_epoch(make_inputs):
    import tensorflow as tf

    settings = {"max_epochs": 50, "batch_size": 32, "learning_rate": 0.03, "early_stopping_patience": 2}
    inputs = make_inputs(rows=300, training=settings, spoil=noise)
    paths = inputs.arguments("run")
    report = run(**paths)
    epochs = history_of(paths)["epochs"]
    losses = [epoch["eval"]["loss"] for epoch in epochs]
    assert report.stopped == "early_stopping"
    assert report.epochs == len(epochs) == report.kept_epoch + 2 < 50
    assert report.eval_loss == min(losses) < losses[-1]
    # The exported model is the best epoch's, not the last's.
    signature = tf.saved_model.load(paths["model"] / "saved_model").signatures["serving_default"]
    raw = {name: tf.constant(values) for name, values in inputs.raw["eval"].items()}
    raw["hours-per-week"] = tf.cast(raw["hours-per-week"], tf.float32)
    probability = signature(**raw)["probability"].numpy()
    label = noise("eval", {"__label__": probability})["__label__"]
    loss = -np.mean(label * np.log(probability) + (1 - label) * np.log(1 - probability))
    assert loss == pytest.approx(report.eval_loss, rel=1e-4)


def test_without_early_stopping_it_trains_to_the_end(make_inputs):
    settings = {**SIMPLE, "max_epochs": 5, "early_stopping_patience": None}
    paths = make_inputs(rows=100, training=settings, spoil=noise).arguments("run")
    report = run(**paths)
    assert (report.epochs, report.stopped, report.kept_epoch) == (5, "max_epochs", 5)
    history = history_of(paths)
    assert history["best_epoch"] < history["kept_epoch"] == 5, "without a worse last epoch this shows nothing"
    assert report.eval_loss == history["epochs"][-1]["eval"]["loss"]


def test_max_steps_ends_in_the_middle_of_an_epoch(make_inputs):
    paths = make_inputs(rows=600, training={**SIMPLE, "max_steps": 30}).arguments("run")
    report = run(**paths)
    assert (report.steps, report.epochs, report.stopped) == (30, 2, "max_steps")
    assert [epoch["step"] for epoch in history_of(paths)["epochs"]] == [19, 30]


def test_a_loss_that_is_no_number_ends_the_training_with_what_to_do(make_inputs):
    inputs = make_inputs("regression", rows=200, training={**SIMPLE, "learning_rate": 1e30})
    with pytest.raises(UserError, match=r"loss: must stay finite .*\n  → lower training.learning_rate \(now 1e\+30\)"):
        run(**inputs.arguments("run"))


def infinite(split, columns):
    columns["edu_parts"][5, 1] = np.inf
    return columns


def test_an_input_that_is_not_finite_is_named(make_inputs):
    inputs = make_inputs(rows=200, training=TRAINING, spoil=infinite)
    with pytest.raises(DataError, match="transformed examples: edu_parts: must be finite"):
        run(**inputs.arguments("run"))


def test_an_empty_eval_split_is_refused(make_inputs):
    def spoil(split, columns):
        return {name: values[:0] if split == "eval" else values for name, values in columns.items()}

    with pytest.raises(DataError, match="eval split: has no rows"):
        run(**make_inputs(rows=100, spoil=spoil).arguments("run"))
