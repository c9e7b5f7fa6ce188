"""From a target's file to what can be done there. A backend's libraries are loaded when it is opened, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tidemill_pipelines.targets.config import TargetConfig
from tidemill_pipelines.targets.remote import RemoteTarget
from tidemill_pipelines.targets.remote_endpoints import RemoteEndpoints, Rollout


class Deployments(Protocol):
    """What `tidemill deploy` and `rollback` need of an endpoint, here or elsewhere; see `RemoteEndpoints`."""

    def deploy(self, model: str, version: str | None, traffic_percent: int | None) -> Rollout: ...

    def rollback(self, model: str) -> Rollout: ...


def open_target(config: TargetConfig) -> RemoteTarget:
    """Returns what runs pipelines there.

    Raises:
        UsageError: if the file lacks what the backend is found by.
    """
    if config.kind == "vertex":
        from tidemill_pipelines.targets.vertex.target import VertexTarget

        return VertexTarget(config)
    from tidemill_pipelines.targets.kubernetes.target import KubernetesTarget

    return KubernetesTarget(config)


def open_endpoints(config: TargetConfig) -> RemoteEndpoints:
    """Returns the models and endpoints there; see :func:`open_target`."""
    if config.kind == "vertex":
        from tidemill_pipelines.targets.vertex.endpoints import VertexEndpoints

        return VertexEndpoints(config)
    from tidemill_pipelines.targets.kubernetes.endpoints import KubernetesEndpoints

    return KubernetesEndpoints(config)


def open_deployments(target: str | None, runs_dir: Path) -> Deployments:
    """Returns the endpoints of a target, or those of this machine where none is named."""
    if target is None:
        from tidemill_pipelines.targets.local.deployments import LocalDeployments

        return LocalDeployments(runs_dir)
    from tidemill_pipelines.targets.config import load_target

    return open_endpoints(load_target(target))
