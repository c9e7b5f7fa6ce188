"""A KFP and a Kubernetes API server of our own on loopback, in a network that has nothing else."""

from __future__ import annotations

import ctypes
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


@pytest.fixture(autouse=True, scope="module")
def _nothing_leaves() -> Iterator[None]:
    """Where root is available, a module's tests run in a network namespace of their own: only loopback is there."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as outside:  # noqa: PTH123 - a descriptor is what setns takes
        if libc.unshare(_NEW_NETWORK) != 0:  # a container may be root without that right
            yield
            return
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
        assert libc.setns(outside.fileno(), _NEW_NETWORK) == 0


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
