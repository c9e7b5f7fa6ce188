"""Images, texts in order and windows, from the source to the serving signature."""

from __future__ import annotations

import base64
import random
import re
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml

from tidemill.artifacts import SAVED_MODEL, ModelManifest, parts
from tidemill.bundle import pack
from tidemill.errors import ProblemError
from tidemill.instances import arrays_from_batch
from tidemill.problem import parse_problem
from tidemill.train.architectures import ARCHITECTURES
from tidemill.train.context import LabelSummary, TrainContext
from tidemill.train.models import sample
from tidemill.train.run import TrainReport, run
from tidemill.training import Training
from tidemill.transform.features import TransformedFeatures

pytest.importorskip("tensorflow_transform", reason="the TPU image has none")
pytestmark = pytest.mark.filterwarnings("ignore")  # tf.Transform and Beam warn of themselves


@dataclass(frozen=True)
class Prepared:
    """What the stages before train left, of one source."""

    directory: Path
    problem: dict[str, object]

    def bundle(self, code: str | None = None, **training: object) -> Path:
        source = self.directory / "problem"
        source.mkdir(exist_ok=True)
        problem = {**self.problem, "training": {"early_stopping_patience": None, **training}}
        if code:
            (source / "model.py").write_text(code)
            problem["user_code"] = {"model": "model:build_model"}
        text = yaml.safe_dump(problem, sort_keys=False)
        return pack(parse_problem(text, "problem.yaml"), source, self.directory / "bundles")

    def train(self, to: Path, code: str | None = None, **training: object) -> TrainReport:
        stages = self.directory / "transformed", self.directory / "graph"
        return run(self.bundle(code, **training), *stages, to / "model", to / "history", to / "checkpoints")


def prepared(directory: Path, source: str, **problem: object) -> Prepared:
    from tidemill.ingest.run import run as ingest
    from tidemill.transform.run import run as transform

    made = Prepared(directory, problem)
    (directory / "table.csv").write_text(source)
    (directory / "schema").mkdir()
    ingest(made.bundle(), str(directory / "table.csv"), "", directory / "examples")
    stages = directory / "examples", directory / "schema", directory / "graph", directory / "transformed"
    transform(made.bundle(), *stages)
    return made


def bar(upright: bool, rng: np.random.Generator) -> bytes:
    """A bright bar somewhere on a dark, noisy picture."""
    picture = rng.integers(0, 60, (12, 12, 3)).astype(np.uint8)
    at = rng.integers(2, 9)
    picture[(slice(1, 11), slice(at, at + 2)) if upright else (slice(at, at + 2), slice(1, 11))] = 230
    return tf.io.encode_png(picture).numpy()


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    """200 pictures of bars, upright or not, and a text that says nothing."""
    rng = np.random.default_rng(0)
    rows = [f"{i},{base64.b64encode(bar(i % 2 == 1, rng)).decode()},word {i % 5},{i % 2}\n" for i in range(200)]
    features = {
        "sign": {"kind": "image", "height": 12, "width": 12},
        "said": {"kind": "text", "as": "sequence", "max_words": 4},
    }
    label = {"column": "up", "positive": "1"}
    task = "binary_classification"
    directory = tmp_path_factory.mktemp("signs")
    return prepared(
        directory, "n,sign,said,up\n" + "".join(rows), name="signs", task=task, label=label, features=features
    )


def test_a_default_model_of_images_is_served_the_strings_that_it_was_trained_on(signs, tmp_path):
    signs.train(tmp_path, max_epochs=12, batch_size=16)
    manifest = ModelManifest.read(tmp_path / "model")
    assert manifest.inputs == {"sign": "string", "said": "string"}
    model = tf.saved_model.load(str(tmp_path / "model" / SAVED_MODEL))
    test = pq.read_table(parts(signs.directory / "examples", "test")[0])
    raw = arrays_from_batch(test.combine_chunks().to_batches()[0], manifest.inputs)
    signature = model.signatures["serving_default"]
    answers = signature(**{name: tf.constant(values) for name, values in raw.items()})["probability"].numpy()
    assert ((answers > 0.5) == np.array(test.column("up"))).mean() > 0.9
    # A client may send web-safe base64; and what it can't be helped with harms nobody else in the batch.
    spelt = [base64.urlsafe_b64encode(base64.b64decode(raw["sign"][0])), b"?", raw["sign"][1]]
    again = signature(sign=tf.constant(spelt), said=tf.constant([raw["said"][0], b"", raw["said"][1]]))
    np.testing.assert_allclose(again["probability"].numpy()[[0, 2]], answers[:2], atol=1e-6)


KERAS_MODEL = """
import keras
from keras import layers


def build_model(context):
    inputs = context.inputs()
    x = layers.Resizing(8, 8)(inputs["sign"])
    x = layers.RandomTranslation(0.1, 0.1, seed=1)(layers.Rescaling(1 / 255)(x))
    x = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(x))
    words = layers.LSTM(4)(layers.Embedding(context.vocabulary_sizes["said"], 4, mask_zero=True)(inputs["said"]))
    output = layers.Dense(1, "sigmoid")(layers.Concatenate()([x, words]))
    model = keras.Model(inputs, output)
    model.compile("adam", "binary_crossentropy")
    return model
"""


def test_a_model_of_keras_preprocessing_layers_takes_images_and_words_in_order(signs, tmp_path):
    report = signs.train(tmp_path, KERAS_MODEL, max_epochs=2, batch_size=32)
    assert report.epochs == 2
    assert tf.saved_model.load(str(tmp_path / "model" / SAVED_MODEL)).signatures["serving_default"]


@pytest.mark.parametrize("family", ["wide_and_deep", "deep_and_cross", "ft_transformer"])
def test_every_family_but_linear_sees_images_and_the_order_of_words(family, signs, tmp_path):
    described = TransformedFeatures.read(signs.directory / "graph")
    label = LabelSummary(160, 0.5, 0.5, (80, 80), 160.0)
    context = TrainContext(
        described.task, described.classes, described.features, Training(), label, tf.distribute.get_strategy(), 8, 1, 1,
        tmp_path,
    )  # fmt: skip
    keras.utils.set_random_seed(0)
    model = ARCHITECTURES[family](context)
    rng = np.random.default_rng(0)
    words = tf.constant([[1, 2, 3, 4]] * 3, tf.int64)
    dark = sample(context, 3) | {"said": words}
    answer = model(dark, training=False).numpy()
    assert answer.shape == (3, 1)
    assert np.ptp(answer) < 1e-5
    pictures = tf.constant(rng.integers(0, 256, (3, 12, 12, 3)), tf.float32)
    assert np.ptp(model(dark | {"sign": pictures}, training=False).numpy()) > 1e-4
    shuffled = tf.constant([[1, 2, 3, 4], [4, 2, 1, 3], [3, 1, 4, 2]], tf.int64)
    assert np.ptp(model(dark | {"said": shuffled}, training=False).numpy()) > 1e-4  # which a bag would answer all alike


def test_a_linear_model_refuses_images(signs, tmp_path):
    with pytest.raises(ProblemError, match=r"training\.model: linear takes no images \(got sign\)\n.*wide_and_deep"):
        signs.train(tmp_path, model="linear")


def pumps(count: int, rows: int) -> str:
    """A pump breaks if its load was high in the three hours before; the load now says nothing of that."""
    rng = random.Random(0)
    lines = ["pump,at,load,mode,broke\n"]
    for pump in range(count):
        past: list[float] = []
        for hour in range(rows):
            broke = int(sum(past[-3:]) > 0)
            past.append(rng.gauss(0, 1))
            lines.append(f"p{pump},2024-01-01T{hour:02}:00:00Z,{past[-1]:.3f},{rng.choice('ab')},{broke}\n")
    return "".join(lines)


PUMPS = {
    "name": "pumps",
    "task": "binary_classification",
    "label": {"column": "broke", "positive": "1"},
    "features": {"load": "numeric", "mode": "categorical"},
    "time": "at",
    "group": ["pump"],
}


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("windows"), pumps(80, 20), **PUMPS, windows={"length": 4})


def test_a_model_that_sees_the_rows_before_beats_the_same_model_without(windows, tmp_path_factory, tmp_path):
    plain = prepared(tmp_path_factory.mktemp("plain"), pumps(80, 20), **PUMPS)
    seeing = windows.train(tmp_path / "seeing", max_epochs=6, batch_size=64)
    blind = plain.train(tmp_path / "blind", max_epochs=6, batch_size=64)
    assert seeing.metrics["auc"] > 0.93 > 0.65 > blind.metrics["auc"]
    assert list(ModelManifest.read(tmp_path / "seeing" / "model").inputs) == [
        "load", "load@1", "load@2", "load@3", "mode", "mode@1", "mode@2", "mode@3",
    ]  # fmt: skip


PAGE = Path(__file__).parents[3] / "components" / "tidemill" / "train" / "README.md"


def test_the_recurrent_model_of_the_page_reads_windows_in_the_order_of_time(windows, tmp_path):
    section = PAGE.read_text().partition("## Inputs\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    report = windows.train(tmp_path, code, max_epochs=8, batch_size=64, learning_rate=0.01)
    assert report.metrics["AUC"] > 0.9
