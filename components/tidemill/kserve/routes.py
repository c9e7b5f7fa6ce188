"""A model's HTTPRoute: which version gets what share, and which one is the champion."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill.kserve.cluster import Cluster, Conflict, Kind
from tidemill.kserve.services import MODEL, Predictor
from tidemill.kserve.settings import KserveSettings

ROUTES: Final = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
CHAMPION: Final = "tidemill/champion"
IMAGE: Final = "tidemill/image"
"""Of the step that wrote the route: who changes it by hand later runs the same one."""
_TIMEOUT: Final = "10s"
_CONDITIONS: Final = ("Accepted", "ResolvedRefs")
_POLL_S: Final = 1.0
_PATIENCE_S: Final = 10.0
"""A gateway may not know a service yet that has just been made; what it refuses for longer gets no traffic."""
_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class Route:
    """A route as the cluster has it.

    Attributes:
        weights: percent by version; versions without any are left out.
        champion: the version that the registry calls so, as the last release said.
        hostname: that it answers to; None for any.
        image: of the step that wrote it.
        revision: the object's resourceVersion.
        found: the object that this was read from.
    """

    name: str
    model: str
    weights: Mapping[int, int] = field(default_factory=dict)
    champion: int | None = None
    hostname: str | None = None
    image: str | None = None
    revision: str | None = None
    found: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)


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
        value,
    )


def shares(version: int, percent: int, champion: int | None) -> dict[int, int]:
    """Returns the traffic by version when ``version`` gets ``percent``: the champion keeps the rest."""
    if champion is None or champion == version or percent >= 100:
        return {version: 100}
    return {version: percent, champion: 100 - percent}


def apply_route(cluster: Cluster, route: Route, settings: KserveSettings) -> dict[str, Any]:
    """Makes a route what it should be, if nobody else has changed it since ``route.revision`` was read.

    Raises:
        Conflict: if somebody has.
    """
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
    return cluster.apply(
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


def await_accepted(
    cluster: Cluster,
    name: str,
    settings: KserveSettings,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[str, ...]:
    """Waits until the gateway has taken a route over as it is now.

    Returns:
        Why it hasn't in the time that it had; nothing if it has.
    """
    begun, refused_since = now(), None
    while True:
        refused, pending = _objections(cluster.get(ROUTES, name), settings.gateway)
        if not refused and not pending:
            return ()
        refused_since = (now() if refused_since is None else refused_since) if refused else None
        patience = min(_PATIENCE_S, settings.route_timeout_s)
        if (refused_since is not None and now() - refused_since >= patience) or (
            now() - begun > settings.route_timeout_s
        ):
            return (*refused, *pending)
        pause(_POLL_S)


def restore_route(cluster: Cluster, name: str, generation: int, former: Mapping[str, Any] | None) -> bool:
    """Puts a route back as it was, or away if there was none, unless another has changed it since.

    Args:
        generation: of the route as we wrote it.
        former: the object before.

    Returns:
        Whether it is as it was.
    """
    for _ in range(_ATTEMPTS):
        current = cluster.get(ROUTES, name)
        if current is None or current["metadata"].get("generation") != generation:
            return False
        if former is None:
            cluster.delete(ROUTES, name)
            return True
        kept = {key: former["metadata"].get(key, {}) for key in ("labels", "annotations")}
        metadata = {"name": name, **kept, "resourceVersion": current["metadata"]["resourceVersion"]}
        try:
            cluster.apply(
                ROUTES,
                {
                    "apiVersion": f"{ROUTES.group}/{ROUTES.version}",
                    "kind": ROUTES.kind,
                    "metadata": metadata,
                    "spec": former["spec"],
                },
            )
        except Conflict:  # the gateway writes its status meanwhile
            continue
        return True
    return False


def _objections(route: Mapping[str, Any] | None, gateway: str) -> tuple[list[str], list[str]]:
    """Returns what a gateway refuses of a route's latest state, and what it has not told about it yet."""
    if route is None:
        return [], ["it is gone"]
    generation, told = route["metadata"].get("generation", 0), {}
    for parent in route.get("status", {}).get("parents", ()):
        if parent["parentRef"].get("name") == gateway:
            for condition in parent.get("conditions", ()):
                if condition.get("observedGeneration", 0) >= generation:
                    told[condition["type"]] = condition
    refused, pending = [], []
    for name in _CONDITIONS:
        condition = told.get(name, {})
        if condition.get("status") == "False":
            words = (condition.get("reason"), condition.get("message"))
            refused.append(f"{name}: {': '.join(filter(None, words)) or 'False'}")
        elif condition.get("status") != "True":
            pending.append(f"gateway {gateway} does not say {name}")
    return refused, pending


def _percent(weights: Mapping[int, int]) -> dict[int, int]:
    total = sum(weights.values())
    return {version: round(100 * weight / total) for version, weight in weights.items()} if total else {}
