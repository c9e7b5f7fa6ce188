"""The training pipeline of a small problem, container by container, through KFP's own DockerRunner."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker_runner
import podman_cli
import pytest
from docker.errors import NotFound
from docker.types import Ulimit
from kfp import compiler, components, dsl, local
from kfp.local import docker_task_handler
from podman_cli import Images

from tidemill.images import CONTROL, environment_of
from tidemill.runs import RunRecord, read_tasks
from tidemill.serving.registry import Registry
from tidemill_pipelines.pipelines import load_pipeline
from tidemill_pipelines.targets.config import TargetConfig
from tidemill_pipelines.targets.settlement import Settlement, settled

# Names for people, and what a cluster is asked for, change nothing in an execution here.
pytestmark = pytest.mark.filterwarnings(r"ignore:Task .* have no effect in the current local runner:UserWarning")
SMOKE = Path(__file__).parent / "smoke"
VIEWS = {"data_bundle": "data", "feature_bundle": "features", "model_bundle": "model", "whole_bundle": "whole"}


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def end_with(code: int, mark: str):
    """Leaves a mark and ends at once, as a stage that failed does: no exception, no cleaning up."""
    import os
    from pathlib import Path

    Path(mark).touch()
    os._exit(code)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A pipeline root that the images' user may write to, at the same path inside and outside of containers."""
    tmp_path.chmod(0o777)
    return tmp_path


@pytest.fixture
def runner(images: Images, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """KFP's DockerRunner on podman, each container restricted as a cluster would restrict it."""
    with podman_cli.socket(root) as address, docker_runner.failures_seen():
        monkeypatch.setenv("DOCKER_HOST", address)
        restricted = local.DockerRunner(
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": ""},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            ulimits=[Ulimit(name="nofile", soft=1024, hard=20000), Ulimit(name="nproc", soft=10000, hard=10000)],
        )
        local.init(restricted, pipeline_root=str(root), raise_on_error=True)
        yield


def compiled(pipeline: Any, images: Images, root: Path) -> Any:
    """Returns a pipeline as its compiled IR has it, with images by digest, settled as a remote target does."""
    target = TargetConfig(kind="vertex")
    settlement = Settlement(target, lambda name: images[environment_of(name)], "lending", "tried", str(root / "runs"))
    made = dsl.pipeline(name="tried")(settled(pipeline, settlement))
    compiler.Compiler().compile(made, str(root / "pipeline.yaml"))
    return components.load_component_from_file(str(root / "pipeline.yaml"))


def test_the_training_pipeline_releases_a_model_in_containers(images: Images, root: Path, runner: None) -> None:
    shutil.copytree(podman_cli.ROOT / "pipelines" / "problems" / "lending", root / "problem")
    mounts = {root: str(root), SMOKE: "/smoke:ro"}
    podman_cli.run(images["tensorflow"], "python3", "/smoke/stages.py", str(root), "prepare", mounts=mounts)
    pipeline = compiled(load_pipeline("training"), images, root)
    pipeline(
        **{parameter: str(next((root / "bundles" / view).glob("*.zip"))) for parameter, view in VIEWS.items()},
        source=str(root / "loans.csv"),
        registry=str(root / "registry"),
        endpoints=str(root / "endpoints"),
    )
    run_dir = next(path for path in (root / "runs").iterdir() if not path.name.startswith("."))
    record = RunRecord.read(run_dir)
    assert record.verdict == "released"
    assert record.environment["uv.lock sha256"] == images.file["lock"]
    assert record.environment["git commit"] == images.file["commit"]
    ran = {task.name: task for task in read_tasks(run_dir)}
    assert set(record.stages) <= set(ran)
    assert {task.code for task in ran.values()} == set(images.file["images"].values())
    assert Registry(root / "registry", "lending").aliases().champion == 1


def test_a_container_that_fails_fails_its_task_and_ends_the_pipeline(images: Images, root: Path, runner: None) -> None:
    """The canary: were failures not seen, the released model above would prove nothing."""

    def canary() -> None:
        before = end_with(code=0, mark=f"{root}/before")
        failing = end_with(code=3, mark=f"{root}/must-fail").after(before)
        end_with(code=0, mark=f"{root}/never").after(failing)

    with pytest.raises(RuntimeError, match=r"FAILURE.*end-with-2"):
        compiled(dsl.pipeline(name="canary")(canary), images, root)()
    assert [mark for mark in ("before", "must-fail", "never") if (root / mark).exists()] == ["before", "must-fail"]


class Gone:
    """A docker client whose containers end with 3 and, if told to remove themselves, are gone when asked."""

    def __init__(self) -> None:
        self.images = self.containers = self

    def list(self) -> list[Any]:
        return [SimpleNamespace(tags=["x:1"], attrs={"RepoDigests": []})]

    def run(self, auto_remove: bool = False, **_: Any) -> Any:
        def wait() -> dict[str, int]:
            if auto_remove:
                raise NotFound("no such container")
            return {"StatusCode": 3}

        return SimpleNamespace(wait=wait, logs=lambda **_: iter(()) if auto_remove else b"", remove=lambda **_: None)


def test_the_runner_is_mended_where_kfp_takes_a_container_that_is_gone_for_success() -> None:
    """When kfp sees for itself that the container failed, the seam can go."""
    call = {"client": Gone(), "image": "x:1", "command": [], "volumes": {}}
    assert docker_task_handler.run_docker_container(**call) == 0
    with docker_runner.failures_seen():
        assert docker_task_handler.run_docker_container(**call) == 3
