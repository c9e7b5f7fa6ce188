"""A model's HTTPRoute: which version gets what share, and which one is the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill.kserve.cluster import Cluster, Kind
from tidemill.kserve.services import MODEL, Predictor
from tidemill.kserve.settings import KserveSettings

ROUTES: Final = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
CHAMPION: Final = "tidemill/champion"
IMAGE: Final = "tidemill/image"
"""Of the step that wrote the route: who changes it by hand later runs the same one."""
_TIMEOUT: Final = "10s"


@dataclass(frozen=True)
class Route:
    """A route as the cluster has it.

    Attributes:
        weights: percent by version; versions without any are left out.
        champion: the version that the registry calls so, as the last release said.
        hostname: that it answers to; None for any.
        image: of the step that wrote it.
        revision: the object's resourceVersion.
    """

    name: str
    model: str
    weights: Mapping[int, int] = field(default_factory=dict)
    champion: int | None = None
    hostname: str | None = None
    image: str | None = None
    revision: str | None = None


def read_route(cluster: Cluster, name: str, model: str) -> Route | None:
    """Returns a model's route, or None if there is none.

    Raises:
        UsageError: if that name is another model's, or nobody's that tidemill knows.
    """
    if (found := cluster.get(ROUTES, name)) is None:
        return None
    route = route_of(found)
    if route is None or route.model != model:
        owner = f"model {route.model}" if route is not None else "not tidemill's"
        raise UsageError(f"HTTPRoute {name}", f"must be that of model {model}", owner, "give `deploy.endpoint` another")
    return route


def route_of(value: Mapping[str, Any]) -> Route | None:
    """Reads an HTTPRoute; None if tidemill didn't make it."""
    metadata, spec = value["metadata"], value["spec"]
    if (model := metadata.get("labels", {}).get(MODEL)) is None:
        return None
    weights: dict[int, int] = {}
    for rule in spec.get("rules", ()):
        for backend in rule.get("backendRefs", ()):
            predictor = Predictor.of_backend(backend["name"])
            if predictor is not None and predictor.model == model and backend.get("weight", 1) > 0:
                weights[predictor.version] = backend.get("weight", 1)
    champion = metadata.get("annotations", {}).get(CHAMPION, "")
    hostnames = spec.get("hostnames") or [None]
    return Route(
        metadata["name"],
        model,
        _percent(weights),
        int(champion) if champion.isdecimal() else None,
        hostnames[0],
        metadata.get("annotations", {}).get(IMAGE),
        metadata.get("resourceVersion"),
    )


def shares(version: int, percent: int, champion: int | None) -> dict[int, int]:
    """Returns the traffic by version when ``version`` gets ``percent``: the champion keeps the rest."""
    if champion is None or champion == version or percent >= 100:
        return {version: 100}
    return {version: percent, champion: 100 - percent}


def apply_route(cluster: Cluster, route: Route, settings: KserveSettings) -> None:
    """Makes a route what it should be, if nobody else has changed it since ``route.revision`` was read."""
    metadata: dict[str, Any] = {
        "name": route.name,
        "labels": {**settings.labels, "app.kubernetes.io/managed-by": "tidemill", MODEL: route.model},
        "annotations": {
            **({CHAMPION: str(route.champion)} if route.champion is not None else {}),
            **({IMAGE: route.image} if route.image is not None else {}),
        },
    }
    if route.revision is not None:
        metadata["resourceVersion"] = route.revision
    backends = [
        {"name": Predictor(route.model, version).backend, "port": 80, "weight": weight}
        for version, weight in sorted(route.weights.items())
    ]
    cluster.apply(
        ROUTES,
        {
            "apiVersion": f"{ROUTES.group}/{ROUTES.version}",
            "kind": ROUTES.kind,
            "metadata": metadata,
            "spec": {
                "parentRefs": [{"name": settings.gateway}],
                **({"hostnames": [route.hostname]} if route.hostname else {}),
                "rules": [
                    {
                        "matches": [{"path": {"type": "PathPrefix", "value": f"/v1/models/{route.model}"}}],
                        "timeouts": {"request": _TIMEOUT},
                        "backendRefs": backends,
                    }
                ],
            },
        },
    )


def _percent(weights: Mapping[int, int]) -> dict[int, int]:
    total = sum(weights.values())
    return {version: round(100 * weight / total) for version, weight in weights.items()} if total else {}
