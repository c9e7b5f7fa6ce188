"""A training starts from another model's weights by name, keeps layers as they are, and says what it did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tidemill.artifacts import ModelManifest
from tidemill.errors import DataError, PlatformError, ProblemError
from tidemill.files import digest_tree
from tidemill.network import read_weights
from tidemill.train.architectures import ARCHITECTURES
from tidemill.train.checkpoints import Checkpoints
from tidemill.train.context import LabelSummary, TrainContext
from tidemill.train.freezing import Freezing
from tidemill.train.optimizers import averaged
from tidemill.train.run import run
from tidemill.train.steps import Steps
from tidemill.train.vocabularies import Rows
from tidemill.training import FineTuning, Training
from tidemill.transform.features import TransformedFeature

SETTINGS = {"max_epochs": 2, "batch_size": 64, "learning_rate": 0.01, "hidden_units": [8, 4]}


@pytest.fixture(scope="module")
def champion(make_inputs) -> Path:
    """Returns the artefact of a trained model."""
    paths = make_inputs(rows=400, training=SETTINGS).arguments("run")
    run(**paths)
    return paths["model"]


def weights(model: Path) -> dict[str, np.ndarray]:
    return dict(read_weights(model))


def untrained(make_inputs, **settings):
    """Returns inputs for a training that leaves the weights about where they start."""
    return make_inputs(rows=400, training={**SETTINGS, "learning_rate": 1e-9, "max_epochs": 1, **settings})


def test_all_weights_of_the_same_problem_are_the_champions(make_inputs, champion):
    paths = untrained(make_inputs, start_from="champion").arguments("run")
    report = run(**paths, champion=champion)
    assert report.started.address == "champion"
    assert report.started.digest == digest_tree(champion)
    assert not report.started.left
    assert not report.started.rows
    theirs = weights(champion)
    assert report.started.copied == len(theirs)
    for path, value in weights(paths["model"]).items():
        np.testing.assert_allclose(value, theirs[path], atol=1e-5)
    assert ModelManifest.read(paths["model"]).lineage["start_from"] == digest_tree(champion)


def test_without_a_champion_yet_training_starts_from_scratch_and_freezes_nothing(make_inputs, tmp_path, capsys):
    fine_tuning = {"freeze": ["hidden_*"]}
    paths = make_inputs(
        rows=400, training={**SETTINGS, "start_from": "champion", "fine_tuning": fine_tuning}
    ).arguments("run")
    plain = make_inputs(rows=400, training=SETTINGS).arguments("run")
    report = run(**paths, champion=tmp_path)
    run(**plain)
    assert (report.started.address, report.started.digest, report.started.copied) == ("champion", None, 0)
    assert "there is no champion yet to start from" in capsys.readouterr().out
    lineages = [ModelManifest.read(p["model"]).lineage for p in (paths, plain)]
    assert lineages[0]["weights"] == lineages[1]["weights"]


def test_the_champion_needs_a_pipeline(make_inputs):
    with pytest.raises(ProblemError, match=r"training.start_from: the champion needs a pipeline"):
        run(**untrained(make_inputs, start_from="champion").arguments("run"))


def test_rows_of_tables_go_by_what_they_stand_for(make_inputs, champion, tmp_path):
    """The new vocabulary has other words in other places; unknown ones keep their initial rows."""
    inputs = untrained(make_inputs, start_from="champion")
    graph = tmp_path / "graph"
    shutil.copytree(inputs.transform_graph, graph)
    (vocabulary,) = (graph / "transform_fn" / "assets").glob("vocabulary_002_*.txt")
    vocabulary.write_text("".join(f"{term}\n" for term in ("␀", "blue", "red", "pink", "grey")))
    paths = {**inputs.arguments("run"), "transform_graph": graph}
    report = run(**paths, champion=champion)
    mine, theirs = weights(paths["model"]), weights(champion)
    # Of the ids (missing), red, green, blue, grey, (other).
    (table,) = [path for path in mine if path.startswith("embeddings_")]
    assert report.started.rows == {"wide/table": "5 of 6", table: "5 of 6"}
    for path in ("wide/table", table):
        np.testing.assert_allclose(mine[path][[0, 1, 2, 4, 5]], theirs[path][[0, 3, 1, 4, 5]], atol=1e-6)
        assert not np.allclose(mine[path][3], theirs[path][2], atol=1e-6)


def test_what_does_not_match_stays_and_is_told(make_inputs, champion, capsys):
    paths = untrained(make_inputs, start_from="champion", hidden_units=[8, 5, 3]).arguments("run")
    report = run(**paths, champion=champion)
    assert report.started.left == {
        "hidden_1/kernel": "its shape is [8, 5], and there [8, 4]",
        "hidden_1/bias": "its shape is [5], and there [4]",
        "hidden_2/kernel": "there is none of that name",
        "hidden_2/bias": "there is none of that name",
        "deep/kernel": "its shape is [3, 1], and there [4, 1]",
    }
    assert report.started.copied == 7
    assert "train: hidden_2/kernel starts from scratch: there is none of that name" in capsys.readouterr().out


def test_a_champion_made_before_weights_lay_beside_is_told(make_inputs, champion, tmp_path):
    shutil.copytree(champion, tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "network")
    with pytest.raises(DataError, match=r"has no network/network.json"):
        run(**untrained(make_inputs, start_from="champion").arguments("run"), champion=tmp_path / "old")


def test_a_model_without_a_weight_in_common_is_refused(make_inputs, tmp_path):
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Dense(2, name="foreign")(inputs)).save(tmp_path / "foreign.keras")
    address = pinned(tmp_path / "foreign.keras")
    with pytest.raises(
        ProblemError,
        match=r"some weight must match .* \(got .*foreign.keras has foreign/kernel, foreign/bias\)\n  → give layers "
        r"the names that they have there; the model has ",
    ):
        run(**untrained(make_inputs, start_from=address).arguments("run"))


def pinned(path: Path, address: str | None = None) -> str:
    return f"{address or path}#sha256={digest_tree(path)}"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """Returns a directory with a model of one layer called like one of ours, in every format."""
    directory = tmp_path_factory.mktemp("pretrained")
    inputs = keras.Input((8,))
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "relu", name="hidden_1")], name="base")
    model = keras.Model(inputs, keras.layers.Dense(3, name="other")(inner(inputs)))
    model.save(directory / "model.keras")
    model.export(directory / "saved", verbose=False)
    np.save(directory / "kernel.npy", np.array(model.weights[0]))
    return directory


@pytest.mark.parametrize("name", ["model.keras", "saved"])
def test_a_keras_file_and_a_saved_model_give_the_weights_of_their_layers_names(make_inputs, pretrained, name):
    """`base/hidden_1/kernel` there is `hidden_1/kernel` here."""
    paths = untrained(make_inputs, start_from=pinned(pretrained / name)).arguments("run")
    report = run(**paths)
    assert report.started.copied == 2
    kernel = weights(paths["model"])["hidden_1/kernel"]
    np.testing.assert_allclose(kernel, np.load(pretrained / "kernel.npy"), atol=1e-6)
    assert "embeddings" in " ".join(report.started.left)


def test_an_address_may_be_a_uri_and_is_held_to_its_digest(make_inputs, pretrained):
    files = fsspec.filesystem("memory")
    files.put(str(pretrained / "model.keras"), "/bucket/model.keras")
    files.put(str(pretrained / "saved"), "/bucket/saved", recursive=True)
    for name in ("model.keras", "saved"):
        address = pinned(pretrained / name, f"memory://bucket/{name}")
        assert run(**untrained(make_inputs, start_from=address).arguments("run")).started.copied == 2
    file_uri = pinned(pretrained / "model.keras", f"file://{pretrained / 'model.keras'}")
    assert run(**untrained(make_inputs, start_from=file_uri).arguments("run")).started.copied == 2


@pytest.mark.parametrize(("suffix", "got"), [("", "none"), ("#sha256=" + "0" * 64, "#sha256=0000")])
def test_content_that_is_not_what_the_problem_says_is_refused_with_what_to_write(make_inputs, pretrained, suffix, got):
    path = pretrained / "model.keras"
    with pytest.raises(ProblemError, match=rf"must end in the digest .*\(got {got}.*\n.*write {pinned(path)}"):
        run(**untrained(make_inputs, start_from=f"{path}{suffix}").arguments("run"))


def test_an_address_with_nothing_there_is_refused(make_inputs, tmp_path):
    with pytest.raises(ProblemError, match=r"there is nothing at the address \(got .*missing.keras\)"):
        run(**untrained(make_inputs, start_from=f"{tmp_path}/missing.keras").arguments("run"))


def test_storage_that_cannot_be_read_is_the_platforms_fault(make_inputs):
    with pytest.raises(PlatformError, match=r"nosuch://bucket/model.keras: can't be read"):
        run(**untrained(make_inputs, start_from="nosuch://bucket/model.keras").arguments("run"))


def test_files_that_are_no_models_are_refused(make_inputs, tmp_path):
    (tmp_path / "notes.txt").write_text("weights")
    with pytest.raises(ProblemError, match=r"must name a model artefact, a SavedModel, a .keras or a .weights.h5 file"):
        run(**untrained(make_inputs, start_from=pinned(tmp_path / "notes.txt")).arguments("run"))
    (tmp_path / "torn.keras").write_text("no archive")
    with pytest.raises(ProblemError, match=r"the file must be one that Keras can load by itself \(got .*torn.keras"):
        run(**untrained(make_inputs, start_from=pinned(tmp_path / "torn.keras")).arguments("run"))


USER = """
import keras
from keras import layers


def build_model(context):
    inputs = context.inputs()
    x = layers.Concatenate()([inputs["edu_parts"], inputs["hours-per-week"][:, None]])
    color = layers.Embedding(context.vocabulary_sizes["1st color"], 2, name="colors")(inputs["1st color"])
    hidden = layers.Dense(8, "relu", name="first")(layers.Concatenate()([x, color]))
    output = context.probabilities()(layers.Dense(1, name="last")(hidden))
    model = keras.Model({k: inputs[k] for k in ("edu_parts", "hours-per-week", "1st color")}, output)
    model.compile(optimizer=context.optimizer(), loss=context.loss())
    return model
"""


def test_a_users_embedding_is_taken_over_while_its_vocabulary_is_the_same(make_inputs, tmp_path):
    inputs = make_inputs(rows=400, model=USER, training=SETTINGS)
    paths = inputs.arguments("first")
    run(**paths)
    settings = {**SETTINGS, "learning_rate": 1e-9, "max_epochs": 1, "start_from": "champion"}
    again = make_inputs(rows=400, model=USER, training=settings)
    report = run(**again.arguments("run"), champion=paths["model"])
    assert (report.started.copied, report.started.left) == (5, {})
    graph = tmp_path / "graph"
    shutil.copytree(inputs.transform_graph, graph)
    (vocabulary,) = (graph / "transform_fn" / "assets").glob("vocabulary_002_*.txt")
    vocabulary.write_text("".join(f"{term}\n" for term in ("␀", "blue", "red", "pink", "grey")))
    report = run(**{**again.arguments("other"), "transform_graph": graph}, champion=paths["model"])
    assert report.started.left == {
        "colors/embeddings": "its rows may stand for others, as the vocabulary of 1st color isn't the same"
    }


def test_a_weights_file_must_be_of_this_very_model(make_inputs, pretrained, tmp_path):
    """Such a file has no names of layers."""
    inputs = keras.Input((8,))
    keras.Model(inputs, keras.layers.Dense(3)(inputs)).save_weights(tmp_path / "other.weights.h5")
    start = pinned(tmp_path / "other.weights.h5")
    with pytest.raises(ProblemError, match=r"a .weights.h5 file must be of this very model"):
        run(**untrained(make_inputs, start_from=start).arguments("run"))
    own = ARCHITECTURES["linear"](context(Training(model="linear")))
    for variable in own.weights:
        variable.assign(np.full(variable.shape, 0.5))
    own.optimizer.build(own.trainable_variables)  # as if trained, with a rate that must not be taken over
    own.save_weights(tmp_path / "own.weights.h5")
    paths = untrained(make_inputs, model="linear", start_from=pinned(tmp_path / "own.weights.h5")).arguments("run")
    assert run(**paths).started.copied == len(own.weights)
    assert np.allclose(weights(paths["model"])["slopes/kernel"], 0.5)


FEATURES = (
    TransformedFeature("hours-per-week", "dense", 1, 0, "hours-per-week"),
    TransformedFeature("edu_parts", "dense", 2, 0, "education num"),
    TransformedFeature("1st color", "ids", 6, 0, "1st color"),
    TransformedFeature("note", "bag", 14, 5, "note"),
)


def context(training: Training) -> TrainContext:
    return TrainContext(
        task="binary_classification",
        classes=("no", "yes"),
        features=FEATURES,
        training=training,
        label=LabelSummary(10, 0.5, 0.5, (5, 5), 10.0),
        strategy=tf.distribute.get_strategy(),
        batch_size=4,
        steps_per_epoch=5,
        max_steps=100,
        checkpoints=Path("unused"),
    )


TRANSFER = """
import keras
from keras import layers


def build_model(context):
    base = keras.saving.load_model(context.pretrained(), compile=False)
    base.trainable = False
    inputs = context.inputs()
    wide = layers.Dense(8)(layers.Concatenate()([inputs["edu_parts"], inputs["hours-per-week"][:, None]]))
    output = context.probabilities()(layers.Dense(1)(base(wide)))
    model = keras.Model({k: inputs[k] for k in ("edu_parts", "hours-per-week")}, output)
    model.compile(optimizer=context.optimizer(), loss=context.loss())
    return model
"""


def test_user_code_may_take_the_pretrained_model_itself(make_inputs, pretrained):
    fsspec.filesystem("memory").put(str(pretrained / "model.keras"), "/own/model.keras")
    address = pinned(pretrained / "model.keras", "memory://own/model.keras")
    paths = make_inputs(rows=400, model=TRANSFER, training={**SETTINGS, "start_from": address}).arguments("run")
    report = run(**paths)
    assert (report.started.address, report.started.copied) == ("memory://own/model.keras", 0)
    assert report.started.digest == digest_tree(pretrained / "model.keras")
    (kernel,) = [v for path, v in weights(paths["model"]).items() if path.endswith("hidden_1/kernel")]
    np.testing.assert_array_equal(kernel, np.load(pretrained / "kernel.npy"))


def test_frozen_layers_keep_the_champions_weights(make_inputs, champion):
    settings = {**SETTINGS, "start_from": "champion", "fine_tuning": {"freeze": ["hidden_0", "wide*"]}}
    paths = make_inputs(rows=400, training=settings).arguments("run")
    run(**paths, champion=champion)
    mine, theirs = weights(paths["model"]), weights(champion)
    same = {path for path in mine if np.array_equal(mine[path], theirs[path])}
    assert same == {"hidden_0/kernel", "hidden_0/bias", "wide/table", "wide_bag_0/table"}


THAWING = {
    **SETTINGS,
    "max_epochs": 4,
    "start_from": "champion",
    "fine_tuning": {"freeze": ["hidden_0"], "unfreeze_after_epochs": 2},
    "schedule": {"kind": "cosine"},
    "checkpoint_every_steps": 3,
    "early_stopping_patience": None,
}


@pytest.fixture(scope="module")
def thawed(make_inputs, champion):
    """Returns the inputs and the paths of a training whose frozen layer thaws after two of four epochs."""
    inputs = make_inputs(rows=400, training=THAWING)
    paths = inputs.arguments("whole")
    run(**paths, champion=champion)
    return inputs, paths


def test_all_layers_are_trained_after_the_epochs_and_the_schedule_goes_on(thawed, champion):
    _, paths = thawed
    mine, theirs = weights(paths["model"]), weights(champion)
    assert not np.array_equal(mine["hidden_0/kernel"], theirs["hidden_0/kernel"])
    epochs = json.loads((paths["history"] / "history.json").read_text())["epochs"]
    rate = keras.optimizers.schedules.CosineDecay(0.01, 28)
    assert [e["learning_rate"] for e in epochs] == pytest.approx([float(rate(7 * i)) for i in (1, 2, 3, 4)], abs=1e-8)


class Killed(BaseException):
    """What no code of the training handles."""


@pytest.mark.parametrize("calls", [6, 7], ids=["when it thaws", "after it thawed"])
def test_a_killed_fine_tuning_goes_on_in_its_phase(thawed, champion, calls, monkeypatch):
    """7 steps per epoch and a checkpoint every 3 make 3 calls per epoch; one of the third epoch dies."""
    inputs, whole = thawed
    paths = {**inputs.arguments(f"killed-{calls}"), "champion": champion}
    left, train, save = calls, Steps.train, Checkpoints.save

    def dying(self, *arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return train(self, *arguments)

    def whole_checkpoint(self, *state):
        save(self, *state)
        self.finish()

    with monkeypatch.context() as patched:
        patched.setattr(Steps, "train", dying)
        patched.setattr(Checkpoints, "save", whole_checkpoint)
        with pytest.raises(Killed):
            run(**paths)
    report = run(**paths)
    assert report.resumed_from_step == (14 if calls == 6 else 15)
    lineages = [ModelManifest.read(p["model"]).lineage for p in (whole, paths)]
    assert lineages[0]["weights"] == lineages[1]["weights"]


def built(**optimizer) -> keras.Model:
    return ARCHITECTURES["wide_and_deep"](context(Training.model_validate({"optimizer": optimizer})))


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (
            ("hidden_0", "nosuch_*"),
            r"each pattern must match a layer that has weights to train \(got 'nosuch_\*'\)\n.*deep",
        ),
        (("dropout_0",), r"each pattern must match"),
        (("*",), r"must leave some layer to be trained \(got \*\)"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(freeze, message):
    with pytest.raises(ProblemError, match=message):
        Freezing(built(), FineTuning(freeze=freeze), 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fine_tuning": {"freeze": ["a"]}}, "`fine_tuning.freeze` needs `start_from`"),
        ({"fine_tuning": {"unfreeze_after_epochs": 1}}, "`unfreeze_after_epochs` needs `freeze`"),
        ({"start_from": "model.keras"}, "start_from"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Training.model_validate(settings)
    Training.model_validate({"start_from": "gs://bucket/model.keras"})


def test_an_optimizer_forgets_at_the_thaw_and_only_then():
    model = built(kind="adam")
    freezing = Freezing(model, FineTuning(freeze=("hidden_0",), unfreeze_after_epochs=2), 5)
    optimizer, initial = model.optimizer, [np.array(v) for v in model.optimizer.variables]

    def take_step() -> None:
        gradients = [tf.ones(v.shape) for v in model.trainable_variables]
        optimizer.apply(gradients, model.trainable_variables)

    take_step()
    assert not freezing.enter(1, 0)
    assert int(optimizer.iterations) == 1
    assert freezing.enter(2, 0)
    for variable, value in zip(optimizer.variables, initial, strict=True):
        np.testing.assert_array_equal(variable, value)
    take_step()
    assert not freezing.enter(2, 3)
    assert not freezing.enter(3, 0)
    assert int(optimizer.iterations) == 1


def test_averages_are_of_their_own_weights_where_some_layers_are_frozen():
    model = built(kind="sgd", ema=0.5)
    Freezing(model, FineTuning(freeze=("hidden_0", "embeddings_*")), 5)
    before = {v.path: np.array(v) for v in model.weights}
    for _ in range(2):
        model.optimizer.apply([tf.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    trained = {v.path for v in model.trainable_variables}
    with averaged(model):
        for variable in model.weights:
            moved = (0.003 + 0.006) / 2 if variable.path in trained else 0.0
            np.testing.assert_allclose(variable, before[variable.path] - moved, rtol=1e-4, atol=1e-6)


def test_ids_that_only_user_code_knows_are_equal_only_with_equal_vocabularies():
    first = Rows({"f": ["abc 0", "abc 1"]}, {"t": ["f"]})
    other = Rows({"f": ["abd 0", "abd 1"]}, {"t": ["f"]})
    assert not set(first.of_table("t")) & set(other.of_table("t"))
    assert first.of_table("u") is None


def test_ids_of_the_same_name_are_told_apart_by_their_order():
    rows = Rows({"a": ["x", "(other)", "(other)"], "b": ["x"]}, {"t": ["a", "b"]})
    assert rows.of_table("t") == [("a", "x", 0), ("a", "(other)", 0), ("a", "(other)", 1), ("b", "x", 0)]
