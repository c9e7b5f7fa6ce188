"""Where pipelines run and with what: ``targets/<name>.yaml``, validated.

Strict: an unknown key is an error, and all the errors of a file are told at once. No secret belongs in it: where a
backend wants a token, the file says which environment variable or mounted file holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from tidemill.costs import Prices
from tidemill.errors import ProblemError, UsageError
from tidemill.features import Strict
from tidemill.strict_yaml import validated
from tidemill.vertex.training import VertexTraining

Kind = Literal["kubernetes", "vertex"]
KINDS: Final[tuple[Kind, ...]] = ("kubernetes", "vertex")
STAGES: Final = (
    "locate",
    "find_champion",
    "ingest",
    "validate",
    "gate",
    "transform",
    "fold",
    "suggest",
    "trial",
    "tune",
    "conclude",
    "train",
    "compress",
    "evaluate",
    "rehearse",
    "register",
    "deploy",
    "report",
)
"""The components that `defaults` and `stages` can be about."""
_QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?(m|[KMGTPE]i?)?$"
Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, (int, float)) else value),
    Field(pattern=_QUANTITY),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _QUANTITY}, {"type": "number", "minimum": 0}]}),
]
"""As Kubernetes writes amounts: 4, 500m, 16Gi."""
LabelKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
LabelValue = Annotated[str, Field(pattern=r"^[a-z0-9_-]{0,63}$")]


class ConfigError(ProblemError):
    """A target's file is not valid."""


class Accelerator(Strict):
    """GPUs or TPUs of one type."""

    type: str = Field(
        description="As the backend calls it: NVIDIA_TESLA_T4 on Vertex; the resource, nvidia.com/gpu, on Kubernetes."
    )
    count: int = Field(default=1, ge=1, le=16)
    node: Mapping[str, str] = Field(
        default={}, description="Kubernetes only: labels of the nodes, such as cloud.google.com/gke-accelerator."
    )

    @property
    def is_tpu(self) -> bool:
        return "tpu" in self.type.lower()


class Retries(Strict):
    """Retries of a task after a failure, gates apart; the pause grows by ``factor`` from ``backoff_s``."""

    count: int = Field(ge=0, le=10)
    backoff_s: int = Field(default=30, ge=0, le=3600)
    factor: int = Field(default=2, ge=1, description="A whole number: Argo fails on others.")
    max_backoff_s: int = Field(
        default=3600, ge=1, le=3600, description="Vertex only: the longest pause. KFP has no limit to it."
    )


class StageSettings(Strict):
    """What one stage runs with. Unset values come from `defaults`, and from the backend where that has none."""

    machine: str | None = Field(
        default=None,
        description="Machine type, such as n2-standard-8: on Kubernetes the nodes' instance type; on Vertex, which "
        "chooses machines by what a task asks for, its processors and memory.",
    )
    accelerator: Accelerator | None = None
    spot: bool | None = Field(default=None, description="On machines that may be taken away, at a lower price.")
    cpu: Quantity | None = None
    memory: Quantity | None = None
    retries: Retries | None = None
    timeout_s: int | None = Field(default=None, ge=1, description="Kubernetes only: seconds that a try may take.")
    cache: bool | None = Field(default=None, description="Whether earlier results may be reused.")

    @model_validator(mode="after")
    def _one_size(self) -> StageSettings:
        if self.machine is not None and (self.cpu is not None or self.memory is not None):
            raise ValueError("`machine` and `cpu` or `memory` say the same thing: give one of them")
        return self

    def over(self, other: StageSettings) -> StageSettings:
        """Returns these settings, and those of ``other`` where these have none."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        size = {"machine", "cpu", "memory"}
        inherited = {name: getattr(other, name) for name in other.model_fields_set}
        if size & own.keys():  # a stage's own size replaces the default one whole
            inherited = {name: value for name, value in inherited.items() if name not in size}
        return StageSettings(**{**inherited, **own})


class ImageSettings(Strict):
    """Where the images are, when no file of digests says it."""

    registry: str | None = Field(default=None, description="`registry.example.com/team/tidemill`, without a slash.")
    tag: str | None = Field(default=None, description="Tag; the version of tidemill by default.")


class BeamSettings(Strict):
    """What the Beam stages run on."""

    runner: Literal["direct", "flink", "dataflow", "spark"] = "direct"
    flags: tuple[str, ...] = Field(default=(), description="Beam's own flags: `--region=europe-west1`.")


class VertexSettings(Strict):
    """Vertex AI."""

    project: str | None = Field(default=None, description="Project id.")
    region: str | None = Field(default=None, description="Such as europe-west1.")
    network: str | None = Field(default=None, description="VPC to peer with: projects/<number>/global/networks/<name>.")
    cmek_key: str | None = Field(
        default=None, description="projects/<p>/locations/<region>/keyRings/<ring>/cryptoKeys/<key>."
    )


class KubernetesAuth(Strict):
    """How the KFP API server knows who asks. Secrets are named here, never given."""

    method: Literal["none", "token", "workload_identity", "iap", "cookies"] = "none"
    variable: str | None = Field(default=None, description="Environment variable that holds the token or cookies.")
    file: Path | None = Field(default=None, description="File that holds the token: a projected one, say.")
    client_id: str | None = Field(default=None, description="OAuth client id of the Identity-Aware Proxy.")

    @model_validator(mode="after")
    def _complete(self) -> KubernetesAuth:
        if self.method in ("token", "cookies") and (self.variable is None) == (self.file is None):
            raise ValueError(f"`{self.method}` needs exactly one of `variable` and `file`")
        if self.method == "iap" and self.client_id is None:
            raise ValueError("`iap` needs `client_id`")
        return self


class Spot(Strict):
    """How this cluster marks its spot nodes; as GKE does by default."""

    node: Mapping[str, str] = {"cloud.google.com/gke-spot": "true"}
    toleration: Mapping[str, str] = {"key": "cloud.google.com/gke-spot", "value": "true", "effect": "NoSchedule"}


class KubernetesSettings(Strict):
    """A cluster with Kubeflow Pipelines."""

    host: str | None = Field(default=None, description="Address of the KFP API server: https://kfp.example.com.")
    namespace: str = Field(default="tidemill", description="Where runs are executed and models served.")
    multi_user: bool = Field(default=False, description="Whether KFP is installed with profiles, one per namespace.")
    experiment: str = "tidemill"
    auth: KubernetesAuth = KubernetesAuth()
    ca_file: Path | None = Field(default=None, description="CA certificates of the API server, if not public.")
    cron_time_zone: str = Field(
        default="UTC", description="That KFP's controller reads schedules in: cronScheduleTimezone of its installation."
    )
    store_claim: str = Field(
        default="tidemill-store", description="ReadWriteMany volume claim with the registry and the runs' records."
    )
    image_pull_secrets: tuple[str, ...] = ()
    spot: Spot = Spot()
    context: str | None = Field(default=None, description="Context of kubeconfig for `tidemill deploy` from outside.")


class VertexDeployment(Strict):
    """The endpoint that a released model answers at."""

    kind: Literal["vertex"] = "vertex"
    endpoint: str | None = Field(default=None, description="Display name; the problem's name by default.")
    machine: str = "n1-standard-2"
    accelerator: Accelerator | None = None
    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    target_cpu_percent: int | None = Field(default=None, ge=1, le=100)
    service_account: str | None = None
    dedicated: bool = Field(default=False, description="An endpoint with its own address.")
    private: bool = Field(default=False, description="An endpoint that only `vertex.network` reaches.")
    traffic_percent: int = Field(default=100, ge=1, le=100, description="Share that a new version gets at first.")
    drain_s: int = Field(
        default=60, ge=0, description="Seconds that a version without traffic is kept for requests on their way."
    )

    @model_validator(mode="after")
    def _consistent(self) -> VertexDeployment:
        if self.max_replicas < self.min_replicas:
            raise ValueError("`max_replicas` must not be less than `min_replicas`")
        if self.dedicated and self.private:
            raise ValueError("an endpoint is `dedicated` or `private`, not both")
        if self.private and self.traffic_percent != 100:
            raise ValueError("a private endpoint serves one model: `traffic_percent` must be 100")
        return self


class KubernetesDeployment(Strict):
    """The InferenceServices and the route that a released model answers at."""

    kind: Literal["kubernetes"] = "kubernetes"
    endpoint: str | None = Field(default=None, description="Name of the route; the problem's name by default.")
    runtime: str = Field(default="tidemill-serving", description="The ServingRuntime.")
    gateway: str = "tidemill"
    hostname: str | None = Field(default=None, description="Host that the route answers to; any by default.")
    address: str | None = Field(
        default=None, description="Where the gateway is reached for a look from outside: https://models.example.com."
    )
    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    cpu: Quantity = "1"
    memory: Quantity = "2Gi"
    service_account: str = "tidemill-serving"
    traffic_percent: int = Field(default=100, ge=1, le=100, description="Share that a new version gets at first.")
    ready_timeout_s: int = Field(default=600, ge=1)
    route_timeout_s: int = Field(
        default=60, ge=1, description="Seconds that the gateway may take to accept a change of the route."
    )
    drain_s: int = Field(
        default=30, ge=0, description="Seconds that a version without traffic is kept for requests on their way."
    )

    @model_validator(mode="after")
    def _consistent(self) -> KubernetesDeployment:
        if self.max_replicas < self.min_replicas:
            raise ValueError("`max_replicas` must not be less than `min_replicas`")
        return self


class KubernetesTraining(Strict):
    """Training as a TrainJob of Kubeflow Trainer, on nodes of its own."""

    kind: Literal["kubernetes"] = "kubernetes"
    workers: int = Field(default=1, ge=1, le=100, description="Nodes, the chief included.")
    machine: str | None = Field(default=None, description="The nodes' instance type, beside what they are asked for.")
    accelerator: Accelerator | None = Field(default=None, description="Of each node.")
    cpu: Quantity = Field(default="4", description="Of each node.")
    memory: Quantity = Field(default="8Gi", description="Of each node.")
    spot: bool = Field(default=False, description="On nodes that may be taken away, as `kubernetes.spot` marks them.")
    runtime: str | None = Field(
        default=None, description="The TrainingRuntime; by default tidemill-tensorflow, with -gpu or -tpu at its end."
    )
    queue: str | None = Field(
        default="tidemill-training", description="Kueue's LocalQueue; null starts the job without asking Kueue."
    )
    max_restarts: int = Field(
        default=1, ge=0, le=10, description="TrainJobs that may follow one whose own restarts are used up."
    )
    deadline_s: int = Field(default=86400, ge=1, description="Seconds that a TrainJob may run, its restarts included.")

    @model_validator(mode="after")
    def _possible(self) -> KubernetesTraining:
        if self.accelerator is not None and self.accelerator.is_tpu and self.workers > 1:
            raise ValueError("`workers` must be 1 on TPUs: TensorFlow reaches the chips of one host here")
        return self

    @property
    def suffix(self) -> str:
        """What the runtime's and the image's names end with: they fit the accelerator."""
        return "" if self.accelerator is None else "-tpu" if self.accelerator.is_tpu else "-gpu"


class TargetConfig(Strict):
    """A target: the kind of backend, and all that a pipeline needs to run there."""

    kind: Kind
    pipeline_root: str | None = Field(default=None, description="Where artefacts go: gs://, s3:// or minio://.")
    images: ImageSettings = ImageSettings()
    service_account: str | None = Field(default=None, description="What the tasks run as.")
    labels: Mapping[LabelKey, LabelValue] = Field(default={}, description="For the bill: team, cost centre.")
    defaults: StageSettings = StageSettings()
    stages: Mapping[str, StageSettings] = {}
    beam: BeamSettings = BeamSettings()
    prices: Prices | None = Field(default=None, description="For the estimate of what a run costs.")
    vertex: VertexSettings | None = None
    kubernetes: KubernetesSettings | None = None
    training: Annotated[VertexTraining | KubernetesTraining, Field(discriminator="kind")] | None = Field(
        default=None, description="Training on machines of its own; in the pipeline's task by default."
    )
    deploy: Annotated[VertexDeployment | KubernetesDeployment, Field(discriminator="kind")] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> TargetConfig:
        other = "vertex" if self.kind == "kubernetes" else "kubernetes"
        faults = [f"`{other}` does not fit kind {self.kind}"] if getattr(self, other) is not None else []
        if self.deploy is not None and self.deploy.kind != self.kind:
            faults.append(f"`deploy.kind` must be {self.kind}")
        if self.training is not None and self.training.kind != self.kind:
            faults.append(f"`training.kind` must be {self.kind}")
        if unknown := sorted(set(self.stages) - set(STAGES)):
            faults.append(f"`stages` names {', '.join(unknown)}; there are {', '.join(STAGES)}")
        on_tpu = [name for name in STAGES if name != "train" and _uses_tpu(self.stage(name))]
        if on_tpu:
            faults.append(f"only train runs on TPUs, not {', '.join(on_tpu)}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def on_vertex(self) -> VertexSettings:
        return self.vertex or VertexSettings()

    @property
    def on_kubernetes(self) -> KubernetesSettings:
        return self.kubernetes or KubernetesSettings()

    @property
    def deployment(self) -> VertexDeployment | KubernetesDeployment:
        return self.deploy or (VertexDeployment() if self.kind == "vertex" else KubernetesDeployment())

    def stage(self, name: str) -> StageSettings:
        """Returns what the component ``name`` runs with."""
        return self.stages.get(name, StageSettings()).over(self.defaults)


def _uses_tpu(settings: StageSettings) -> bool:
    return settings.accelerator is not None and settings.accelerator.is_tpu


def load_target(name: str) -> TargetConfig:
    """Returns the target of a name.

    Args:
        name: path of a file that ends in .yaml; the name of ``targets/<name>.yaml``; or a bare kind.

    Raises:
        UsageError: if there is no such target.
        ConfigError: naming every fault of its file.
    """
    path = Path(name) if name.endswith(".yaml") else Path("targets") / f"{name}.yaml"
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(str(path), "is not UTF-8", str(error)) from error
        return parse_target(text, str(path))
    if name in KINDS:
        return TargetConfig(kind=name)
    there = ", ".join(sorted(p.stem for p in Path("targets").glob("*.yaml"))) or "none"
    raise UsageError(
        f"--target {name}", f"expected {path}, a path that ends in .yaml, {' or '.join(KINDS)}", f"targets/ has {there}"
    )


def parse_target(text: str, where: str) -> TargetConfig:
    """Validates the text of a target's file; see :func:`load_target`."""
    return validated(TargetConfig, text, where, ConfigError, "expected a mapping with kind")


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a target's file, for editors that complete and check while one types."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **TargetConfig.model_json_schema(),
        "title": "tidemill target",
    }


def time_zone(name: str) -> ZoneInfo:
    """Returns a time zone of the IANA database.

    Raises:
        UsageError: if it has none of that name.
    """
    if name not in available_timezones():
        raise UsageError(f"time zone {name}", "expected a name of the IANA database, such as Europe/Berlin or UTC")
    return ZoneInfo(name)
