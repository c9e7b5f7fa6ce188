"""How models are served on a cluster: what the pipeline's settings say, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from tidemill.errors import UsageError

_TYPES: Final[Mapping[str, type]] = {"str": str, "str | None": str, "int": int, "Mapping[str, str]": dict}


@dataclass(frozen=True)
class KserveSettings:
    """What a release needs to know, beside the model.

    Attributes:
        store_claim: volume claim that holds ``registry/<model>/<version>``.
        endpoint: name of the route; the model's by default.
        runtime: the ServingRuntime.
        image: of the server, by digest; the runtime's own if None.
        gateway: the Gateway that the route is on.
        hostname: host that the route answers to; any if None.
        address: where the gateway is reached, for people.
        cpu: processors that a predictor asks for, as Kubernetes writes them.
        memory: likewise.
        service_account: of the predictors.
        traffic_percent: share of a new version.
        ready_timeout_s: seconds that a version may take to be ready.
        route_timeout_s: seconds that the gateway may take to accept a change of the route.
        drain_s: seconds that a version without traffic is kept for requests that are on their way.
        labels: on all that is made.
    """

    store_claim: str = "tidemill-store"
    endpoint: str | None = None
    runtime: str = "tidemill-serving"
    image: str | None = None
    gateway: str = "tidemill"
    hostname: str | None = None
    address: str | None = None
    min_replicas: int = 1
    max_replicas: int = 1
    cpu: str = "1"
    memory: str = "2Gi"
    service_account: str = "tidemill-serving"
    traffic_percent: int = 100
    ready_timeout_s: int = 600
    route_timeout_s: int = 60
    drain_s: int = 30
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> KserveSettings:
        """Reads settings as KFP hands them over, whose integers may have become floats.

        Raises:
            UsageError: naming everything that is unknown or of another type.
        """
        known = {f.name: _TYPES[str(f.type)] for f in fields(cls)}
        read: dict[str, Any] = {}
        faults = [f"{name} is unknown" for name in sorted(value.keys() - known.keys())]
        for name, given in value.items():
            whole = int(given) if isinstance(given, float) and given.is_integer() else given
            if name in known and (whole is not None or name not in ("endpoint", "image", "hostname", "address")):
                if not isinstance(whole, known[name]) or isinstance(whole, bool):
                    faults.append(f"{name} must be of type {known[name].__name__}")
                read[name] = whole
        if faults:
            raise UsageError("settings", "; ".join(faults), str(dict(value)))
        return cls(**read)
