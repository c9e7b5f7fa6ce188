"""The connection to the Kubernetes API, by kubeconfig or from within the cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tidemill.errors import PlatformError, UsageError
from tidemill.kserve.failures import RETRIED, http_failure, network_failure

FIELD_MANAGER: Final = "tidemill"
_IN_CLUSTER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_TIMEOUT_S: Final = (10, 60)
_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0)
_EVENTS: Final = 3
_ADDRESS: Final = "check KUBECONFIG and `kubernetes.context`, and that this machine reaches the cluster"


class Conflict(PlatformError):
    """An object was changed by another since it was read, or made before."""


class Missing(PlatformError):
    """The cluster doesn't know a kind of objects: what they belong to isn't installed."""


@dataclass(frozen=True)
class Kind:
    """A kind of custom resource.

    Attributes:
        plural: its name in paths and Roles.
    """

    group: str
    version: str
    plural: str
    kind: str


class Cluster:
    """A Kubernetes API server and the namespace that this is about.

    Args:
        context: of kubeconfig; its current one, or the cluster that this runs in, if None.
        pause: waits for seconds.

    Raises:
        UsageError: if there is no such configuration.
    """

    def __init__(self, namespace: str, context: str | None = None, pause: Callable[[float], None] = time.sleep) -> None:
        self.namespace, self.pause = namespace, pause
        self._client = _connected(context)
        self.host = str(self._client.configuration.host)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._client.rest_client.pool_manager.clear()

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """Returns an object, or None if there is none."""
        found: dict[str, Any] | None = self._json(
            "GET", f"{self._path(kind)}/{name}", f"get {kind.kind} {name}", f"get {kind.plural}", {}
        )
        return found

    def labelled(self, kind: Kind, selector: str) -> list[dict[str, Any]]:
        """Returns the objects with certain labels."""
        return self._items(self._path(kind), f"list {kind.plural}", f"list {kind.plural}", {"labelSelector": selector})

    def apply(self, kind: Kind, value: Mapping[str, Any]) -> dict[str, Any]:
        """Makes an object what it should be, by server-side apply; unknown fields are refused.

        Raises:
            Conflict: if ``value`` has a resourceVersion that is no longer the object's.
        """
        name = value["metadata"]["name"]
        answer: dict[str, Any] | None = self._json(
            "PATCH",
            f"{self._path(kind)}/{name}",
            f"apply {kind.kind} {name}",
            f"patch and create {kind.plural}",
            {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"},
            body=value,
        )
        if answer is None:
            remedy = f"install what it belongs to ({kind.group}), and make the namespace"
            raise PlatformError(f"{self.host}: {kind.kind} {name}", "its kind and namespace must exist", "404", remedy)
        return answer

    def create(self, kind: Kind, value: Mapping[str, Any]) -> bool:
        """Makes an object; False if there is one of that name already.

        Raises:
            Missing: if the cluster doesn't know the kind.
        """
        name = value["metadata"]["name"]
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        try:
            what, permission = f"create {kind.kind} {name}", f"create {kind.plural}"
            made = self._json("POST", self._path(kind), what, permission, query, value)
        except Conflict:
            return False
        if made is None:
            remedy = f"install what it belongs to ({kind.group}), and make the namespace"
            raise Missing(f"{self.host}: {kind.kind} {name}", "its kind and namespace must exist", "404", remedy)
        return True

    def delete(self, kind: Kind, name: str, dependents_first: bool = False) -> None:
        """Deletes an object; nothing happens if there is none.

        Args:
            dependents_first: whether the object stays until all that belongs to it is gone.
        """
        query = {"propagationPolicy": "Foreground"} if dependents_first else {}
        self._json("DELETE", f"{self._path(kind)}/{name}", f"delete {kind.kind} {name}", f"delete {kind.plural}", query)

    def pods(self, selector: str, required: bool = False) -> list[dict[str, Any]]:
        """Returns the pods with certain labels.

        Args:
            required: raise if that is not permitted; else there are none to explain anything by.
        """
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        try:
            return self._items(path, "list pods", "list pods", {"labelSelector": selector})
        except PlatformError:
            if required:
                raise
            return []

    def warnings(self, name: str) -> list[dict[str, Any]]:
        """Returns the latest warnings about objects whose names begin so; none if that is not permitted."""
        path = f"/api/v1/namespaces/{self.namespace}/events"
        try:
            events = self._items(path, "list events", "list events", {"fieldSelector": "type=Warning"})
        except PlatformError:
            return []
        own = [e for e in events if str(e["involvedObject"].get("name", "")).startswith(name)]
        return sorted(own, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))[-_EVENTS:]

    def log(self, pod: str, container: str, stamped: bool = False, since: str | None = None) -> str | None:
        """Returns what a container printed; None if the pod is gone.

        Args:
            stamped: whether each line begins with the time it was printed.
            since: only what was printed from then on, as RFC 3339 in whole seconds.
        """
        path, query = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log", {"container": container}
        query |= ({"timestamps": "true"} if stamped else {}) | ({"sinceTime": since} if since else {})
        return self._send("GET", path, f"read the log of {pod}", "get pods/log", query, None)

    def ask(self, service: str, path: str, body: Mapping[str, Any]) -> Any:
        """Posts JSON to a service through the API server, which reaches it where this machine doesn't.

        Raises:
            UsageError: for what the service refuses.
            PlatformError: if it doesn't answer.
        """
        proxied = f"/api/v1/namespaces/{self.namespace}/services/{service}:80/proxy{path}"
        answer = self._json("POST", proxied, f"ask {service}", "create services/proxy", {}, body=body)
        if answer is None:
            raise UsageError(f"service {service}", "has no such model, or does not exist", "404")
        return answer

    def _path(self, kind: Kind) -> str:
        return f"/apis/{kind.group}/{kind.version}/namespaces/{self.namespace}/{kind.plural}"

    def _items(self, path: str, what: str, permission: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        more: dict[str, str] = {}
        while True:
            page = self._json("GET", path, what, permission, {**query, "limit": "250", **more})
            if page is None:
                remedy = "install KServe and the Gateway API"
                raise PlatformError(f"{self.host}: {what}", "its kind must be installed", "404", remedy)
            items += page["items"]
            if not (token := page["metadata"].get("continue")):
                return items
            more = {"continue": token}

    def _json(
        self, method: str, path: str, what: str, permission: str, query: Mapping[str, str], body: Any = None
    ) -> Any:
        text = self._send(method, path, what, permission, query, body)
        return None if text is None else json.loads(text)

    def _send(
        self, method: str, path: str, what: str, permission: str, query: Mapping[str, str], body: Any
    ) -> str | None:
        """Returns the text of an answer; None for 404. Everything that is sent here may be sent again."""
        import urllib3.exceptions
        from kubernetes.client.exceptions import ApiException

        where = f"{self.host}: {what} in {self.namespace}"
        kind = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        for pause in (*_PAUSES_S, None):
            try:
                answer = self._client.call_api(
                    path,
                    method,
                    {},
                    list(query.items()),
                    {"Content-Type": kind, "Accept": "application/json, */*"},
                    body=body,
                    auth_settings=["BearerToken"],
                    _preload_content=False,
                    _return_http_data_only=True,
                    _request_timeout=_TIMEOUT_S,
                )
                return str(answer.data.decode("utf-8", "replace"))
            except ApiException as error:
                if error.status == 0:
                    raise network_failure(where, error, _ADDRESS) from error
                if error.status == 404:
                    return None
                if error.status == 409 and "/proxy/" not in path:  # a service's own 409 is another thing
                    raise Conflict(where, "must not have been changed meanwhile", "409 Conflict") from error
                if pause is None or error.status not in RETRIED:
                    remedy = f"grant `{permission}` in namespace {self.namespace}; see targets/KUBERNETES.md"
                    raise http_failure(where, error.status, error.reason or "", error.body, remedy) from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if pause is None or "CERTIFICATE" in str(error):
                    raise network_failure(where, error, _ADDRESS) from error
            self.pause(pause)
        raise AssertionError("unreachable")


def _connected(context: str | None) -> Any:
    import kubernetes

    configuration = kubernetes.client.Configuration()
    try:
        if context is None and _IN_CLUSTER.is_file():
            kubernetes.config.load_incluster_config(client_configuration=configuration)
        else:
            kubernetes.config.load_kube_config(context=context, client_configuration=configuration)
    except kubernetes.config.ConfigException as error:
        remedy = "set KUBECONFIG to a file with the cluster, or `kubernetes.context` to one of its contexts"
        raise UsageError("kubeconfig", "must name the cluster", str(error), remedy) from error
    configuration.retries = False  # urllib3's own know nothing of what may be repeated
    return kubernetes.client.ApiClient(configuration)
