"""What a training tells of its use of the machine, and settings that change how steps are computed."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from tidemill.train.efficiency import Meter, gpu_utilisation
from tidemill.train.run import run
from tidemill.train.steps import Steps

SIMPLE = {"model": "linear", "max_epochs": 2, "batch_size": 32}


def test_a_meter_tells_step_time_and_what_was_spent_waiting():
    meter = Meter()
    for seconds, steps in [(0.1, 10)] * 19 + [(0.5, 10)]:
        meter.called(seconds, steps)
    meter.waited(0.6)
    found = meter.efficiency()
    assert found.step_ms == pytest.approx(1000 * (19 * 0.1 + 0.5 + 0.6) / 200)
    assert found.step_ms_p95 == pytest.approx(10.0), "19 of 20 calls"
    assert found.input_bound_share == pytest.approx(0.6 / 3.0)
    assert 50 < found.peak_memory_mb < 50_000
    assert (found.accelerators, found.accelerator_memory_mb, found.accelerator_utilisation) == ((), None, None)


def test_a_meter_of_nothing_is_no_error():
    """A training that was killed while it exported takes no step when it is started again."""
    assert Meter().efficiency().input_bound_share == 0


@pytest.mark.parametrize(("printed", "expected"), [("40\n60\n", 0.5), ("", None), ("[N/A]\n", None)])
def test_gpus_tell_how_busy_they_are_or_nothing(printed, expected):
    """What nvidia-smi prints, one line per GPU; the tool itself is not here."""
    assert gpu_utilisation((sys.executable, "-c", f"print({printed!r}, end='')")) == expected


def test_without_the_tool_nothing_is_told():
    assert gpu_utilisation(("no-such-tool",)) is None
    assert gpu_utilisation((sys.executable, "-c", "raise SystemExit(9)")) is None


def calls(monkeypatch):
    found, train = [], Steps.train

    def noted(self, *arguments):
        taken = train(self, *arguments)
        found.append(taken.steps)
        return taken

    monkeypatch.setattr(Steps, "train", noted)
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [19, 19]),
        ({"steps_per_execution": 8}, [8, 8, 3, 5, 8, 6]),
        ({"checkpoint_every_steps": 15}, [15, 4, 11, 8]),
    ],
)
def test_a_call_takes_as_many_steps_as_it_may(make_inputs, monkeypatch, settings, expected):
    """19 steps an epoch; calls end where steps of the training are a multiple, so that a resumed one has the same."""
    found = calls(monkeypatch)
    run(**{**make_inputs(rows=600, training={**SIMPLE, **settings}).arguments("run"), "model": None})
    assert found == expected


def test_a_compiled_step_trains_the_same_model(make_inputs, capsys):
    reports = [
        run(**{**make_inputs(rows=300, training={**SIMPLE, "xla": xla}).arguments("run"), "model": None})
        for xla in (False, True)
    ]
    assert reports[1].eval_loss == pytest.approx(reports[0].eval_loss, rel=1e-4)
    assert "XLA can't" not in capsys.readouterr().out


LOOKUP = """
import keras
import tensorflow as tf

class Spelled(keras.layers.Layer):
    def call(self, number):
        return tf.strings.to_number(tf.strings.as_string(number))[:, None]

def build_model(context):
    inputs = context.inputs()
    output = keras.layers.Dense(1, "sigmoid")(Spelled()(inputs["hours-per-week"]))
    model = keras.Model(inputs, output)
    model.compile(optimizer="adam", loss="binary_crossentropy")
    return model
"""


def test_a_step_that_xla_cannot_compile_is_trained_without_it_and_told(make_inputs, capsys):
    inputs = make_inputs(rows=100, training={"max_epochs": 1, "batch_size": 32, "xla": True}, model=LOOKUP)
    assert run(**{**inputs.arguments("run"), "model": None}).steps == 4
    assert "train: XLA can't compile a step of this model, which is trained without: " in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_of_mixed_precision_answers_in_float32_and_resumes(make_inputs, precision):
    settings = {"max_epochs": 2, "batch_size": 32, "precision": precision, "learning_rate": 0.01}
    paths = make_inputs(rows=300, training=settings).arguments("run")
    report = run(**paths)
    signature = tf.saved_model.load(paths["model"] / "saved_model").signatures["serving_default"]
    assert signature.structured_outputs["probability"].dtype == tf.float32
    assert report.eval_loss < 0.8
    again = run(**{**paths, "model": None})
    assert (again.resumed_from_step, again.eval_loss) == (report.steps, report.eval_loss)


def test_the_report_tells_how_it_was_trained(make_inputs):
    paths = make_inputs(rows=300, training=SIMPLE).arguments("run")
    report = run(**{**paths, "model": None})
    told = json.loads((paths["history"] / "history.json").read_text())["efficiency"]
    assert (report.strategy, report.workers, report.replicas, report.batch_size) == ("default", 1, 1, 32)
    assert told == {**{name: getattr(report, name) for name in told}, "accelerators": []}
    assert report.step_ms > 0
    assert 0 <= report.input_bound_share <= 1
    assert np.isfinite(report.examples_per_second)
