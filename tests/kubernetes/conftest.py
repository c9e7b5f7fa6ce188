"""A KFP and a Kubernetes API server of our own on loopback, in a network that has nothing else."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_FAKES = Path(__file__).parent.parent / "fakes"
sys.path[:0] = [str(path) for path in (_FAKES / "kfp", _FAKES / "cluster") if str(path) not in sys.path]

_NEW_NETWORK = 0x40000000


@pytest.fixture(scope="session")
def _loopback() -> Iterator[tuple[Any, int, int] | None]:
    """A network namespace with nothing but loopback, as (libc, this process's own, it); None without the right to one.

    There is one for the session: libraries keep threads, which stay in the namespace that they were made in.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if os.geteuid() != 0 or libc.unshare(_NEW_NETWORK) != 0:  # a container may be root without that right
        yield None
    else:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        inside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        assert libc.setns(outside, _NEW_NETWORK) == 0
        yield libc, outside, inside
        os.close(inside)
    os.close(outside)


@pytest.fixture(autouse=True, scope="module")
def _nothing_leaves(request: pytest.FixtureRequest, _loopback: tuple[Any, int, int] | None) -> Iterator[None]:
    """Where root is available, a module's tests run in a network namespace of their own: only loopback is there.

    A module that fetches from a package registry says so by ``NEEDS_REGISTRY``.
    """
    if _loopback is None or getattr(request.module, "NEEDS_REGISTRY", False):
        yield
        return
    libc, outside, inside = _loopback
    assert libc.setns(inside, _NEW_NETWORK) == 0
    yield
    assert libc.setns(outside, _NEW_NETWORK) == 0


@pytest.fixture(scope="session")
def package() -> Any:
    """A compiled pipeline with a platform spec: two YAML documents, as `tidemill compile` makes."""
    from deployable import compiled

    return compiled()


@pytest.fixture
def kfp() -> Iterator[Any]:
    from kfp_fake import KfpFake

    with KfpFake() as fake:
        yield fake


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Kubernetes API server that kubeconfig names, for this process and for those that it starts."""
    from cluster_fake import ClusterFake
    from kubernetes.config import kube_config

    with ClusterFake() as fake:
        path = str(fake.kubeconfig(tmp_path / "kubeconfig"))
        monkeypatch.setenv("KUBECONFIG", path)
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", path)  # read once, when it is imported
        yield fake


@pytest.fixture
def world(tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A registry beside the cluster, which is looked at often and in which nobody waits."""
    from released import World

    from tidemill.kserve import routes, run, services
    from tidemill.kserve.cluster import Cluster

    made = World(tmp_path, cluster)
    for module in (services, routes):
        monkeypatch.setattr(module, "_POLL_S", 0.01)
    monkeypatch.setattr(run, "Cluster", functools.partial(Cluster, pause=made.paused.append))
    return made


@pytest.fixture
def executing(kfp: Any, world: Any) -> Any:
    """The KFP fake, which does what a run of `roll_out` does in the cluster."""
    from tidemill.errors import TidemillError
    from tidemill.kserve.run import roll_out

    def execute(run: dict[str, Any]) -> None:
        version = kfp.versions[run["pipeline_version_reference"]["pipeline_version_id"]]
        task = version["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"].get("roll-out")
        if task is None:
            return
        given = {k: v["runtimeValue"]["constant"] for k, v in task["inputs"]["parameters"].items()}
        where = (
            world.root / "registry",
            given["endpoints"],
            given["settings"],
            world.root / "out",
            "control@sha256:ab",
        )
        try:
            version, percent = int(given["version"]), int(given["traffic_percent"])
            roll_out(given["model"], version, given["back"], percent, *where)
        except TidemillError as error:
            labels = {"pipeline/runid": run["run_id"]}
            node = {"workflows.argoproj.io/node-name": "lending-rollout-x.root.roll-out.executor"}
            world.cluster.pod(f"pod-{len(world.cluster.pods)}", "Failed", labels, f"starting\n{error}", node)
            kfp.end(run["run_id"], "FAILED", {"roll-out": "FAILED"})
        else:
            kfp.end(run["run_id"], "SUCCEEDED", {"roll-out": "SUCCEEDED"})

    kfp.on_run = execute
    return kfp
