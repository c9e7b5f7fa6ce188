"""A target that has `training`: the train task is the launcher, told all that it needs when it is compiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tidemill.errors import UsageError
from tidemill.vertex.training import TrainingSettings
from tidemill_pipelines.targets.compilation import Compiled, ImagesFile, compile_package
from tidemill_pipelines.targets.config import ConfigError, parse_target

ROOT = Path(__file__).parents[2]
LENDING = ROOT / "pipelines" / "problems" / "lending"
REGISTRY = "europe-west1-docker.pkg.dev/example-project/tidemill"
NAMES = ("control", "validation", "tensorflow", "tensorflow-gpu", "tensorflow-tpu", "serving")
IMAGES = ImagesFile("0.1.0", "10cc", "c0ffee", {name: f"{REGISTRY}/{name}@sha256:{'0' * 64}" for name in NAMES})
TARGET = """
kind: vertex
pipeline_root: gs://example-bucket/root
service_account: tidemill-pipeline@example-project.iam.gserviceaccount.com
labels: {team: risk}
defaults: {cpu: 4, memory: 16G, retries: {count: 2}}
vertex: {project: example-project, region: europe-west1}
"""


def compiled(training: str = "", rest: str = "") -> Compiled:
    target = parse_target(
        f"{TARGET}{rest}\n" + (f"training: {{kind: vertex, {training}}}" if training else ""), "t.yaml"
    )
    return compile_package(LENDING, "training", target, IMAGES, source="gs://example-bucket/loans.csv")


def train_task(made: Compiled) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the train task and its container."""
    tasks = made.package.spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    executor = made.package.spec["components"][tasks["train"]["componentRef"]["name"]]["executorLabel"]
    return tasks["train"], made.package.spec["deploymentSpec"]["executors"][executor]["container"]


def test_without_training_the_task_trains_itself() -> None:
    task, container = train_task(compiled())
    assert container["image"] == IMAGES.images["tensorflow"]
    assert "settings" not in task["inputs"].get("parameters", {})


@pytest.mark.parametrize(
    ("training", "image"),
    [
        ("workers: 2, machine: n1-highmem-8", "tensorflow"),
        ("workers: 4, machine: a2-highgpu-1g, strategy: flex_start", "tensorflow-gpu"),
        ("accelerator: {type: NVIDIA_TESLA_T4}", "tensorflow-gpu"),
        ("machine: ct5lp-hightpu-4t, strategy: spot", "tensorflow-tpu"),
    ],
)
def test_the_train_task_is_the_launcher_in_the_control_image(training: str, image: str) -> None:
    made = compiled(training)
    task, container = train_task(made)
    assert container["image"] == IMAGES.images["control"]
    told = task["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"]
    settings = TrainingSettings.parse(json.loads(json.dumps(told), parse_int=float))  # as KFP hands it over
    assert settings.image == IMAGES.images[image]
    assert settings.location == "projects/example-project/locations/europe-west1"
    assert settings.service_account == "tidemill-pipeline@example-project.iam.gserviceaccount.com"
    assert settings.labels == {"team": "risk"}
    assert task["retryPolicy"]["maxRetryCount"] == 2
    plain, _ = train_task(compiled())
    assert task["inputs"]["artifacts"] == plain["inputs"]["artifacts"]


def test_an_image_of_ones_own_trains() -> None:
    image = f"{REGISTRY}/own@sha256:{'1' * 64}"
    task, _ = train_task(compiled(f"image: '{image}'"))
    assert task["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"]["image"] == image


def test_faults_of_the_targets_file_are_told_together() -> None:
    with pytest.raises(ConfigError) as told:
        compiled("machine: ct5lp-hightpu-4t, workers: 2, strategy: flex_start, max_wait_s: -1, timeout_s: 700000")
    assert "training.max_wait_s: Input should be" in str(told.value)
    assert "training.timeout_s: Input should be" in str(told.value)
    with pytest.raises(ConfigError) as told:
        compiled("machine: ct5lp-hightpu-4t, workers: 2, strategy: flex_start, reservation: any")
    for part in ("`workers` must be 1 on TPUs", "flex_start is for GPUs", "flex_start can't use a reservation"):
        assert part in str(told.value)
    with pytest.raises(ConfigError, match=r"`training.kind` must be vertex"):
        compiled(rest="training: {kind: kubernetes}")


def test_what_hangs_on_the_rest_of_the_file_is_told_when_compiled() -> None:
    place = "projects/example-project/locations"
    with pytest.raises(UsageError, match=r"`training\.tensorboard` must be in europe-west1"):
        compiled(f"tensorboard: {place}/us-central1/tensorboards/42")
    with pytest.raises(UsageError, match=r"give `vertex\.network`"):
        compiled("reserved_ip_ranges: [vertex]")


def tuning(training: str, **more: str) -> Any:
    target = parse_target(f"{TARGET}\ntraining: {{kind: vertex, {training}}}", "target.yaml")
    overrides = {"tuning": "{space: {learning_rate: {low: 0.001, high: 0.1, log: true}}, budget: {trials: 6}}", **more}
    made = compile_package(LENDING, "tuning", target, IMAGES, overrides, source="gs://example-bucket/loans.csv")
    return made.package.spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]


def test_a_managed_tuning_is_one_task_and_its_best_hyperparameters_train() -> None:
    tasks = tuning("managed_tuning: true, machine: n1-highmem-8")
    assert not [name for name in tasks if name.startswith(("suggest", "for-loop"))]
    told = tasks["tune"]["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"]
    assert told == tasks["train"]["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"]
    assert tasks["conclude"]["inputs"]["artifacts"]["before"]["taskOutputArtifact"]["producerTask"] == "tune"
    hyperparameters = tasks["train"]["inputs"]["artifacts"]["hyperparameters"]
    assert hyperparameters["taskOutputArtifact"]["producerTask"] == "conclude"


def test_a_managed_tuning_whose_training_starts_from_the_champion_is_refused() -> None:
    with pytest.raises(UsageError, match=r"training\.start_from: can't be champion where a service tunes"):
        tuning("managed_tuning: true, machine: n1-highmem-8", **{"training.start_from": "champion"})


def test_without_it_the_pipeline_tunes_in_rounds_of_its_own() -> None:
    tasks = tuning("machine: n1-highmem-8")
    assert "tune" not in tasks
    assert [name for name in tasks if name.startswith("suggest")]
