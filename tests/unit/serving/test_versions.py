"""Versions come and go under load without a failed request."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidemill.artifacts import ModelManifest
from tidemill.errors import DataError, PlatformError
from tidemill.files import write_json
from tidemill.serving.model import load
from tidemill.serving.registry import Registry
from tidemill.serving.settings import Settings
from tidemill.serving.storage import fetch

PREDICT = "/v1/models/toy:predict"
ROW = {"age": 31.5, "hours": 40, "job": "clerk"}


def nothing_kept(extra: Path, version: int) -> None:
    write_json(extra / "lineage.json", {"version": version})


def eventually(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


class Load:
    """Clients that ask without pause, and what they got."""

    def __init__(self, server: Any, toy: Any) -> None:
        self.failures: list[Any] = []
        self.answers: dict[str, int] = {}
        self._server, self._toy, self._stop = server, toy, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]

    def _ask(self) -> None:
        with self._server.client() as client:
            while not self._stop.is_set():
                answer = client.post(PREDICT, {"instances": [ROW]})
                version = answer.headers.get("x-model-version", "none")
                self.answers[version] = self.answers.get(version, 0) + 1
                expected = self._toy.probability(ROW, int(version) - 1) if answer.status == 200 else None
                if expected is None or abs(answer.value["predictions"][0]["probability"] - expected) > 1e-6:
                    self.failures.append((answer.status, version, answer.value))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def registry(models: list[Path], tmp_path: Path) -> Registry:
    """Version 1, of shift 0, is the champion."""
    registry = Registry(tmp_path / "registry", "toy")
    registry.promote(registry.add(models[0], nothing_kept, "run-1"))
    return registry


@pytest.fixture
def following(registry: Registry, serve: Callable[..., Any]) -> Iterator[Any]:
    """A server that follows the registry."""
    settings = Settings(registry=registry.path.parent, model="toy", poll_s=0.05, retry_s=0.5)
    with serve(settings) as running:
        running.wait_for_version(1)
        yield running


def test_versions_are_swapped_and_rolled_back_without_a_failed_request(
    registry: Registry, following: Any, models: list[Path], toy: Any
) -> None:
    before = weakref.ref(following.server.versions.default.model)
    with following.client() as client, Load(following, toy) as load:
        version = registry.add(models[1], nothing_kept, "run-2")
        eventually(lambda: client.get("/v1/models/toy/versions/2").status == 200)
        eventually(
            lambda: client.get("/v1/models/toy/versions/2").value["model_version_status"][0]["state"] == "AVAILABLE"
        )
        challenged = client.post("/v1/models/toy/versions/2:predict", {"instances": [ROW]})
        assert challenged.value["predictions"][0]["probability"] == pytest.approx(toy.probability(ROW, 1), abs=1e-6)
        assert client.post(PREDICT, {"instances": [ROW]}).headers["x-model-version"] == "1"
        registry.promote(version)
        following.wait_for_version(2)
        eventually(lambda: client.post("/v1/models/toy/versions/1:predict", {"instances": [ROW]}).status == 404)
        eventually(lambda: gc.collect() is not None and before() is None)
        registry.rollback()
        following.wait_for_version(1)
        registry.promote(registry.add(models[2], nothing_kept, "run-3"))
        following.wait_for_version(3)
    assert load.failures == []
    assert set(load.answers) == {"1", "2", "3"}


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_answering(
    registry: Registry, following: Any, models: list[Path], toy: Any, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(models[1], broken)
    (broken / "saved_model" / "saved_model.pb").write_bytes(b"not a model")
    with following.client() as client, Load(following, toy) as load:
        registry.promote(registry.add(broken, nothing_kept, "run-2"))
        eventually(lambda: "tidemill_serving_load_failures_total 1.0" in client.get("/metrics").value)
        newest, oldest = client.get("/v1/models/toy").value["model_version_status"]
        assert (newest["version"], newest["state"]) == ("2", "END")
        assert "the SavedModel cannot be loaded" in newest["status"]["error_message"]
        assert (oldest["state"], oldest["default"]) == ("AVAILABLE", True)
        assert "tidemill_serving_champion_behind 1.0" in client.get("/metrics").value
        assert client.get("/readyz").value["version"] == 1
        # What was wrong with the disk may pass: it is tried again.
        shutil.copy(models[1] / "saved_model" / "saved_model.pb", registry.directory(2))
        following.wait_for_version(2)
        assert "tidemill_serving_champion_behind 0.0" in client.get("/metrics").value
    assert load.failures == []


def test_before_there_is_a_champion_only_the_challenger_can_be_asked(
    models: list[Path], tmp_path: Path, serve: Callable[..., Any]
) -> None:
    registry = Registry(tmp_path / "registry", "toy")
    with (
        serve(Settings(registry=tmp_path / "registry", model="toy", poll_s=0.05)) as running,
        running.client() as client,
    ):
        assert client.get("/livez").status == 200
        assert client.get("/readyz").status == 503
        assert client.get("/v1/models/toy").value == {"model_version_status": []}
        version = registry.add(models[0], nothing_kept, "run-1")
        path = f"/v1/models/toy/versions/{version}:predict"
        eventually(lambda: client.post(path, {"instances": [ROW]}).status == 200)
        refused = client.post(PREDICT, {"instances": [ROW]})
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        registry.promote(version)
        running.wait_for_version(version)


def test_aliases_that_cannot_be_read_leave_what_is_served(registry: Registry, following: Any) -> None:
    (registry.path / "aliases.json").write_text("{")
    time.sleep(0.3)
    with following.client() as client:
        assert client.get("/readyz").value["version"] == 1


def test_a_model_of_another_name_is_not_served(models: list[Path], tmp_path: Path, serve: Callable[..., Any]) -> None:
    registry = Registry(tmp_path, "other")
    registry.promote(registry.add(models[0], nothing_kept, "run-1"))
    with serve(Settings(registry=tmp_path, model="other", poll_s=0.05)) as running, running.client() as client:
        eventually(lambda: client.get("/v1/models/other").value["model_version_status"][0]["state"] == "END")
        (status,) = client.get("/v1/models/other").value["model_version_status"]
        assert "the model must be other (got toy)" in status["status"]["error_message"]


def test_a_directory_named_by_a_number_is_that_version(
    models: list[Path], tmp_path: Path, serve: Callable[..., Any]
) -> None:
    shutil.copytree(models[0], tmp_path / "17")
    with serve(Settings(storage_uri=str(tmp_path / "17"))) as running:
        running.wait_for_version(17)


def test_a_remote_model_is_copied(models: list[Path]) -> None:
    copied = fetch(f"file://{models[0]}")
    assert copied != models[0]
    assert ModelManifest.read(copied) == ModelManifest.read(models[0])
    assert load(copied).signatures.keys() == load(models[0]).signatures.keys()
    with pytest.raises(PlatformError, match="cannot be copied"):
        fetch("nosuchscheme://bucket/model")


@pytest.fixture
def damaged(models: list[Path], tmp_path: Path) -> Path:
    shutil.copytree(models[0], tmp_path / "damaged")
    return tmp_path / "damaged"


def test_a_model_without_manifest_is_refused(damaged: Path) -> None:
    (damaged / "model.json").unlink()
    with pytest.raises(DataError, match="manifest cannot be read"):
        load(damaged)


def test_a_model_whose_inputs_are_not_those_of_its_manifest_is_refused(damaged: Path) -> None:
    manifest = json.loads((damaged / "model.json").read_text())
    write_json(damaged / "model.json", {**manifest, "inputs": {"age": "float32"}})
    with pytest.raises(DataError, match=r"must be those of model\.json"):
        load(damaged)


def test_a_model_must_have_a_default_signature_of_one_value_per_row(tmp_path: Path, damaged: Path) -> None:
    import tensorflow as tf

    class Other(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="age")])
        def wide(self, age: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"value": tf.reduce_sum(age, 1)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="age")])
        def total(self, age: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"value": tf.reduce_sum(age)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="age")])
        def strict(self, age: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"value": tf.debugging.check_numerics(age, "missing")}

    manifest = json.loads((damaged / "model.json").read_text())
    write_json(damaged / "model.json", {**manifest, "inputs": {"age": "float32"}})

    def exported(**signatures: Any) -> Path:
        shutil.rmtree(damaged / "saved_model")
        tf.saved_model.save(other, str(damaged / "saved_model"), signatures=signatures)
        return damaged

    other = Other()
    with pytest.raises(DataError, match="needs a signature serving_default"):
        load(exported(predict=other.total))
    with pytest.raises(DataError, match=r"float32, int64 or string of shape \[None\]"):
        load(exported(serving_default=other.wide))
    with pytest.raises(DataError, match="output value: must have one entry per row"):
        load(exported(serving_default=other.total)).warm_up((1, 2))
    with pytest.raises(DataError, match="must answer a row whose features are all missing"):
        load(exported(serving_default=other.strict)).warm_up((1, 2))
    assert set(load(exported(serving_default=other.strict, wide=other.wide)).signatures) == {"serving_default"}
