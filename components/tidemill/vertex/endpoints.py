"""One model's endpoint on Vertex AI: found or made by its name, with the versions that are deployed to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from tidemill.errors import PlatformError, UsageError
from tidemill.serving.client import Client
from tidemill.vertex.clients import Clients
from tidemill.vertex.registry import MODEL_LABEL, Version, label
from tidemill.vertex.sdk import aiplatform, api_errors, json_format
from tidemill.vertex.settings import Settings

TRIAL_LABEL: Final = "tidemill-trial"
"""What endpoints of trials have in the place of the label that endpoints of models are listed by."""
_CPU: Final = "aiplatform.googleapis.com/prediction/online/cpu/utilization"
_ETAG_TRIES: Final = 5
_PREDICT_TIMEOUT_S: Final = 60.0


class ModelEndpoint:
    """The endpoint of one model.

    Attributes:
        name: what people see, and what it is found by.
    """

    def __init__(self, clients: Clients, settings: Settings, model: str, suffix: str = "") -> None:
        """Makes no call.

        Args:
            suffix: of a second endpoint for the same model, on which a version is tried.
        """
        self._label = TRIAL_LABEL if suffix else MODEL_LABEL
        self.model = model
        self.name = f"{settings.endpoint or model}{suffix}"
        self._clients = clients
        self._settings = settings
        self._where = f"endpoint {self.name}"

    def find(self) -> Any | None:
        """Returns the Endpoint as it is now, or None if there is none.

        Raises:
            UsageError: if several have its name.
        """
        quoted = self.name.replace("\\", "\\\\").replace('"', '\\"')
        request = {"parent": self._clients.location.path, "filter": f'display_name="{quoted}"'}
        found = self._clients.ask_all(self._where, self._clients.endpoints.list_endpoints, request)
        if len(found) > 1:
            names = ", ".join(endpoint.name for endpoint in found)
            raise UsageError(self._where, "several have that name", names, "delete all but one, or name another")
        return found[0] if found else None

    def get(self) -> Any:
        """Returns the Endpoint as it is now.

        Raises:
            UsageError: if there is none.
        """
        if (found := self.find()) is None:
            remedy = f"`tidemill deploy {self.model}` makes it"
            raise UsageError(self._where, f"there is none in {self._clients.location.path}", remedy=remedy)
        return found

    def ensure(self) -> Any:
        """Returns the Endpoint, made if there is none.

        Its id follows from its name, so that two who make it at once make one.

        Raises:
            UsageError: if there is one that is reached in another way than the settings say.
        """
        found = self._clients.ensure(self._where, self.find, self._create)
        wanted = {"dedicated": self._settings.dedicated, "private": self._settings.private}
        there = {"dedicated": found.dedicated_endpoint_enabled, "private": bool(found.network)}
        if there != wanted:
            told = ", ".join(kind for kind, so in there.items() if so) or "public and shared"
            remedy = "that can't be changed: name another endpoint (`deploy.endpoint`), or delete this one"
            raise UsageError(self._where, "must be as `deploy` says", told, remedy)
        return found

    def deploy(self, version: Version, alone: bool) -> Any:
        """Returns the DeployedModel of a version, deployed if it isn't, without any traffic.

        Args:
            alone: whether it is the endpoint's only one and gets all of the traffic.

        Raises:
            PlatformError: if it doesn't become ready.
        """
        endpoint, wanted = self.get(), deployed_id(version, self._settings)
        where = f"{self._where}: version {version.number}"
        request = {"endpoint": endpoint.name, "deployed_model": self._deployed_model(version, wanted)}
        if alone:
            request["traffic_split"] = {"0": 100}

        def make() -> Any:
            operation = self._clients.once(
                where, self._clients.endpoints.deploy_model, request, api_errors().AlreadyExists
            )
            return self._clients.finish(where, operation).deployed_model

        try:
            return self._clients.ensure(where, lambda: deployed(self.get(), wanted), make)
        except api_errors().AlreadyExists as error:
            if (found := deployed(self.get(), wanted)) is not None:
                return found
            remedy = "another call is deploying it: run this again when that has ended"
            raise PlatformError(where, "must be deployed by one call at a time", str(error), remedy) from error

    def route(self, wanted: Mapping[str, int]) -> None:
        """Replaces the traffic split, unless it is so already.

        Raises:
            PlatformError: if others keep changing the endpoint meanwhile.
        """
        for _ in range(_ETAG_TRIES):
            endpoint = self.get()
            if dict(endpoint.traffic_split) == dict(wanted):
                return
            change = {"name": endpoint.name, "etag": endpoint.etag, "traffic_split": dict(wanted)}
            request = {"endpoint": change, "update_mask": {"paths": ["traffic_split"]}}
            try:
                self._clients.ask(self._where, self._clients.endpoints.update_endpoint, request, api_errors().Aborted)
            except api_errors().Aborted:  # somebody changed it after we looked: what was wanted is still wanted
                continue
            return
        raise PlatformError(self._where, "its traffic can't be changed while others change it", remedy="try again")

    def undeploy(self, identity: str) -> None:
        """Takes a deployed model off; the service refuses it while it has traffic beside others."""
        request = {"endpoint": self.get().name, "deployed_model_id": identity}
        operation = self._clients.ask(self._where, self._clients.endpoints.undeploy_model, request)
        self._clients.finish(self._where, operation)

    def delete(self) -> None:
        """Takes all its models off and deletes it; nothing happens if there is none."""
        if (endpoint := self.find()) is None:
            return
        for model in endpoint.deployed_models:
            self.undeploy(model.id)
        operation = self._clients.ask(self._where, self._clients.endpoints.delete_endpoint, {"name": endpoint.name})
        self._clients.finish(self._where, operation)

    def predict(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the endpoint answers: ``predictions``, and ``deployedModelId`` of who answered.

        Raises:
            UsageError: if the service refuses the request, or ``body`` isn't one.
            PlatformError: if it isn't answered.
        """
        if unknown := sorted(body.keys() - {"instances", "parameters"}):
            raise UsageError(self._where, "takes `instances` and `parameters`", ", ".join(unknown))
        endpoint = self.get()
        if endpoint.network:
            return self._predict_inside(endpoint, body)
        request = aiplatform().PredictRequest.pb()(endpoint=endpoint.name)
        json_format().ParseDict(dict(body), request)
        client = self._clients.predictions
        if endpoint.dedicated_endpoint_dns:
            client = self._clients.dedicated_predictions(endpoint.dedicated_endpoint_dns.removeprefix("https://"))
        answer = self._clients.ask(self._where, client.predict, aiplatform().PredictRequest.wrap(request))
        value: dict[str, Any] = json_format().MessageToDict(type(answer).pb(answer))
        return value

    def _predict_inside(self, endpoint: Any, body: Mapping[str, Any]) -> dict[str, Any]:
        if not endpoint.deployed_models:
            raise UsageError(self._where, "has no deployed model")
        (model,) = endpoint.deployed_models
        url = urlsplit(model.private_endpoints.predict_http_uri)
        remedy = f"a private endpoint is asked from within its network, {endpoint.network}"
        try:
            with Client(str(url.hostname), url.port or 80, _PREDICT_TIMEOUT_S) as client:
                answer = client.post(url.path, dict(body))
        except OSError as error:
            raise PlatformError(self._where, "did not answer", type(error).__name__, remedy) from error
        if answer.status != 200:
            raise PlatformError(self._where, "did not answer", f"status {answer.status}: {answer.error}")
        return {**answer.value, "deployedModelId": model.id}

    def _create(self) -> Any:
        settings = self._settings
        endpoint: dict[str, Any] = {
            "display_name": self.name,
            "labels": {**settings.labels, self._label: label(self.model)},
            "dedicated_endpoint_enabled": settings.dedicated,
        }
        if settings.private:
            endpoint["network"] = settings.network
        if settings.encryption:
            endpoint["encryption_spec"] = settings.encryption
        request = {"parent": self._clients.location.path, "endpoint": endpoint, "endpoint_id": _identity(self.name)}
        try:
            operation = self._clients.once(
                self._where, self._clients.endpoints.create_endpoint, request, api_errors().AlreadyExists
            )
        except api_errors().AlreadyExists:
            return self.get()
        self._clients.finish(self._where, operation)
        return self.get()

    def _deployed_model(self, version: Version, identity: str) -> dict[str, Any]:
        value: dict[str, Any] = {
            "id": identity,
            "model": version.address,
            "display_name": f"{self.model}-{version.number}",
            "dedicated_resources": resources(self._settings),
        }
        return value | ({"service_account": self._settings.service_account} if self._settings.service_account else {})


def resources(settings: Settings) -> dict[str, Any]:
    """Returns the DedicatedResources that the settings ask for."""
    machine: dict[str, Any] = {"machine_type": settings.machine}
    if settings.accelerator:
        machine |= {"accelerator_type": settings.accelerator, "accelerator_count": settings.accelerator_count}
    value: dict[str, Any] = {
        "machine_spec": machine,
        "min_replica_count": settings.min_replicas,
        "max_replica_count": settings.max_replicas,
    }
    if settings.target_cpu_percent is not None:
        value["autoscaling_metric_specs"] = [{"metric_name": _CPU, "target": settings.target_cpu_percent}]
    return value


def deployed_id(version: Version, settings: Settings) -> str:
    """Returns the id that a version has wherever it is deployed so: ten digits.

    A step that is run again finds by it what the first try deployed. The same version on another machine is another
    deployed model, which takes over the traffic like a new version.
    """
    about = [version.address, resources(settings), settings.service_account]
    number = int(hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest(), 16)
    return str(10**9 + number % (9 * 10**9))


def deployed(endpoint: Any, identity: str) -> Any | None:
    """Returns an endpoint's deployed model of an id."""
    return next((model for model in endpoint.deployed_models if model.id == identity), None)


def _identity(name: str) -> str:
    """Returns an endpoint's id for its name: letters, digits and hyphens, at most 63."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if readable == name and len(name) <= 63 and name[0].isalpha():
        return name
    return f"e-{readable[:44].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
