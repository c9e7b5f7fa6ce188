"""The models that a cluster serves, asked and changed from outside.

The registry is on a volume that only the cluster mounts. So what is served is read from the Kubernetes API, and what
changes it is a run of one task in the cluster, which does what the pipeline's deploy step does.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tidemill.errors import PlatformError, TidemillError, UsageError
from tidemill.kserve.cluster import Cluster
from tidemill.kserve.failures import http_failure, network_failure
from tidemill.kserve.routes import ROUTES, Route, route_of
from tidemill.kserve.services import MODEL, Predictor, digest_of, is_ready, of_model
from tidemill_pipelines.targets.config import KubernetesDeployment, TargetConfig
from tidemill_pipelines.targets.kubernetes.rollouts import TASK, rollout_package
from tidemill_pipelines.targets.kubernetes.target import KubernetesTarget
from tidemill_pipelines.targets.remote import ENDED, Submission
from tidemill_pipelines.targets.remote_endpoints import ModelVersion, RemoteEndpoint, Rollout, ServedVersion

_POLL_S: Final = 5.0
_TIMEOUT_S: Final = 60
_QUEUE_S: Final = 1800
"""Beside the time that a version may take to be ready: for images to be pulled and nodes to come."""
_LINES: Final = 12


class KubernetesEndpoints:
    """See `RemoteEndpoints` for what the methods owe.

    Args:
        pause: waits for seconds.
    """

    def __init__(self, config: TargetConfig, pause: Callable[[float], None] = time.sleep) -> None:
        self._config, self._pause = config, pause
        self._target = KubernetesTarget(config)
        deployment = config.deployment
        assert isinstance(deployment, KubernetesDeployment)
        self._deployment = deployment

    def models(self) -> Sequence[ModelVersion]:
        """Returns the versions that are served; the others are in the registry, which only the cluster sees."""
        with self._cluster() as cluster:
            champions = {route.model: route.champion for route in self._routes(cluster, None)}
            found = [
                ModelVersion(
                    model=predictor.model,
                    version=str(predictor.version),
                    aliases=("champion" if champions.get(predictor.model) == predictor.version else "challenger",),
                    digest=digest_of(service),
                    address=service["spec"]["predictor"].get("model", {}).get("storageUri"),
                )
                for predictor, service in of_model(cluster, None).items()
            ]
        return sorted(found, key=lambda version: (version.model, -int(version.version)))

    def deploy(self, model: str, version: str | None, traffic_percent: int | None) -> Rollout:
        """Lets a version answer; see `RemoteEndpoints.deploy`."""
        if version is not None and not version.isdecimal():
            raise UsageError(f"version {version}", "expected a number, as the registry counts them")
        percent = traffic_percent if traffic_percent is not None else self._deployment.traffic_percent
        if not 1 <= percent <= 100:
            raise UsageError("--traffic-percent", "expected 1 to 100", str(percent))
        return self._roll_out(model, int(version or 0), False, percent)

    def rollback(self, model: str) -> Rollout:
        """Gives all traffic back to the champion before."""
        with self._cluster() as cluster:
            (route,) = self._routes(cluster, model)
        others = [version for version in route.weights if version != route.champion]
        leave = max(others) if others else route.champion
        if leave is None:
            raise UsageError(f"model {model}", "its route names no champion", remedy="deploy a version")
        return self._roll_out(model, leave, True, 100)

    def status(self, model: str | None) -> Sequence[RemoteEndpoint]:
        """Returns one model's endpoint, or those of all models."""
        with self._cluster() as cluster:
            services = of_model(cluster, model)
            return [self._endpoint(route, services) for route in self._routes(cluster, model)]

    def predict(self, model: str, body: Mapping[str, Any]) -> Any:
        """Sends a request to the gateway, or through the Kubernetes API where no address of it is known."""
        path = f"/v1/models/{model}:predict"
        with self._cluster() as cluster:
            (route,) = self._routes(cluster, model)
            if self._deployment.address is None:
                if not route.weights:
                    raise UsageError(f"model {model}", "no version of it has traffic")
                first = max(route.weights, key=lambda version: route.weights[version])
                return cluster.ask(Predictor(model, first).backend, path, body)
        return _post(f"{self._deployment.address.rstrip('/')}{path}", body, route.hostname)

    def _cluster(self) -> Cluster:
        settings = self._config.on_kubernetes
        return Cluster(settings.namespace, settings.context)

    def _routes(self, cluster: Cluster, model: str | None) -> list[Route]:
        found = cluster.labelled(ROUTES, MODEL if model is None else f"{MODEL}={model}")
        routes = [route for value in found if (route := route_of(value)) is not None]
        if model is not None and not routes:
            there = ", ".join(sorted({r.model for r in self._routes(cluster, None)})) or "none"
            raise UsageError(f"model {model}", f"has no endpoint in namespace {cluster.namespace}; there is {there}")
        return sorted(routes, key=lambda route: route.model)[: None if model is None else 1]

    def _endpoint(self, route: Route, services: Mapping[Predictor, Mapping[str, Any]]) -> RemoteEndpoint:
        own = {predictor.version: service for predictor, service in services.items() if predictor.model == route.model}
        versions = [
            ServedVersion(
                version=str(version),
                id=Predictor(route.model, version).name,
                traffic_percent=route.weights.get(version, 0),
                ready=version in own and is_ready(own[version]),
                detail=_detail(own.get(version)),
            )
            for version in own.keys() | route.weights.keys()
        ]
        address = self._deployment.address
        return RemoteEndpoint(
            model=route.model,
            address=f"{self._config.on_kubernetes.namespace}/{route.name}",
            url=f"{address.rstrip('/')}/v1/models/{route.model}:predict" if address else None,
            versions=sorted(versions, key=lambda v: (-v.traffic_percent, -int(v.version))),
        )

    def _roll_out(self, model: str, version: int, back: bool, percent: int) -> Rollout:
        with self._cluster() as cluster:
            before = next((r for r in self._routes(cluster, None) if r.model == model), None)
            served = {str(predictor.version) for predictor in of_model(cluster, model)}
        image = before.image if before is not None else None
        package = rollout_package(self._config, model, version, back, percent, image)
        submission = Submission(f"{model}-rollout", package, f"rollout-{uuid.uuid4()}")
        self._await(self._target.submit(submission).id)
        (endpoint,) = self.status(model)
        with self._cluster() as cluster:
            (after,) = self._routes(cluster, model)
            left = {str(predictor.version) for predictor in of_model(cluster, model)}
        others = [v for v in after.weights if v != after.champion]
        return Rollout(
            model=model,
            version=str(version if version and not back else max(others) if others else after.champion),
            former=str(before.champion) if before is not None and before.champion is not None else None,
            traffic={str(v): weight for v, weight in sorted(after.weights.items())},
            endpoint=endpoint,
            changed=before is None or (before.weights, before.champion) != (after.weights, after.champion),
            retired=tuple(sorted(served - left)),
        )

    def _await(self, run: str) -> None:
        """Waits for a run to end well.

        Raises:
            PlatformError: with what its task printed last, if it doesn't.
        """
        waited, longest = 0.0, self._deployment.ready_timeout_s + _QUEUE_S
        while (state := self._target.run(run)).state not in ENDED:
            if waited > longest:
                remedy = f"look at it again later: `tidemill runs show {run} --target …`"
                raise PlatformError(f"run {run}", f"must end within {longest} s", state.state, remedy)
            self._pause(_POLL_S)
            waited += _POLL_S
        if state.state != "succeeded":
            where = f"{state.url}" if state.url else f"run {run}"
            raise PlatformError(where, "must release the version", self._last_words(run) or state.error or state.state)

    def _last_words(self, run: str) -> str:
        try:
            lines = list(self._target.logs(run, TASK))
        except TidemillError as error:  # the pod is gone, or its log not permitted: the run's state has to do
            return f"its log cannot be read: {error.expected}"
        return "\n".join(lines[-_LINES:])


def _detail(service: Mapping[str, Any] | None) -> str | None:
    if service is None:
        return "its InferenceService is gone"
    if is_ready(service):
        spec = service["spec"]["predictor"]
        return f"{spec.get('minReplicas', 1)} to {spec.get('maxReplicas', 1)} replicas"
    conditions = service.get("status", {}).get("conditions", ())
    told = [c.get("message") or c.get("reason") for c in conditions if c["status"] == "False"]
    return "; ".join(dict.fromkeys(text for text in told if text)) or "not ready yet"


def _post(url: str, body: Mapping[str, Any], hostname: str | None) -> Any:
    import requests

    try:
        answer = requests.post(url, json=body, headers={"Host": hostname} if hostname else {}, timeout=_TIMEOUT_S)
    except requests.RequestException as error:
        raise network_failure(url, error, "check `deploy.address` in the target's file") from error
    if answer.status_code != 200:
        raise http_failure(url, answer.status_code, answer.reason, answer.text, "the gateway wants credentials")
    return answer.json()
