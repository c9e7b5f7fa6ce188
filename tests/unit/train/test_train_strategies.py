"""Which strategy is chosen, and what is refused because it doesn't fit the machine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tensorflow as tf

from tidemill.errors import PlatformError, ProblemError, UsageError
from tidemill.train import strategies
from tidemill.train.place import ALONE, Place
from tidemill.train.precision import computing_in
from tidemill.train.strategies import Distribution, distribute


@pytest.fixture(autouse=True)
def nothing_made(monkeypatch):
    """Strategies are made once in a process."""
    monkeypatch.setattr(strategies, "_made", {})


TWO = '{"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 1}}'


def test_one_device_takes_the_default(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    found = distribute("auto", ALONE)
    assert (found.name, found.replicas, found.local_replicas) == ("default", 1, 1)
    assert found.strategy is tf.distribute.get_strategy()


@pytest.mark.parametrize(
    ("devices", "place", "expected"),
    [
        ({"GPU": 2}, ALONE, "mirrored"),
        ({"GPU": 1}, ALONE, "default"),
        ({"TPU": 1, "GPU": 2}, ALONE, "tpu"),
        ({"GPU": 2}, Place(0, 2), "multi_worker_mirrored"),
        ({"TPU": 1}, Place(1, 2), "multi_worker_mirrored"),
    ],
)
def test_what_is_there_decides(monkeypatch, devices, place, expected):
    """The makers are stood in for: what they make needs the devices."""
    monkeypatch.delenv("TPU_NAME", raising=False)
    monkeypatch.setattr(strategies, "_physical", lambda kind: [None] * devices.get(kind, 0))
    for maker in ("_mirrored", "_multi_worker", "_tpu"):
        monkeypatch.setattr(strategies, maker, lambda _: tf.distribute.get_strategy())
    assert distribute("auto", place).name == expected


def test_a_tpu_that_was_named_is_taken(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "example")
    monkeypatch.setattr(strategies, "_tpu", lambda _: tf.distribute.get_strategy())
    assert distribute("auto", ALONE).name == "tpu"


@pytest.mark.parametrize(
    ("name", "place", "message"),
    [
        ("parameter_server", ALONE, "can't be parameter_server: its workers change the weights without waiting"),
        ("tpu", ALONE, r"can be tpu only on a machine with a TPU, or with TPU_NAME set to one .got CPUs alone"),
        ("mirrored", ALONE, r"can be mirrored only where a machine has two GPUs or more .got 0 GPUs"),
        (
            "multi_worker_mirrored",
            ALONE,
            "can be multi_worker_mirrored only where TF_CONFIG names two workers or more .got 1",
        ),
        ("default", Place(0, 2), "must be auto or multi_worker_mirrored, as TF_CONFIG names 2 workers .got default"),
        ("mirrored", Place(0, 2), "must be auto or multi_worker_mirrored, as TF_CONFIG names 2 workers .got mirrored"),
    ],
)
def test_a_strategy_that_does_not_fit_is_refused_with_what_to_do(monkeypatch, name, place, message):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(ProblemError, match=rf"^training.strategy: {message}[^→]*\n  → "):
        distribute(name, place)


def test_a_tpu_that_does_not_answer_may_be_tried_again(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "example")

    def silent(tpu):
        raise ValueError("Could not find TPU")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", silent)
    with pytest.raises(PlatformError, match=r"TPU example: doesn't answer .got ValueError: Could not find TPU"):
        distribute("tpu", ALONE)


def of(replicas, workers=1):
    return Distribution("mirrored", SimpleNamespace(num_replicas_in_sync=replicas), Place(0, workers))


def test_a_batch_is_of_all_replicas_or_grows_with_them():
    assert of(4).batch_size(256, None) == 256
    assert of(4).batch_size(256, 100) == 400
    assert of(8, 2).local_replicas == 4


def test_a_batch_that_replicas_cannot_share_is_refused():
    with pytest.raises(
        ProblemError, match=r"batch_size: must be a multiple of the 3 replicas.*256.\n  → take 255 or 258"
    ):
        of(3).batch_size(256, None)
    with pytest.raises(ProblemError, match=r"take 3, or set training.per_replica_batch_size instead"):
        of(3).batch_size(2, None)


def test_tf_config_gives_the_place():
    assert Place.read({"TF_CONFIG": TWO}) == Place(2, 3)
    assert Place.read({}) == Place.read({"TF_CONFIG": "{}"}) == ALONE


@pytest.mark.parametrize("text", ["{", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "[1]"])
def test_a_tf_config_that_cannot_be_understood_is_refused(text):
    with pytest.raises(UsageError, match="TF_CONFIG: must be JSON with a cluster of `worker` addresses"):
        Place.read({"TF_CONFIG": text})


def test_layers_compute_in_the_precision_and_what_comes_after_does_not(monkeypatch, capsys):
    import keras

    monkeypatch.delenv("TPU_NAME", raising=False)
    with computing_in("mixed_bfloat16"):
        layer = keras.layers.Dense(1)
    assert layer.compute_dtype == "bfloat16"
    assert layer.variable_dtype == "float32"
    assert keras.layers.Dense(1).compute_dtype == "float32"
    assert "mixed_bfloat16 makes nothing faster on a CPU" in capsys.readouterr().out


def test_float16_is_refused_on_a_tpu(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "example")
    with (
        pytest.raises(
            ProblemError, match=r"training.precision: can't be mixed_float16 on a TPU[^→]*\n  → take mixed_bf"
        ),
        computing_in("mixed_float16"),
    ):
        pass
