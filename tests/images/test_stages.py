"""Each stage does a tiny job inside the image that its component names, as a cluster would let it."""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
import socket
import time
import urllib.request
from pathlib import Path

import podman_cli
import pytest
from podman_cli import Images

from tidemill.images import TENSORFLOW, environment_of

SMOKE = Path(__file__).parent / "smoke"
PREPARATION = "prepare"
# In the order in which each needs what those before it wrote; by the component that names the image.
STAGES = {
    PREPARATION: None,
    "find_champion": "register",
    "locate": "ingest",
    "ingest": "ingest",
    "validate": "validate",
    "transform": "transform",
    "fold": "tune",
    "suggest": "tune",
    "trial": "tune",
    "conclude": "tune",
    "train": "train",
    "compress": "compress",
    "evaluate": "evaluate",
    "rehearse": "rehearse",
    "gate": "gate",
    "register": "register",
    "deploy": "deploy",
    "report": "report",
}


def image_of(stage: str) -> str:
    package = STAGES[stage]
    if package is None:
        return TENSORFLOW
    component = getattr(importlib.import_module(f"tidemill.{package}.component"), stage)
    return str(component.component_spec.implementation.container.image)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the images' user may write to."""
    directory = tmp_path_factory.mktemp("work")
    shutil.copytree(podman_cli.ROOT / "pipelines" / "problems" / "lending", directory / "problem")
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o777)
    return directory


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_works_in_its_image(images: Images, work: Path, stage: str) -> None:
    reference = images[environment_of(image_of(stage))]
    command = ("python3", "/smoke/stages.py", "/work", stage)
    done = podman_cli.run(reference, *command, mounts={work: "/work", SMOKE: "/smoke:ro"}, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_serving_image_answers_as_vertex_ai_asks_and_knows_its_health(images: Images, work: Path) -> None:
    """Vertex AI sets AIP_*, Kubernetes probes the same routes, docker and podman run the HEALTHCHECK."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = {"STORAGE_URI": "/model", "HTTP_PORT": port, "PREDICT_ROUTE": "/predict", "HEALTH_ROUTE": "/health"}
    variables = [f"--env=AIP_{name}={value}" for name, value in told.items()]
    restricted = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", f"--volume={work / 'model'}:/model:ro"]
    container = podman_cli.podman("run", "--detach", "--network=host", *restricted, *variables, images["serving"])
    name = container.stdout.strip()
    try:
        assert podman_cli.podman("healthcheck", "run", name, check=False).returncode != 0, "healthy before it is ready"
        deadline = time.monotonic() + 60
        while podman_cli.podman("healthcheck", "run", name, check=False).returncode != 0:
            assert time.monotonic() < deadline, podman_cli.podman("logs", name).stderr
            time.sleep(0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as response:
            assert response.status == 200
        example = json.loads((work / "deployment" / "deployment.json").read_text())["curl"]
        instances = shlex.split(example)[-2]
        request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", instances.encode())
        with urllib.request.urlopen(request) as response:
            assert 0 <= json.loads(response.read())["predictions"][0]["probability"] <= 1
    finally:
        podman_cli.podman("rm", "--force", "--time=5", name)


def test_every_stage_of_the_pipelines_is_tried(images: Images) -> None:
    from tidemill_pipelines.choices import Choices
    from tidemill_pipelines.pipelines import load_pipeline

    pipelines = [load_pipeline("training", choices=Choices(compresses=True)), load_pipeline("tuning")]
    names = {name for pipeline in pipelines for name in pipeline.pipeline_spec.components}
    used = {name.removeprefix("comp-").replace("-", "_") for name in names}
    others = ("importer", "exit_handler", "for_loop")
    components = {name.rstrip("_0123456789") for name in used if not name.startswith(others)}
    assert components <= set(STAGES), "a component of the pipeline is not tried in its image"
