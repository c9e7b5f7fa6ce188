"""Every refusal of the fake fires against the SDK as it is, and ours tell what to do about each kind."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from vertex_fake import NUMBER, PARENT, write_caller

from tidemill.errors import PlatformError, UsageError
from tidemill.vertex.location import Location
from tidemill.vertex.sdk import api_errors

IMAGE = "europe-west1-docker.pkg.dev/example-project/tidemill/serving@sha256:00"
KEY = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"
Case = tuple[str, Callable[["Asked"], Any], str, str]


class Asked:
    """Raw calls of the SDK's clients with good arguments, each of which a test spoils."""

    def __init__(self, clients: Any, fake: Any, package: Any) -> None:
        self.clients, self.fake, self.spec = clients, fake, package.spec
        fake.put("gs://example-bucket/m/saved_model.pb", b"model")
        sample = {"instance": {"age": 1.0}, "prediction": 0.5, "tolerance": 0.1}
        fake.put("gs://example-bucket/m/assets.extra/tidemill/sample.json", json.dumps(sample).encode())

    def job(
        self, parent: str = PARENT, identity: str = "job", runtime: Any = None, spec: Any = None, **job: Any
    ) -> Any:
        value = {
            "display_name": "toy",
            "pipeline_spec": self.spec if spec is None else spec,
            "runtime_config": {"gcs_output_directory": "gs://example-bucket/root", **(runtime or {})},
            **job,
        }
        request = {"parent": parent, "pipeline_job_id": identity, "pipeline_job": value}
        return self.clients.pipelines.create_pipeline_job(request=request)

    def spoilt_spec(self, change: Callable[[Any], None]) -> Any:
        spec = copy.deepcopy(self.spec)
        change(spec)
        return self.job(spec=spec)

    def end_job(self) -> str:
        name = self.job().name
        for _ in range(4):
            self.clients.pipelines.get_pipeline_job(name=name)
        return str(name)

    def schedule(self, parent: str = PARENT, **schedule: Any) -> Any:
        job = {
            "display_name": "toy",
            "pipeline_spec": self.spec,
            "runtime_config": {"gcs_output_directory": "gs://example-bucket/root"},
        }
        value = {
            "display_name": "nightly",
            "cron": "TZ=UTC 0 3 * * *",
            "max_concurrent_run_count": 1,
            "create_pipeline_job_request": {"parent": PARENT, "pipeline_job": job},
            **schedule,
        }
        return self.clients.schedules.create_schedule(request={"parent": parent, "schedule": value})

    def update_schedule(self, paths: list[str], **schedule: Any) -> Any:
        name = schedule.pop("name", None) or self.schedule(end_time=datetime(2099, 1, 1, tzinfo=UTC)).name
        request = {"schedule": {"name": name, **schedule}, "update_mask": {"paths": paths}}
        return self.clients.schedules.update_schedule(request=request)

    def completed(self) -> Any:
        made = self.schedule()
        self.fake.ask("complete_schedule", "nightly")
        return made.name

    def model(self, parent: str = PARENT, parent_model: str = "", identity: str = "", **model: Any) -> Any:
        value = {
            "display_name": "toy",
            "artifact_uri": "gs://example-bucket/m",
            "container_spec": {"image_uri": IMAGE, "predict_route": "/predict"},
            **model,
        }
        request = {"parent": parent, "model": value, "model_id": identity, "parent_model": parent_model}
        return self.clients.models.upload_model(request=request).result().model

    def merge(self, *aliases: str, version: str = "@1") -> Any:
        name = self.model()
        return self.clients.models.merge_version_aliases(name=f"{name}{version}", version_aliases=list(aliases))

    def endpoint(self, parent: str = PARENT, identity: str = "", **endpoint: Any) -> Any:
        value = {"display_name": "toy", **endpoint}
        request = {"parent": parent, "endpoint": value, "endpoint_id": identity}
        return self.clients.endpoints.create_endpoint(request=request).result().name

    def deploy(
        self,
        endpoint: str | None = None,
        model: str | None = None,
        split: Any = None,
        resources: Any = None,
        machine: Any = None,
        **deployed: Any,
    ) -> Any:
        dedicated = {
            "machine_spec": {"machine_type": "n1-standard-2", **(machine or {})},
            "min_replica_count": 1,
            **(resources or {}),
        }
        value = {"model": model or self.model(), "dedicated_resources": dedicated, **deployed}
        request = {
            "endpoint": endpoint or self.endpoint(),
            "deployed_model": value,
            "traffic_split": {"0": 100} if split is None else split,
        }
        return self.clients.endpoints.deploy_model(request=request).result().deployed_model

    def deployed(self, **endpoint: Any) -> tuple[str, str]:
        """Returns an endpoint and its one deployed model."""
        name = self.endpoint(**endpoint)
        return name, self.deploy(name).id

    def two(self) -> tuple[str, str, str]:
        """Returns an endpoint and its two deployed models; the first has all of the traffic."""
        name, first = self.deployed()
        return name, first, self.deploy(name, split={first: 100, "0": 0}).id

    def split(self, change: Callable[[str, str], dict[str, int]]) -> Any:
        name, first, second = self.two()
        request = {
            "endpoint": {"name": name, "traffic_split": change(first, second)},
            "update_mask": {"paths": ["traffic_split"]},
        }
        return self.clients.endpoints.update_endpoint(request=request)

    def update_endpoint(self, path: str, **endpoint: Any) -> Any:
        request = {"endpoint": {"name": self.endpoint(), **endpoint}, "update_mask": {"paths": [path]}}
        return self.clients.endpoints.update_endpoint(request=request)

    def undeploy(self, endpoint: str, identity: str, split: Any = None) -> Any:
        request = {"endpoint": endpoint, "deployed_model_id": identity, "traffic_split": split or {}}
        return self.clients.endpoints.undeploy_model(request=request).result()

    def predict(self, endpoint: str, instances: Any = ({"age": 1.0},)) -> Any:
        from google.protobuf import json_format, struct_pb2

        values = [json_format.ParseDict(instance, struct_pb2.Value()) for instance in instances]
        return self.clients.predictions.predict(endpoint=endpoint, instances=values)

    def batch(self, parent: str = PARENT, **job: Any) -> Any:
        value = {
            "display_name": "toy",
            "model": job.pop("model", None) or self.model(),
            "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": ["gs://example-bucket/i.jsonl"]}},
            "output_config": {
                "predictions_format": "jsonl",
                "gcs_destination": {"output_uri_prefix": "gs://example-bucket/out"},
            },
            "dedicated_resources": {"machine_spec": {"machine_type": "n1-standard-2"}},
            **job,
        }
        return self.clients.jobs.create_batch_prediction_job(parent=parent, batch_prediction_job=value)

    def end_batch(self) -> Any:
        name = self.batch().name
        for _ in range(3):
            self.clients.jobs.get_batch_prediction_job(name=name)
        return self.clients.jobs.cancel_batch_prediction_job(name=name)


def _accelerated(kind: str) -> Callable[[Any], None]:
    def change(spec: Any) -> None:
        executor = next(iter(spec["deploymentSpec"]["executors"].values()))
        executor["container"]["resources"] = {"accelerator": {"resourceType": kind, "resourceCount": "1"}}

    return change


ELSEWHERE = "projects/example-project/locations/us-central1"
JOBS: list[Case] = [
    ("a parent of another form", lambda a: a.job("example-project"), "InvalidArgument", "expected projects/"),
    ("another region's parent", lambda a: a.job(ELSEWHERE), "InvalidArgument", "Location mismatch"),
    ("another project", lambda a: a.job("projects/foreign/locations/europe-west1"), "PermissionDenied", "denied"),
    ("a job id with capitals", lambda a: a.job(identity="Job"), "InvalidArgument", "pipeline_job_id 'Job'"),
    ("a job id twice", lambda a: (a.job(), a.job()), "AlreadyExists", "already exists"),
    ("no display name", lambda a: a.job(display_name=""), "InvalidArgument", "1 to 128 characters"),
    ("a label with capitals", lambda a: a.job(labels={"Team": "x"}), "InvalidArgument", "Label 'Team: x'"),
    ("a label's value too long", lambda a: a.job(labels={"team": "x" * 64}), "InvalidArgument", "at most 63"),
    ("65 labels", lambda a: a.job(labels={f"l{n}": "x" for n in range(65)}), "InvalidArgument", "65 labels"),
    ("no root", lambda a: a.job(runtime={"gcs_output_directory": ""}), "InvalidArgument", "must be a gs:// path"),
    ("an s3 root", lambda a: a.job(runtime={"gcs_output_directory": "s3://b/r"}), "InvalidArgument", "gs:// path"),
    ("a malformed key", lambda a: a.job(encryption_spec={"kms_key_name": "key"}), "InvalidArgument", "KMS key name"),
    (
        "a key of another region",
        lambda a: a.job(encryption_spec={"kms_key_name": KEY.replace("europe-west1", "us-central1")}),
        "InvalidArgument",
        "must be in europe-west1; it is in us-central1",
    ),
    (
        "a network by project id",
        lambda a: a.job(network="projects/example-project/global/networks/n"),
        "InvalidArgument",
        "<project number>",
    ),
    ("a person as service account", lambda a: a.job(service_account="me@example.com"), "InvalidArgument", "service"),
    ("no pipeline", lambda a: a.job(spec={}), "InvalidArgument", "pipeline_spec is required"),
    (
        "a platform spec inside",
        lambda a: a.spoilt_spec(lambda spec: spec.update(platforms={"kubernetes": {}})),
        "InvalidArgument",
        'no field named "platforms"',
    ),
    (
        "another schema",
        lambda a: a.spoilt_spec(lambda spec: spec.update(schemaVersion="9.9.9")),
        "InvalidArgument",
        "schemaVersion '9.9.9'",
    ),
    (
        "an unknown accelerator",
        lambda a: a.spoilt_spec(_accelerated("NVIDIA_TESLA_X9")),
        "InvalidArgument",
        "accelerator type 'NVIDIA_TESLA_X9' is not supported",
    ),
    (
        "an accelerator without quota",
        lambda a: a.spoilt_spec(_accelerated("NVIDIA_A100_80GB")),
        "ResourceExhausted",
        "quotas are exceeded",
    ),
    (
        "an unknown parameter",
        lambda a: a.job(runtime={"parameter_values": {"sauce": "x"}}),
        "InvalidArgument",
        "no input parameter 'sauce'",
    ),
    (
        "a parameter that is too long",
        lambda a: a.job(runtime={"parameter_values": {"source": "x" * 10_001}}),
        "InvalidArgument",
        "10001 characters; at most 10000",
    ),
    (
        "a parameter of another type",
        lambda a: a.job(runtime={"parameter_values": {"limit": "x"}}),
        "InvalidArgument",
        "must be of type NUMBER_DOUBLE",
    ),
    (
        "a parameter without value",
        lambda a: a.spoilt_spec(
            lambda s: s["root"]["inputDefinitions"]["parameters"].update(limit={"parameterType": "NUMBER_DOUBLE"})
        ),
        "InvalidArgument",
        "'limit' has no value",
    ),
    ("too many jobs", lambda a: (a.fake.set(job_limit=0), a.job()), "ResourceExhausted", "concurrent_pipeline_jobs"),
    (
        "a job that does not exist",
        lambda a: a.clients.pipelines.get_pipeline_job(name=f"{PARENT}/pipelineJobs/x"),
        "NotFound",
        "is not found",
    ),
    (
        "a malformed name",
        lambda a: a.clients.pipelines.get_pipeline_job(name="x"),
        "InvalidArgument",
        "Invalid resource name",
    ),
    (
        "cancelling what has ended",
        lambda a: a.clients.pipelines.cancel_pipeline_job(name=a.end_job()),
        "FailedPrecondition",
        "is in state PIPELINE_STATE_SUCCEEDED",
    ),
    (
        "an order that isn't there",
        lambda a: a.clients.pipelines.list_pipeline_jobs(request={"parent": PARENT, "order_by": "name"}),
        "InvalidArgument",
        "Invalid order_by",
    ),
    (
        "a filter that isn't there",
        lambda a: a.clients.pipelines.list_pipeline_jobs(request={"parent": PARENT, "filter": "name!=3"}),
        "InvalidArgument",
        "Invalid filter",
    ),
    (
        "a field mask that isn't there",
        lambda a: (
            a.job(),
            a.clients.pipelines.list_pipeline_jobs(request={"parent": PARENT, "read_mask": {"paths": ["colour"]}}),
        ),
        "InvalidArgument",
        "field mask path: 'colour'",
    ),
    (
        "a page token that isn't one",
        lambda a: a.clients.pipelines.list_pipeline_jobs(request={"parent": PARENT, "page_token": "x"}),
        "InvalidArgument",
        "Invalid page token",
    ),
]
LATER = datetime(2099, 1, 1, tzinfo=UTC)
SCHEDULES: list[Case] = [
    ("another region's schedule", lambda a: a.schedule(ELSEWHERE), "InvalidArgument", "Location mismatch"),
    ("six fields", lambda a: a.schedule(cron="0 0 3 * * *"), "InvalidArgument", "expected exactly 5 fields, found 6"),
    ("minute 60", lambda a: a.schedule(cron="60 3 * * *"), "InvalidArgument", "not within 0 to 59"),
    ("words", lambda a: a.schedule(cron="every day at 3 o'clock"), "InvalidArgument", "cannot read 'every'"),
    ("an unknown zone", lambda a: a.schedule(cron="TZ=Mars/X 0 3 * * *"), "InvalidArgument", "time zone 'Mars/X'"),
    ("no runs at a time", lambda a: a.schedule(max_concurrent_run_count=0), "InvalidArgument", "at least 1"),
    ("no display name", lambda a: a.schedule(display_name=""), "InvalidArgument", "1 to 128"),
    (
        "an end before the start",
        lambda a: a.schedule(start_time=LATER, end_time=datetime(2098, 1, 1, tzinfo=UTC)),
        "InvalidArgument",
        "must be after start_time",
    ),
    (
        "an end in the past",
        lambda a: a.schedule(end_time=datetime(2001, 1, 1, tzinfo=UTC)),
        "InvalidArgument",
        "must be in the future",
    ),
    (
        "nothing to run",
        lambda a: a.schedule(create_pipeline_job_request=None),
        "InvalidArgument",
        "request is required",
    ),
    (
        "a job for elsewhere",
        lambda a: a.schedule(create_pipeline_job_request={"parent": ELSEWHERE}),
        "InvalidArgument",
        "Location mismatch",
    ),
    (
        "a bad job",
        lambda a: a.schedule(create_pipeline_job_request={"parent": PARENT, "pipeline_job": {"display_name": "x"}}),
        "InvalidArgument",
        "gcs_output_directory",
    ),
    ("no update mask", lambda a: a.update_schedule([]), "InvalidArgument", "update_mask is required"),
    ("an unknown field", lambda a: a.update_schedule(["state"]), "InvalidArgument", "update_mask path: 'state'"),
    ("unsetting the end", lambda a: a.update_schedule(["end_time"]), "InvalidArgument", "'end_time' cannot be unset"),
    (
        "a bad cron in an update",
        lambda a: a.update_schedule(["cron"], cron="0 25 * * *"),
        "InvalidArgument",
        "not within 0 to 23",
    ),
    (
        "updating what is completed",
        lambda a: a.update_schedule(["cron"], name=a.completed(), cron="0 4 * * *"),
        "FailedPrecondition",
        "is completed",
    ),
    (
        "resuming what is active",
        lambda a: a.clients.schedules.resume_schedule(name=a.schedule().name),
        "FailedPrecondition",
        "only a schedule in state PAUSED can be resumed",
    ),
    (
        "pausing what is completed",
        lambda a: a.clients.schedules.pause_schedule(name=a.completed()),
        "FailedPrecondition",
        "only a schedule in state ACTIVE can be paused",
    ),
    (
        "a schedule that does not exist",
        lambda a: a.clients.schedules.get_schedule(name=f"{PARENT}/schedules/1"),
        "NotFound",
        "does not exist",
    ),
]
MODELS: list[Case] = [
    ("another region's model", lambda a: a.model(ELSEWHERE), "InvalidArgument", "Location mismatch"),
    ("a parent that isn't there", lambda a: a.model(parent_model=f"{PARENT}/models/x"), "NotFound", "does not exist"),
    ("a malformed parent", lambda a: a.model(parent_model="x"), "InvalidArgument", "Invalid resource name"),
    ("a model id that begins with a digit", lambda a: a.model(identity="1x"), "InvalidArgument", "model_id '1x'"),
    ("a model id twice", lambda a: [a.model(identity="x") for _ in "12"], "AlreadyExists", "as parent_model"),
    ("no image", lambda a: a.model(container_spec={}), "InvalidArgument", "image_uri is required"),
    (
        "an image of another registry",
        lambda a: a.model(container_spec={"image_uri": "docker.io/x"}),
        "InvalidArgument",
        "must be in Artifact Registry",
    ),
    (
        "a route without slash",
        lambda a: a.model(container_spec={"image_uri": IMAGE, "predict_route": "predict"}),
        "InvalidArgument",
        "must begin with '/'",
    ),
    ("artefacts elsewhere", lambda a: a.model(artifact_uri="/gcs/b/m"), "InvalidArgument", "must be a gs:// directory"),
    ("no artefacts", lambda a: a.model(artifact_uri="gs://example-bucket/x"), "FailedPrecondition", "no files"),
    ("a model's bad label", lambda a: a.model(labels={"A": "x"}), "InvalidArgument", "Label 'A: x'"),
    ("a numeric alias", lambda a: a.model(version_aliases=["7"]), "InvalidArgument", "alias '7' is invalid"),
    ("aliases without version", lambda a: a.merge("golden", version=""), "InvalidArgument", "given explicitly"),
    ("no aliases", lambda a: a.merge(), "InvalidArgument", "version_aliases is required"),
    ("taking the default away", lambda a: a.merge("-default"), "FailedPrecondition", "and not removed"),
    ("an alias with underscores", lambda a: a.merge("a_b"), "InvalidArgument", "alias 'a_b' is invalid"),
    ("aliases of nothing", lambda a: a.merge("x-x", version="@7"), "NotFound", "does not exist"),
    (
        "versions of nothing",
        lambda a: a.clients.models.list_model_versions(name=f"{PARENT}/models/x"),
        "NotFound",
        "does not exist",
    ),
    (
        "an order of versions that isn't there",
        lambda a: a.clients.models.list_model_versions(request={"name": a.model(), "order_by": "name"}),
        "InvalidArgument",
        "Invalid order_by",
    ),
    (
        "deleting the default version",
        lambda a: a.clients.models.delete_model_version(name=f"{a.model()}@1"),
        "FailedPrecondition",
        "default version cannot be deleted",
    ),
    (
        "an immutable field",
        lambda a: a.clients.models.update_model(model={"name": a.model()}, update_mask={"paths": ["artifact_uri"]}),
        "InvalidArgument",
        "update_mask path: 'artifact_uri'",
    ),
]
NETWORK = f"projects/{NUMBER}/global/networks/n"
ENDPOINTS: list[Case] = [
    ("another region's endpoint", lambda a: a.endpoint(ELSEWHERE), "InvalidArgument", "Location mismatch"),
    ("an endpoint without name", lambda a: a.endpoint(display_name=""), "InvalidArgument", "1 to 128"),
    ("an endpoint id twice", lambda a: [a.endpoint(identity="x") for _ in "12"], "AlreadyExists", "already exists"),
    ("an endpoint id with capitals", lambda a: a.endpoint(identity="X"), "InvalidArgument", "endpoint_id 'X'"),
    (
        "private and dedicated",
        lambda a: a.endpoint(network=NETWORK, dedicated_endpoint_enabled=True),
        "InvalidArgument",
        "cannot have a dedicated DNS",
    ),
    ("traffic to nobody", lambda a: a.endpoint(traffic_split={"1": 100}), "InvalidArgument", "no models"),
    ("a model that isn't there", lambda a: a.deploy(model=f"{PARENT}/models/x"), "NotFound", "does not exist"),
    ("an endpoint that isn't there", lambda a: a.deploy(f"{PARENT}/endpoints/1"), "NotFound", "does not exist"),
    (
        "an unknown machine",
        lambda a: a.deploy(machine={"machine_type": "z9-mega-3"}),
        "InvalidArgument",
        "Machine type 'z9-mega-3' is not supported",
    ),
    (
        "an accelerator on a machine that takes none",
        lambda a: a.deploy(
            machine={"machine_type": "e2-standard-4", "accelerator_type": "NVIDIA_TESLA_T4", "accelerator_count": 1}
        ),
        "InvalidArgument",
        "1 x NVIDIA_TESLA_T4 cannot be attached to machine type e2-standard-4",
    ),
    (
        "three accelerators",
        lambda a: a.deploy(machine={"accelerator_type": "NVIDIA_TESLA_T4", "accelerator_count": 3}),
        "InvalidArgument",
        "3 x NVIDIA_TESLA_T4 cannot be attached",
    ),
    (
        "a number of no accelerator",
        lambda a: a.deploy(machine={"accelerator_count": 1}),
        "InvalidArgument",
        "accelerator_type isn't",
    ),
    (
        "accelerators beyond the quota",
        lambda a: a.deploy(machine={"accelerator_type": "NVIDIA_A100_80GB", "accelerator_count": 1}),
        "ResourceExhausted",
        "CustomModelServing",
    ),
    ("no replicas", lambda a: a.deploy(resources={"min_replica_count": 0}), "InvalidArgument", "at least 1"),
    (
        "fewer replicas at most than at least",
        lambda a: a.deploy(resources={"min_replica_count": 3, "max_replica_count": 2}),
        "InvalidArgument",
        "must not be less",
    ),
    (
        "an unknown metric",
        lambda a: a.deploy(resources={"autoscaling_metric_specs": [{"metric_name": "mood", "target": 60}]}),
        "InvalidArgument",
        "Unknown metric 'mood'",
    ),
    (
        "shared resources",
        lambda a: a.deploy(dedicated_resources=None),
        "InvalidArgument",
        "'dedicated_resources' is required",
    ),
    ("a person's account", lambda a: a.deploy(service_account="me@example.com"), "InvalidArgument", "service account"),
    ("a split of 90", lambda a: a.deploy(split={"0": 90}), "InvalidArgument", "must sum to 100; it sums to 90"),
    ("a split of 10 on an empty endpoint", lambda a: a.deploy(split={"0": 10}), "InvalidArgument", "sums to 10"),
    (
        "a split to strangers",
        lambda a: a.deploy(split={"0": 50, "77": 50}),
        "InvalidArgument",
        r"\['77'\] do not exist",
    ),
    (
        "another key than the model's",
        lambda a: a.deploy(a.endpoint(encryption_spec={"kms_key_name": KEY})),
        "FailedPrecondition",
        "must have the same encryption_spec",
    ),
    (
        "a second model on a private endpoint",
        lambda a: a.deploy(a.deployed(network=NETWORK)[0]),
        "FailedPrecondition",
        "one deployed model only",
    ),
    (
        "a deployed model's id twice",
        lambda a: (lambda e: [a.deploy(e, id="7", split={}) for _ in "12"])(a.endpoint()),
        "AlreadyExists",
        "ID 7 exists already",
    ),
    ("updating a split to 99", lambda a: a.split(lambda one, two: {one: 99}), "InvalidArgument", "sums to 99"),
    ("updating a split to 0", lambda a: a.split(lambda one, two: {"0": 100}), "InvalidArgument", "do not exist"),
    ("a negative share", lambda a: a.split(lambda one, two: {one: 101, two: -1}), "InvalidArgument", "0 to 100"),
    ("an old etag", lambda a: a.update_endpoint("labels", etag="1"), "Aborted", "etag does not match"),
    ("a field of the service", lambda a: a.update_endpoint("network"), "InvalidArgument", "update_mask path"),
    (
        "undeploying with traffic",
        lambda a: a.undeploy(*a.two()[:2]),
        "FailedPrecondition",
        "100 percent of the traffic",
    ),
    ("undeploying nobody", lambda a: a.undeploy(a.endpoint(), "7"), "NotFound", "does not exist"),
    (
        "undeploying with a bad split",
        lambda a: (lambda e, one, two: a.undeploy(e, one, {two: 90}))(*a.two()),
        "InvalidArgument",
        "sums to 90",
    ),
    (
        "deleting an endpoint that is in use",
        lambda a: a.clients.endpoints.delete_endpoint(name=a.deployed()[0]),
        "FailedPrecondition",
        "undeploy them first",
    ),
    ("asking nobody", lambda a: a.predict(a.endpoint()), "FailedPrecondition", "doesn't have traffic_split"),
    ("asking a missing endpoint", lambda a: a.predict(f"{PARENT}/endpoints/1"), "NotFound", "does not exist"),
    (
        "asking a dedicated endpoint by the shared host",
        lambda a: a.predict(a.deployed(dedicated_endpoint_enabled=True)[0]),
        "FailedPrecondition",
        "is a dedicated endpoint",
    ),
    (
        "asking a private endpoint from outside",
        lambda a: a.predict(a.deployed(network=NETWORK)[0]),
        "FailedPrecondition",
        "through its network",
    ),
    (
        "a request that is too large",
        lambda a: a.predict(a.deployed()[0], [{"text": "x" * 1_600_000}]),
        "InvalidArgument",
        "larger than 1500000 bytes",
    ),
]
BATCHES: list[Case] = [
    ("another region's batch", lambda a: a.batch(ELSEWHERE), "InvalidArgument", "Location mismatch"),
    ("a batch by no model", lambda a: a.batch(model=f"{PARENT}/models/x"), "NotFound", "does not exist"),
    ("rows as xml", lambda a: a.batch(input_config={"instances_format": "xml"}), "InvalidArgument", "instances_format"),
    ("no rows", lambda a: a.batch(input_config={"instances_format": "jsonl"}), "InvalidArgument", "source is required"),
    (
        "predictions as xml",
        lambda a: a.batch(output_config={"predictions_format": "x"}),
        "InvalidArgument",
        "jsonl, csv",
    ),
    (
        "predictions elsewhere",
        lambda a: a.batch(
            output_config={"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": "s3://b"}}
        ),
        "InvalidArgument",
        "must begin with gs://",
    ),
    ("a batch on no machine", lambda a: a.batch(dedicated_resources={}), "InvalidArgument", "machine_type is required"),
    (
        "a batch that does not exist",
        lambda a: a.clients.jobs.get_batch_prediction_job(name=f"{PARENT}/batchPredictionJobs/1"),
        "NotFound",
        "does not exist",
    ),
    (
        "cancelling a batch that has ended",
        lambda a: (a.fake.put("gs://example-bucket/i.jsonl", b"{}"), a.end_batch()),
        "FailedPrecondition",
        "JOB_STATE_SUCCEEDED",
    ),
]
CASES = [*JOBS, *SCHEDULES, *MODELS, *ENDPOINTS, *BATCHES]


@pytest.mark.parametrize(("call", "kind", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_service_refuses(
    fake: Any, clients: Any, package: Any, call: Callable[[Asked], Any], kind: str, message: str
) -> None:
    with pytest.raises(getattr(api_errors(), kind), match=message):
        call(Asked(clients, fake, package))


def test_the_good_arguments_are_taken(fake: Any, clients: Any, package: Any) -> None:
    """What the cases above spoil is refused for what they spoilt."""
    asked = Asked(clients, fake, package)
    asked.job()
    asked.schedule()
    endpoint, first, second = asked.two()
    asked.predict(endpoint)
    asked.split(lambda one, two: {one: 30, two: 70})
    asked.undeploy(endpoint, second)
    assert asked.undeploy(endpoint, first) is not None  # the last one may go with its traffic
    asked.batch()
    asked.merge("golden")


def test_an_unauthenticated_caller_is_refused(
    fake: Any, clients: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidemill.vertex.clients import Clients

    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(write_caller(tmp_path / "stranger.json")))
    stranger = Clients(clients.location, clients.patience, clients.api_endpoint)
    with pytest.raises(PlatformError, match="needs credentials that Google accepts") as raised:
        stranger.ask("runs", stranger.pipelines.list_pipeline_jobs, {"parent": PARENT})
    assert "gcloud auth application-default login" in str(raised.value.remedy)


def test_no_credentials_at_all_are_told_so(clients: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.vertex.clients import Clients

    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(PlatformError, match=r"needs credentials .*missing\.json was not found") as raised:
        Clients(clients.location).pipelines  # noqa: B018 - the client is made when it is looked up
    assert "gcloud auth application-default login" in str(raised.value.remedy)


@pytest.mark.parametrize(
    ("code", "said", "kind", "remedy"),
    [
        (
            "PERMISSION_DENIED",
            "Permission 'aiplatform.pipelineJobs.create' denied on resource '//aiplatform.googleapis.com/projects/x'",
            PlatformError,
            "it takes aiplatform.pipelineJobs.create: grant roles/aiplatform.user in project example-project",
        ),
        (
            "PERMISSION_DENIED",
            "You do not have permission to act as service_account: a@b.iam.gserviceaccount.com. "
            "(or it may not exist): iam.serviceAccounts.actAs",
            PlatformError,
            "it takes iam.serviceAccounts.actAs: grant roles/iam.serviceAccountUser on the service account",
        ),
        (
            "PERMISSION_DENIED",
            "caller@example-project.iam.gserviceaccount.com does not have storage.buckets.get access",
            PlatformError,
            "it takes storage.buckets.get: grant roles/storage.legacyBucketReader on the bucket",
        ),
        (
            "PERMISSION_DENIED",
            "Permission 'cloudkms.cryptoKeyVersions.useToEncrypt' denied on resource",
            PlatformError,
            "grant roles/cloudkms.cryptoKeyEncrypterDecrypter on the key, to the Vertex AI service agent",
        ),
        (
            "PERMISSION_DENIED",
            "Vertex AI API has not been used in project 123456789012 before or it is disabled.",
            PlatformError,
            "`gcloud services enable aiplatform.googleapis.com --project example-project`",
        ),
        ("PERMISSION_DENIED", "no", PlatformError, "see the permissions in pipelines/targets/VERTEX.md"),
        (
            "RESOURCE_EXHAUSTED",
            "The following quotas are exceeded: CustomModelTrainingT4GPUsPerProjectPerRegion",
            PlatformError,
            "ask for more of CustomModelTrainingT4GPUsPerProjectPerRegion in europe-west1 at https://console.cloud",
        ),
        ("RESOURCE_EXHAUSTED", "slow down", PlatformError, "ask for more of the quota in europe-west1"),
        ("UNAVAILABLE", "try again", PlatformError, "try again later"),
        ("INTERNAL", "oops", PlatformError, "try again later"),
        ("DEADLINE_EXCEEDED", "too slow", PlatformError, "try again later"),
        ("INVALID_ARGUMENT", "machine type", UsageError, None),
        ("FAILED_PRECONDITION", "wrong state", UsageError, None),
        ("NOT_FOUND", "gone", UsageError, None),
        ("ALREADY_EXISTS", "there", UsageError, None),
    ],
)
def test_our_errors_say_whose_fault_it_is_and_what_to_do(
    fake: Any, clients: Any, code: str, said: str, kind: type[Exception], remedy: str | None
) -> None:
    fake.refuse("ListPipelineJobs", code, said, times=100)
    with pytest.raises(kind) as raised:
        clients.ask("runs", clients.pipelines.list_pipeline_jobs, {"parent": PARENT})
    assert raised.value.where == "runs"
    assert said in raised.value.got
    assert (raised.value.remedy is None) if remedy is None else (remedy in raised.value.remedy)


def test_a_region_that_does_not_exist_is_told_and_not_tried_for_long(clients: Any, fake: Any) -> None:
    from tidemill.vertex.clients import Clients

    nowhere = Clients(Location("example-project", "europe-west99"), clients.patience, "nowhere.invalid:443")
    with pytest.raises(PlatformError, match="runs: its host cannot be found") as raised:
        nowhere.ask("runs", nowhere.pipelines.list_pipeline_jobs, {"parent": nowhere.location.path})
    assert "is there a region europe-west99?" in str(raised.value.remedy)


def test_an_operation_that_fails_is_told_by_its_own_error(fake: Any, clients: Any, package: Any) -> None:
    asked = Asked(clients, fake, package)
    model = asked.model()
    fake.set(wrong={f"{model}@1": "unready"})
    with pytest.raises(api_errors().FailedPrecondition, match="Model server exited unexpectedly"):
        asked.deploy(model=f"{model}@1")


def test_an_operation_that_takes_too_long_is_told_to_go_on(fake: Any, clients: Any) -> None:
    from dataclasses import replace

    from tidemill.vertex.clients import Clients

    hurried = Clients(clients.location, replace(clients.patience, operation=0.1), clients.api_endpoint)
    fake.set(slow_operations=99)
    operation = hurried.once(
        "endpoint toy", hurried.endpoints.create_endpoint, {"parent": PARENT, "endpoint": {"display_name": "toy"}}
    )
    with pytest.raises(PlatformError, match=r"operations/\d+ must end within 0.1 s") as raised:
        hurried.finish("endpoint toy", operation)
    assert "what goes on meanwhile is found" in str(raised.value.remedy)


def test_a_location_of_another_form_is_refused() -> None:
    with pytest.raises(UsageError, match="expected projects/<project>/locations/<region>"):
        Location.parse("example-project")
