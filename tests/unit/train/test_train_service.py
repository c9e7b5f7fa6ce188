"""A worker in Vertex AI's training service: who trains, and where the learning curves are taken from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tidemill.train.place import Place
from tidemill.train.service import publish_curves, trainers

CLUSTER = {"chief": ["cmle-training-workerpool0-0:2222"], "worker": ["a:2222", "b:2222"]}
TASK = {"type": "worker", "index": 1, "trial": "3"}


def test_a_reduction_server_is_no_part_of_the_cluster_that_trains() -> None:
    told = trainers(json.dumps({"cluster": {**CLUSTER, "ps": ["c:2222"]}, "task": TASK, "environment": "cloud"}))
    assert json.loads(told or "") == {"cluster": CLUSTER, "task": TASK, "environment": "cloud"}
    assert Place.read({"TF_CONFIG": told or ""}) == Place(2, 3)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"cluster": []}', "{}"])
def test_what_is_no_cluster_stays_for_whoever_reads_it(text: str | None) -> None:
    assert trainers(text) == text


def test_one_machine_alone_is_its_own_chief() -> None:
    alone = {"cluster": {"chief": ["a:2222"]}, "task": {"type": "chief", "index": 0}}
    assert Place.read({"TF_CONFIG": trainers(json.dumps(alone)) or ""}) == Place(0, 1)


def test_learning_curves_go_where_they_are_sent_from(tmp_path: Path) -> None:
    written = tmp_path / "history" / "tensorboard" / "train" / "events.1"
    written.parent.mkdir(parents=True)
    written.write_bytes(b"curves")
    publish_curves(tmp_path / "history", {})
    publish_curves(tmp_path / "history", {"AIP_TENSORBOARD_LOG_DIR": str(tmp_path / "logs")})
    publish_curves(tmp_path / "history", {"AIP_TENSORBOARD_LOG_DIR": str(tmp_path / "logs")})  # after a restart
    assert (tmp_path / "logs" / "train" / "events.1").read_bytes() == b"curves"
