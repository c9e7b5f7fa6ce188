"""EndpointService and PredictionService: deployed models, the traffic between them, and what they answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from google.cloud import aiplatform_v1 as sdk
from google.protobuf import empty_pb2, json_format, struct_pb2
from vertex_models import find_version
from vertex_world import Refusal, World, check_display_name, check_labels, check_machine, matching, now, page

_MAX_BODY: Final = 1_500_000


class Endpoints:
    """Answers for ``google.cloud.aiplatform.v1.EndpointService``."""

    def __init__(self, world: World) -> None:
        self.world = world

    def create_endpoint(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        endpoint = sdk.Endpoint(request.endpoint)
        check_display_name(endpoint.display_name)
        check_labels(endpoint.labels)
        self.world.check_encryption(endpoint.encryption_spec.kms_key_name)
        self.world.check_network(endpoint.network)
        if endpoint.network and endpoint.dedicated_endpoint_enabled:
            raise Refusal("INVALID_ARGUMENT", "An endpoint with a network cannot have a dedicated DNS.")
        if endpoint.traffic_split or endpoint.deployed_models:
            raise Refusal("INVALID_ARGUMENT", "A new endpoint has no models and no traffic.")
        identity = request.endpoint_id or self.world.number_for()
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9]\d{0,8}", request.endpoint_id or "a"):
            raise Refusal("INVALID_ARGUMENT", f"endpoint_id '{request.endpoint_id}' is invalid.")
        endpoint.name = f"{self.world.parent}/endpoints/{identity}"
        if endpoint.name in self.world.endpoints:
            raise Refusal("ALREADY_EXISTS", f"The Endpoint {endpoint.name} already exists.")
        endpoint.create_time = endpoint.update_time = now()
        if endpoint.dedicated_endpoint_enabled:
            host = f"{identity}.{self.world.region}-{self.world.number}.prediction.vertexai.goog"
            endpoint.dedicated_endpoint_dns = host
            if self.world.hosts:
                with Path(self.world.hosts).open("a", encoding="utf-8") as hosts:
                    hosts.write(f"127.0.0.2 {host}\n")
        self._changed(endpoint)
        self.world.endpoints[endpoint.name] = endpoint
        return self.world.operate(endpoint.name, sdk.CreateEndpointOperationMetadata(), endpoint)

    def get_endpoint(self, request: Any) -> Any:
        return find_endpoint(self.world, request.name)

    def list_endpoints(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        found = matching(self.world.endpoints.values(), request.filter, ("display_name",))
        shown, token = page(found, request.page_size, request.page_token)
        return sdk.ListEndpointsResponse(endpoints=shown, next_page_token=token)

    def update_endpoint(self, request: Any) -> Any:
        endpoint = find_endpoint(self.world, request.endpoint.name)
        if request.endpoint.etag and request.endpoint.etag != endpoint.etag:
            raise Refusal("ABORTED", "The etag does not match: the endpoint was changed meanwhile.")
        for path in request.update_mask.paths:
            if path not in ("traffic_split", "labels", "description", "display_name"):
                raise Refusal("INVALID_ARGUMENT", f"Invalid update_mask path: '{path}'.")
        if "traffic_split" in request.update_mask.paths:
            self._check_split(dict(request.endpoint.traffic_split), {m.id for m in endpoint.deployed_models})
        for path in request.update_mask.paths:
            setattr(endpoint, path, getattr(request.endpoint, path))
        check_labels(endpoint.labels)
        self._changed(endpoint)
        return endpoint

    def delete_endpoint(self, request: Any) -> Any:
        endpoint = find_endpoint(self.world, request.name)
        if endpoint.deployed_models:
            raise Refusal("FAILED_PRECONDITION", "The Endpoint has deployed models; undeploy them first.")
        del self.world.endpoints[endpoint.name]
        return self.world.operate(endpoint.name, sdk.DeleteOperationMetadata(), empty_pb2.Empty())

    def deploy_model(self, request: Any) -> Any:
        endpoint = find_endpoint(self.world, request.endpoint)
        deployed = sdk.DeployedModel(request.deployed_model)
        model = find_version(self.world, deployed.model)
        self._check_resources(deployed)
        if endpoint.network and endpoint.deployed_models:
            raise Refusal("FAILED_PRECONDITION", "A private endpoint can have one deployed model only.")
        if endpoint.encryption_spec.kms_key_name != model.encryption_spec.kms_key_name:
            raise Refusal("FAILED_PRECONDITION", "Endpoint and Model must have the same encryption_spec.")
        deployed.id = deployed.id or f"{int(self.world.number_for())}"
        if deployed.id in {m.id for m in endpoint.deployed_models}:
            raise Refusal("ALREADY_EXISTS", f"A DeployedModel with ID {deployed.id} exists already.")
        split = dict(request.traffic_split)
        if split:
            self._check_split(split, {"0", *(m.id for m in endpoint.deployed_models)})
        metadata = sdk.DeployModelOperationMetadata()
        versioned = f"{model.name}@{model.version_id}"
        if self.world.wrong.get(versioned) == "unready":
            expected = "Model server exited unexpectedly, or did not become ready. See its logs"
            return self.world.fail(endpoint.name, metadata, "FAILED_PRECONDITION", f"{expected}: {versioned}.")
        # As the service does, it tells the model without its version, and that beside it.
        deployed.model, deployed.model_version_id = model.name, model.version_id
        deployed.create_time = now()
        deployed.display_name = deployed.display_name or model.display_name
        deployed.status.available_replica_count = deployed.dedicated_resources.min_replica_count
        if endpoint.network:
            deployed.private_endpoints.predict_http_uri = f"{self.world.http}/private/{deployed.id}:predict"
        endpoint.deployed_models.append(deployed)
        if split:
            endpoint.traffic_split = {deployed.id if key == "0" else key: value for key, value in split.items()}
        self._changed(endpoint)
        return self.world.operate(endpoint.name, metadata, sdk.DeployModelResponse(deployed_model=deployed))

    def undeploy_model(self, request: Any) -> Any:
        endpoint = find_endpoint(self.world, request.endpoint)
        known = {m.id for m in endpoint.deployed_models}
        if request.deployed_model_id not in known:
            raise Refusal("NOT_FOUND", f"The DeployedModel {request.deployed_model_id} does not exist.")
        split = dict(request.traffic_split) or dict(endpoint.traffic_split)
        if request.traffic_split:
            self._check_split(split, known)
        if split.get(request.deployed_model_id) and len(known) > 1:
            share = f"{split[request.deployed_model_id]} percent of the traffic"
            raise Refusal("FAILED_PRECONDITION", f"DeployedModel {request.deployed_model_id} has {share}.")
        kept = [m for m in endpoint.deployed_models if m.id != request.deployed_model_id]
        endpoint.deployed_models = kept
        endpoint.traffic_split = {k: v for k, v in split.items() if k != request.deployed_model_id} if kept else {}
        self._changed(endpoint)
        return self.world.operate(endpoint.name, sdk.UndeployModelOperationMetadata(), sdk.UndeployModelResponse())

    def _check_resources(self, deployed: Any) -> None:
        resources = deployed.dedicated_resources
        if "dedicated_resources" not in deployed:
            raise Refusal("INVALID_ARGUMENT", "'dedicated_resources' is required for custom models.")
        check_machine(self.world, resources.machine_spec, required=False)
        if resources.min_replica_count < 1:
            raise Refusal("INVALID_ARGUMENT", "min_replica_count must be at least 1.")
        if resources.max_replica_count and resources.max_replica_count < resources.min_replica_count:
            raise Refusal("INVALID_ARGUMENT", "max_replica_count must not be less than min_replica_count.")
        for metric in resources.autoscaling_metric_specs:
            if not metric.metric_name.startswith("aiplatform.googleapis.com/prediction/online/"):
                raise Refusal("INVALID_ARGUMENT", f"Unknown metric '{metric.metric_name}'.")
        account = deployed.service_account
        if account and not re.fullmatch(r"[^@\s]+@[^@\s]+\.gserviceaccount\.com", account):
            raise Refusal("INVALID_ARGUMENT", f"The service account '{account}' is invalid.")

    def _check_split(self, split: dict[str, int], known: set[str]) -> None:
        if unknown := sorted(split.keys() - known):
            raise Refusal("INVALID_ARGUMENT", f"The following DeployedModel ID(s) {unknown} do not exist.")
        if any(not 0 <= value <= 100 for value in split.values()):
            raise Refusal("INVALID_ARGUMENT", "Traffic percentages must be from 0 to 100.")
        if split and sum(split.values()) != 100:
            raise Refusal("INVALID_ARGUMENT", f"Traffic split must sum to 100; it sums to {sum(split.values())}.")

    def _changed(self, endpoint: Any) -> None:
        endpoint.update_time, endpoint.etag = now(), self.world.number_for()


class Predictions:
    """Answers for ``google.cloud.aiplatform.v1.PredictionService``."""

    def __init__(self, world: World) -> None:
        self.world = world

    def predict(self, request: Any, shared: bool = True) -> Any:
        """Answers by the traffic split, as every request does: none can choose its version.

        Args:
            shared: whether the call came by the region's host, and not by the endpoint's own.
        """
        endpoint = find_endpoint(self.world, request.endpoint)
        if endpoint.network:
            raise Refusal("FAILED_PRECONDITION", "A private endpoint is asked through its network.")
        if shared and endpoint.dedicated_endpoint_enabled:
            host = endpoint.dedicated_endpoint_dns
            raise Refusal("FAILED_PRECONDITION", f"This endpoint is a dedicated endpoint: ask it at {host}.")
        raw = type(request).pb(request)
        if raw.ByteSize() > _MAX_BODY and shared:
            raise Refusal("INVALID_ARGUMENT", f"The request is larger than {_MAX_BODY} bytes.")
        if not endpoint.traffic_split:
            raise Refusal("FAILED_PRECONDITION", f"Endpoint {endpoint.name} doesn't have traffic_split.")
        deployed = self._chosen(endpoint)
        answers = self.answer(deployed, [json_format.MessageToDict(instance) for instance in raw.instances])
        response = sdk.PredictResponse(
            deployed_model_id=deployed.id,
            model=deployed.model,
            model_version_id=deployed.model_version_id,
            model_display_name=deployed.display_name,
        )
        values = type(response).pb(response).predictions
        values.extend(json_format.ParseDict(answer, struct_pb2.Value()) for answer in answers)
        return response

    def private(self, identity: str, instances: list[Any]) -> dict[str, Any]:
        """Answers for a deployed model of a private endpoint."""
        for endpoint in self.world.endpoints.values():
            for deployed in endpoint.deployed_models:
                if deployed.id == identity:
                    return {"predictions": self.answer(deployed, instances)}
        raise Refusal("NOT_FOUND", f"No deployed model {identity}.")

    def answer(self, deployed: Any, instances: list[Any]) -> list[Any]:
        """Returns what the model's server answers: for its sample row, what it answered in its rehearsal."""
        versioned = f"{deployed.model}@{deployed.model_version_id}"
        model = find_version(self.world, versioned)
        behaviour = self.world.wrong.get(versioned)
        if behaviour == "failing":
            raise Refusal("INTERNAL", "The model server answered 500.")
        bucket, prefix = re.fullmatch(r"gs://([^/]+)/(.+?)/?", model.artifact_uri).groups()
        sample = json.loads(self.world.objects[bucket, f"{prefix}/assets.extra/tidemill/sample.json"])
        return [_prediction(instance, sample, behaviour == "wrong") for instance in instances]

    def _chosen(self, endpoint: Any) -> Any:
        """Takes turns, so that a hundred requests are split as the percentages say."""
        turn = self.world.asked.get(endpoint.name, 0)
        self.world.asked[endpoint.name] = turn + 1
        place = turn * 37 % 100  # 37 has no factor in common with 100: every place comes once in a hundred turns
        for identity, share in sorted(endpoint.traffic_split.items()):
            place -= share
            if place < 0:
                return next(m for m in endpoint.deployed_models if m.id == identity)
        raise AssertionError("a split that does not sum to 100")


def find_endpoint(world: World, name: str) -> Any:
    world.check_name(name, "endpoints")
    if name not in world.endpoints:
        raise Refusal("NOT_FOUND", f"The Endpoint {name} does not exist.")
    return world.endpoints[name]


def _prediction(instance: Any, sample: Any, wrong: bool) -> Any:
    prediction = sample["prediction"]
    if not wrong:
        return prediction if _same(instance, sample["instance"]) else _shifted(prediction, 0.001)
    return _shifted(prediction, 0.5)


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(json.loads(json.dumps(other), parse_int=float), sort_keys=True)


def _shifted(value: Any, by: float) -> Any:
    if isinstance(value, dict):
        return {key: _shifted(one, by) for key, one in value.items()}
    return value + by if isinstance(value, (int, float)) else value
