"""Models and endpoints on Vertex AI, as the commands speak of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidemill.errors import UsageError
from tidemill.vertex.clients import Clients
from tidemill.vertex.endpoints import ModelEndpoint
from tidemill.vertex.registry import CHALLENGER, CHAMPION, MODEL_LABEL, ModelRegistry, registered_models
from tidemill.vertex.rollout import Outcome, Rollouts
from tidemill.vertex.run import predict_url
from tidemill_pipelines.targets.config import TargetConfig
from tidemill_pipelines.targets.remote_endpoints import ModelVersion, RemoteEndpoint, Rollout, ServedVersion
from tidemill_pipelines.targets.vertex.settings import release_settings
from tidemill_pipelines.targets.vertex.target import location_of


class VertexEndpoints:
    """Model Registry and the endpoints of one project's region; implements `RemoteEndpoints`."""

    def __init__(self, config: TargetConfig, clients: Clients | None = None) -> None:
        """Makes no call.

        Args:
            clients: those of the target's location by default.

        Raises:
            UsageError: if the target lacks project or region.
        """
        self._location = location_of(config)
        self._clients = clients or Clients(self._location)
        # Versions were given their server's image when they were registered.
        self._settings = release_settings(config, serving_image="")

    def models(self) -> Sequence[ModelVersion]:
        return [
            ModelVersion(
                model=name,
                version=version.number,
                aliases=tuple(alias for alias in version.aliases if alias in (CHAMPION, CHALLENGER)),
                digest=version.digest,
                address=version.address,
            )
            for name in registered_models(self._clients)
            for version in ModelRegistry(self._clients, name).versions()
        ]

    def deploy(self, model: str, version: str | None, traffic_percent: int | None) -> Rollout:
        rollouts = Rollouts(self._clients, self._settings, model)
        chosen = rollouts.registry.find(version or self._next(rollouts.registry))
        share = self._settings.traffic_percent if traffic_percent is None else traffic_percent
        if not 1 <= share <= 100:
            raise UsageError(f"model {model}", "the traffic must be from 1 to 100 percent", str(share))
        if self._settings.private and share != 100:
            raise UsageError(f"model {model}", "a private endpoint serves one version", f"{share} percent")
        return self._told(model, rollouts.release(chosen, share))

    def rollback(self, model: str) -> Rollout:
        return self._told(model, Rollouts(self._clients, self._settings, model).rollback())

    def status(self, model: str | None) -> Sequence[RemoteEndpoint]:
        if model is not None:
            return [self._endpoint(model, self._of(model).get())]
        request = {"parent": self._location.path}
        endpoints = self._clients.ask_all("endpoints", self._clients.endpoints.list_endpoints, request)
        return [self._endpoint(e.labels[MODEL_LABEL], e) for e in endpoints if MODEL_LABEL in e.labels]

    def predict(self, model: str, body: Mapping[str, Any]) -> Any:
        return self._of(model).predict(body)

    def _of(self, model: str) -> ModelEndpoint:
        return ModelEndpoint(self._clients, self._settings, model)

    def _next(self, registry: ModelRegistry) -> str:
        if registry.holder(CHALLENGER) is not None:
            return CHALLENGER
        return CHAMPION

    def _told(self, model: str, outcome: Outcome) -> Rollout:
        return Rollout(
            model=model,
            version=outcome.version.number,
            former=outcome.former,
            traffic=dict(outcome.traffic),
            endpoint=self._endpoint(model, outcome.endpoint),
            changed=outcome.changed,
            retired=outcome.retired,
            answer=outcome.answer,
        )

    def _endpoint(self, model: str, endpoint: Any) -> RemoteEndpoint:
        served = [
            _served(deployed, endpoint.traffic_split.get(deployed.id, 0)) for deployed in endpoint.deployed_models
        ]
        return RemoteEndpoint(
            model=model,
            address=endpoint.name,
            url=predict_url(endpoint, self._location) or None,
            versions=tuple(sorted(served, key=lambda version: (-version.traffic_percent, version.id))),
        )


def _served(deployed: Any, share: int) -> ServedVersion:
    resources = deployed.dedicated_resources
    replicas = f"{resources.min_replica_count} to {max(resources.min_replica_count, resources.max_replica_count)}"
    machine = resources.machine_spec
    accelerator = (
        f" with {machine.accelerator_count} × {machine.accelerator_type.name}" if machine.accelerator_count else ""
    )
    told = f"{replicas} × {machine.machine_type}{accelerator}"
    return ServedVersion(
        version=deployed.model_version_id,
        id=deployed.id,
        traffic_percent=share,
        ready=deployed.status.available_replica_count > 0,
        detail=f"{told}; {deployed.status.message}" if deployed.status.message else told,
    )
