"""One problem on every runner: a table in many files, its examples, its transform graph and a model to evaluate."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

with warnings.catch_warnings():  # what Beam and TensorFlow warn of on import is theirs, and comes at collection
    warnings.simplefilter("ignore")
    pytest.importorskip("tensorflow_model_analysis", reason="the Beam stages run in the tensorflow environment")

import tensorflow as tf

from tidemill.artifacts import ModelManifest
from tidemill.bundle import pack
from tidemill.errors import PlatformError
from tidemill.files import digest_tree
from tidemill.ingest.run import run as ingest
from tidemill.job_server import flink_job_server
from tidemill.problem import parse_problem

# Warnings of third parties at import and in their own calls of each other; nothing here can mend them.
_THIRD_PARTY = (
    "ignore:You are using a Python version:FutureWarning",  # google.api_core, about Python 3.11
    "ignore::DeprecationWarning",  # protobuf, absl, Beam, TFX-BSL
    "ignore:unclosed:ResourceWarning",
    "ignore::RuntimeWarning:tensorflow_model_analysis",  # divides by zero where a bin is empty
    # A Beam worker in this process, whose channel is closed at the end of a job, says so by an exception in its thread.
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
)
_START_S = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for warning in _THIRD_PARTY:
                item.add_marker(pytest.mark.filterwarnings(warning))


PROBLEM = """
name: shop
task: binary_classification
label: {column: bought, positive: "yes"}
weight: importance
group: [customer]
sensitive: [country, [country, device]]
baseline: majority
split: {method: hash, train: 0.6, eval: 0.2, test: 0.2}
features:
  amount: {kind: numeric, scale: log_z_score}
  age: numeric
  visits: {kind: bucketized, buckets: 4}
  country: categorical
  note: {kind: text, max_words: 4}
  country_device: {kind: crossed, of: [country, device], hash_buckets: 50}
"""

USER_CODE = '''
"""Features whose analysis runs the user's own class, and passes its elements between workers."""

import dataclasses

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

import words


@dataclasses.dataclass
class Largest:
    value: float = float("-inf")


class KeepLargest(beam.CombineFn):
    def create_accumulator(self):
        return Largest()

    def add_input(self, accumulator, batch):
        return Largest(max(accumulator.value, float(np.max(batch[0], initial=float("-inf")))))

    def merge_accumulators(self, accumulators):
        return Largest(max(one.value for one in accumulators))

    def extract_output(self, accumulator):
        import later

        return np.array(later.unchanged(accumulator.value), np.float32)


class FindLargest(beam.PTransform):
    def expand(self, batches):
        return batches | beam.CombineGlobally(KeepLargest())


def preprocessing_fn(inputs):
    amount = words.dense(inputs["amount"])
    (largest,) = tft.experimental.ptransform_analyzer([amount], FindLargest(), [tf.float32], [[]])
    return {"amount": amount / largest}
'''
WORDS = """
import tensorflow as tf


def column(tensor):
    return tf.SparseTensor(tensor.indices, tensor.values, [tensor.dense_shape[0], 1])


def dense(tensor):
    return tf.squeeze(tf.sparse.to_dense(column(tensor)), 1)
"""
LATER = "def unchanged(value):\n    return value\n"


@dataclass(frozen=True)
class Shop:
    """What the stages are given: two bundles of one problem, without and with user code, a table and a model."""

    bundle: Path
    user_bundle: Path
    table: Path
    model: Path


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    directory = tmp_path_factory.mktemp("shop")
    modules = {"preprocessing": USER_CODE, "words": WORDS, "later": LATER}
    for name, source in modules.items():
        (directory / f"{name}.py").write_text(source)
    user_problem = PROBLEM + "user_code: {preprocessing: 'preprocessing:preprocessing_fn'}\n"
    return Shop(
        pack(parse_problem(PROBLEM, "problem.yaml"), directory, directory / "bundles"),
        pack(parse_problem(user_problem, "problem.yaml"), directory, directory / "bundles"),
        _write_table(directory / "table"),
        _write_model(directory / "model"),
    )


def _write_table(directory: Path) -> Path:
    """Writes eight files of rows, one of them with faults: what workers share and what they must report."""
    generator = np.random.default_rng(7)
    directory.mkdir()
    for number in range(8):
        lines = ["amount,age,visits,country,device,note,importance,customer,bought"]
        for _ in range(400):
            amount = round(float(generator.lognormal(3, 2)), 2)
            country, device = generator.choice(["de", "fr", "it", ""]), generator.choice(["phone", "desk"])
            note = " ".join(generator.choice(["red", "green", "blue", "big", "small"], generator.integers(0, 5)))
            age = "" if generator.random() < 0.1 else str(generator.integers(18, 90))
            bought = "yes" if generator.random() < (0.7 if device == "phone" else 0.3) else "no"
            weight = round(float(generator.gamma(2, 0.5)), 3)
            customer = generator.integers(0, 900)
            lines.append(
                f"{amount},{age},{generator.poisson(3)},{country},{device},{note},{weight},{customer},{bought}"
            )
        if number == 3:
            lines += ["one field", "1,2,3,de,phone,red,1,5,"]
        (directory / f"day-{number}.csv").write_text("\n".join(lines) + "\n")
    return directory


class _Model(tf.Module):
    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32, "amount"), tf.TensorSpec([None], tf.string, "device")]
    )
    def answer(self, amount: tf.Tensor, device: tf.Tensor) -> dict[str, tf.Tensor]:
        signal = 0.1 * tf.math.log1p(tf.where(tf.math.is_nan(amount), 0.0, amount))
        probability = tf.sigmoid(signal + tf.where(device == b"phone", 0.4, -0.9))
        return {"probability": probability, "label": tf.where(probability >= 0.5, "yes", "no")}


def _write_model(directory: Path) -> Path:
    model = _Model()
    tf.saved_model.save(
        model, str(directory / "saved_model"), signatures={"serving_default": model.answer.get_concrete_function()}
    )
    ModelManifest(
        name="shop",
        task="binary_classification",
        classes=("no", "yes"),
        threshold=0.5,
        inputs={"amount": "float32", "device": "string"},
        outputs={},
        signatures=("serving_default",),
        digest=digest_tree(directory / "saved_model", exclude=("fingerprint.pb",)),
        framework={},
    ).write(directory)
    return directory


@pytest.fixture(scope="session", autouse=True)
def many_shards() -> Iterator[None]:
    """Makes every file a shard, so that there is something to spread over workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidemill.ingest.readers._SHARD_BYTES", 1)
        yield


@pytest.fixture(scope="session")
def examples(shop: Shop, many_shards: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ingest makes of the table in one process."""
    directory = tmp_path_factory.mktemp("direct") / "examples"
    ingest(shop.bundle, str(shop.table), "", directory)
    return directory


@pytest.fixture(scope="session")
def flink_jar() -> Path:
    """The job server; skips where there is no Java or no Maven repository."""
    if shutil.which("java") is None:
        pytest.skip("Flink needs Java")
    try:
        return flink_job_server()
    except PlatformError as error:
        pytest.skip(f"Flink's job server is not to be had: {error.got}")
