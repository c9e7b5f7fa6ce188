"""The income problem's own preprocessing and model, from a table through ingest, transform and train."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from tidemill.artifacts import SAVED_MODEL, ModelManifest, parts
from tidemill.bundle import pack
from tidemill.instances import arrays_from_batch
from tidemill.problem import load_problem

tf = pytest.importorskip("tensorflow", reason="needs the tensorflow environment")

PROBLEM = Path(__file__).parents[3] / "pipelines" / "problems" / "income"
OVERRIDES = {
    "user_code.preprocessing": "preprocessing:preprocessing_fn",
    "user_code.model": "model:build_model",
    "training.max_epochs": "3",
    "training.batch_size": "32",
    "training.learning_rate": "0.01",
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # TensorFlow's and Beam's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # google.api_core tells when Python 3.11 ends
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # tf.Transform leaves its vocabulary files to the collector
]


def write_census(path: Path, rows: int) -> None:
    """Writes an invented table with the columns of the census extract, some values missing as ``?``."""
    rng = random.Random(5)
    with path.open("w", newline="") as file:
        writer = None
        for _ in range(rows):
            schooling, age = rng.randint(1, 16), rng.randint(17, 90)
            row = {
                "age": age,
                "workclass": rng.choice(["Private", "State-gov", "?"]),
                "fnlwgt": rng.randint(20_000, 500_000),
                "education": f"level-{schooling}",
                "education-num": schooling,
                "marital-status": rng.choice(["Divorced", "Married"]),
                "occupation": rng.choice(["Sales", "Tech", "?"]),
                "relationship": rng.choice(["Husband", "Wife", "Own-child"]),
                "race": rng.choice(["Black", "White"]),
                "sex": rng.choice(["Female", "Male"]),
                "capital-gain": rng.choice([0, 0, 0, 5000]),
                "capital-loss": rng.choice([0, 0, 1500]),
                "hours-per-week": rng.randint(10, 80),
                "native-country": rng.choice(["?", "Peru", "Laos"]),
                "income-per-year": ">50K" if schooling + age / 10 + rng.gauss(0, 2) > 14 else "<=50K",
            }
            if writer is None:
                writer = csv.DictWriter(file, row)
                writer.writeheader()
            writer.writerow(row)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a directory with the artefacts of the three stages."""
    from tidemill.ingest.run import run as ingest
    from tidemill.train.run import run as train
    from tidemill.transform.run import run as transform

    root = tmp_path_factory.mktemp("income")
    write_census(root / "census.csv", 1500)
    bundle = pack(load_problem(PROBLEM, OVERRIDES), PROBLEM, root / "bundles")
    (root / "schema").mkdir()
    ingest(bundle, str(root / "census.csv"), "", root / "examples")
    transform(bundle, root / "examples", root / "schema", root / "graph", root / "transformed")
    report = train(bundle, root / "transformed", root / "graph", root / "model", root / "history", root / "checkpoints")
    assert report.model == "model:build_model"
    assert report.metrics["auc"] is not None
    assert report.metrics["auc"] > 0.8
    return root


def test_it_learns_and_its_export_answers_raw_rows_missing_values_included(trained):
    import pyarrow.parquet as pq

    manifest = ModelManifest.read(trained / "model")
    table = pq.read_table(parts(trained / "examples", "test")[0])
    assert table["workclass"].null_count > 0
    serve = tf.saved_model.load(str(trained / "model" / SAVED_MODEL)).signatures["serving_default"]
    arrays = arrays_from_batch(table, manifest.inputs)
    answers = serve(**{name: tf.constant(array) for name, array in arrays.items()})
    probability = answers["probability"].numpy()
    assert probability.shape == (table.num_rows,)
    assert ((probability > 0) & (probability < 1)).all()
    rich = [label == ">50K" for label in table["income-per-year"].to_pylist()]
    assert probability[rich].mean() > probability[[not r for r in rich]].mean() + 0.2


def test_neither_sensitive_columns_nor_the_sampling_weight_are_inputs(trained):
    assert not {"sex", "race", "fnlwgt"} & set(ModelManifest.read(trained / "model").inputs)
