"""What a pipeline's release steps are told when they are compiled: where models go, and how they are served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tidemill.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """Constants of `register` and `deploy`.

    Attributes:
        models_uri: ``gs://bucket/path``, below which each version is kept as ``<model>/<digest>/``.
        serving_image: of the environment `serving`, in Artifact Registry.
        labels: for the bill; on models, endpoints and jobs.
        endpoint: display name; the model's name by default.
        machine: machine type of a replica.
        accelerator: ``NVIDIA_TESLA_T4``, say; None for none.
        accelerator_count: of a replica.
        min_replicas: always there.
        max_replicas: at most there.
        target_cpu_percent: use at which replicas are added; Vertex AI's 60 by default.
        service_account: what the server runs as; one without rights by default.
        dedicated: whether the endpoint has its own host.
        private: whether only ``network`` reaches the endpoint.
        network: ``projects/<number>/global/networks/<name>``, for private endpoints.
        cmek_key: ``projects/<p>/locations/<region>/keyRings/<ring>/cryptoKeys/<key>`` for models and endpoints.
        traffic_percent: share that a new version gets.
        drain_s: seconds that a version without traffic is kept for requests that are on their way.
    """

    models_uri: str
    serving_image: str
    labels: Mapping[str, str] = field(default_factory=dict)
    endpoint: str | None = None
    machine: str = "n1-standard-2"
    accelerator: str | None = None
    accelerator_count: int = 1
    min_replicas: int = 1
    max_replicas: int = 1
    target_cpu_percent: int | None = None
    service_account: str | None = None
    dedicated: bool = False
    private: bool = False
    network: str | None = None
    cmek_key: str | None = None
    traffic_percent: int = 100
    drain_s: int = 60

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Settings:
        """Reads what :func:`dataclasses.asdict` wrote. KFP hands numbers over as floats.

        Raises:
            UsageError: naming every key that is missing, unknown or of another type.
        """
        known = {f.name: f for f in fields(cls)}
        faults = [f"unknown {name}" for name in sorted(value.keys() - known.keys())]
        faults += [f"missing {name}" for name in ("models_uri", "serving_image") if name not in value]
        given: dict[str, Any] = {}
        for name in known.keys() & value.keys():
            one, kind = value[name], str(known[name].type)
            if kind.startswith("int") and isinstance(one, float) and one.is_integer():
                one = int(one)
            if not _fits(one, kind):
                faults.append(f"{name} must be {kind}")
            given[name] = one
        if not faults and not given["models_uri"].startswith("gs://"):
            faults.append("models_uri must begin with gs://")
        if faults:
            raise UsageError("settings", "; ".join(faults))
        return cls(**given)

    @property
    def encryption(self) -> dict[str, str] | None:
        """The EncryptionSpec, or None."""
        return {"kms_key_name": self.cmek_key} if self.cmek_key else None


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return kind.endswith("None")
    if kind.startswith("Mapping"):
        return isinstance(value, Mapping) and all(isinstance(x, str) for pair in value.items() for x in pair)
    expected = {"str": str, "int": int, "bool": bool}[kind.split(" ")[0]]
    return isinstance(value, expected) and not (expected is int and isinstance(value, bool))
