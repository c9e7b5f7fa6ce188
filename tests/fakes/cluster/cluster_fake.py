"""A Kubernetes API server over real HTTP, as far as releases, training and logs use it, with the controllers behind it.

It keeps resource versions and generations, applies server-side with field managers, refuses unknown fields when asked
to be strict, and lets a test say what is forbidden, which service becomes ready when, what its predictor answers, and
which routes the gateway accepts.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import trainer_fake
from trainer_fake import Play, Script

Json = dict[str, Any]
Predict = Callable[[Json], tuple[int, Json]]
_METADATA: Final = {"name": str, "labels": dict, "annotations": dict, "resourceVersion": str, "namespace": str}
_RESOURCES: Final = {"requests": {"cpu": str, "memory": str}, "limits": {"cpu": str, "memory": str}}
_SPREAD: Final = {"maxSkew": int, "topologyKey": str, "whenUnsatisfiable": str, "labelSelector": {"matchLabels": dict}}
SHAPES: Final[Mapping[str, Json]] = {
    "inferenceservices": {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": _METADATA,
        "spec": {
            "predictor": {
                "serviceAccountName": str,
                "automountServiceAccountToken": bool,
                "enableServiceLinks": bool,
                "minReplicas": int,
                "maxReplicas": int,
                "scaleMetric": str,
                "scaleTarget": int,
                "securityContext": {
                    "runAsNonRoot": bool,
                    "fsGroup": int,
                    "fsGroupChangePolicy": str,
                    "seccompProfile": {"type": str},
                },
                "topologySpreadConstraints": [_SPREAD],
                "model": {
                    "modelFormat": {"name": str},
                    "runtime": str,
                    "image": str,
                    "storageUri": str,
                    "resources": _RESOURCES,
                },
            }
        },
    },
    "httproutes": {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": _METADATA,
        "spec": {
            "parentRefs": [{"name": str}],
            "hostnames": [str],
            "rules": [
                {
                    "matches": [{"path": {"type": str, "value": str}}],
                    "timeouts": {"request": str},
                    "backendRefs": [{"name": str, "port": int, "weight": int}],
                }
            ],
        },
    },
    "trainjobs": trainer_fake.SHAPE,
}
"""The fields of the CRDs that are used here; any other is unknown. A test holds these against the real CRDs."""
_MAIN: Final = {"containers": [{"name": "main"}]}
_READ: Final = {"workflows": "argoproj.io/v1alpha1"}
"""Kinds that are only read here."""


class Refused(Exception):
    """An answer that is a Kubernetes `Status`."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


@dataclass
class Fault:
    """A failure to be: of the requests that match, the next ``times``; ``after`` carries them out."""

    method: str
    path: str
    status: int
    times: int = 1
    after: bool = False


@dataclass
class Controller:
    """What KServe makes of one service.

    Attributes:
        ready_after: looks at it until its predictor is ready; None for never.
        status: beside the conditions, where it isn't ready.
        predict: what its predictor answers.
    """

    ready_after: int | None = 1
    status: Json = field(default_factory=dict)
    predict: Predict | None = None


@dataclass
class Gateway:
    """What tells of routes whether it accepts them, in their status.

    Attributes:
        name: routes of another have no status.
        hostname: of its one listener; None for any.
        accepts_after: looks at a route's latest generation until it is told about; None for never.
    """

    name: str = "tidemill"
    hostname: str | None = None
    accepts_after: int | None = 1


class ClusterFake:
    """The server. ``with ClusterFake() as cluster: …`` listens on a free port of loopback."""

    def __init__(self, token: str = "token-of-the-test", namespaces: Sequence[str] = ("tidemill",)) -> None:
        self.token, self.namespaces = token, tuple(namespaces)
        self.kinds = {*SHAPES, *_READ}
        self.runtimes = ["tidemill-tensorflow", "tidemill-tensorflow-gpu", "tidemill-tensorflow-tpu"]
        self.plays: dict[str, Play] = {}
        self.play: Callable[[str], Play] = lambda name: Script(trainer_fake.RUNNING, trainer_fake.COMPLETE)
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.pods: list[Json] = []
        self.logs: dict[str, str] = {}
        self.events: list[Json] = []
        self.forbidden: set[tuple[str, str]] = set()
        self.asked: set[tuple[str, str]] = set()
        self.controllers: dict[str, Controller] = {}
        self.gateway = Gateway()
        self.on_verdict: Callable[[str], None] | None = None
        self.faults: list[Fault] = []
        self.did: list[str] = []
        self.before_apply: Callable[[str, str], None] | None = None
        self.page = 250
        self._owners: dict[tuple[str, str, str], str] = {}
        self._versions = itertools.count(100)
        self._looks: dict[str, int] = {}
        self._predictors: dict[str, ThreadingHTTPServer] = {}
        self._lock = threading.RLock()
        self._server = _serve(self._answer)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ClusterFake:
        return self

    def __exit__(self, *_: object) -> None:
        for play in self.plays.values():
            play.end()
        for server in (self._server, *self._predictors.values()):
            server.shutdown()
            server.server_close()

    def kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig with the context `fake`."""
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "fake",
                    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "tester"}}],
                    "clusters": [{"name": "fake", "cluster": {"server": self.address}}],
                    "users": [{"name": "tester", "user": {"token": self.token}}],
                }
            )
        )
        return path

    def object(self, plural: str, name: str, namespace: str = "tidemill") -> Json | None:
        return self.objects.get((namespace, plural, name))

    def controller(self, name: str) -> Controller:
        """Returns what is made of a service; a test may change it."""
        return self.controllers.setdefault(name, Controller())

    def fail(self, method: str, path: str, status: int, times: int = 1, after: bool = False) -> None:
        self.faults.append(Fault(method, path, status, times, after))

    def edit(self, plural: str, name: str, manager: str, change: Callable[[Json], None]) -> None:
        """Changes an object as another would, who then owns its fields."""
        key = ("tidemill", plural, name)
        spec = copy.deepcopy(self.objects[key]["spec"])
        change(self.objects[key])
        self._owners[key] = manager
        self.objects[key]["metadata"]["generation"] += self.objects[key]["spec"] != spec
        self.objects[key]["metadata"]["resourceVersion"] = str(next(self._versions))

    def pod(
        self, name: str, phase: str, labels: Json, log: str = "", annotations: Json | None = None, **more: Any
    ) -> None:
        metadata = {
            "name": name,
            "labels": labels,
            "annotations": annotations or {},
            "creationTimestamp": f"2026-01-01T00:00:{len(self.pods):02}Z",
        }
        self.pods.append({"metadata": metadata, "status": {"phase": phase, **more}})
        self.logs[name] = log

    def workflow(self, name: str, **spec: Any) -> None:
        """Makes the Workflow of a run, or changes what is asked of it."""
        metadata = {"name": name, "uid": f"uid-of-{name}", "namespace": "tidemill"}
        self.objects["tidemill", "workflows", name] = {"metadata": metadata, "spec": spec}

    def delete_workflow(self, name: str) -> None:
        """Deletes a Workflow, and as Kubernetes' garbage collector does, what it owns."""
        gone = self.objects.pop(("tidemill", "workflows", name))
        for (_, plural, inner), value in list(self.objects.items()):
            owners = value["metadata"].get("ownerReferences", ())
            if any(owner["uid"] == gone["metadata"]["uid"] for owner in owners):
                self._delete("tidemill", plural, inner, {})

    def node(self, job: Json, number: int, attempt: int, phase: str, says: Json | None = None) -> str:
        """Has the pod of a TrainJob's node be in a phase; returns its name."""
        name = f"{job['metadata']['name']}-node-0-{number}-{attempt:05}"
        if name not in self.logs:
            labels = {
                "jobset.sigs.k8s.io/jobset-name": job["metadata"]["name"],
                "jobset.sigs.k8s.io/restart-attempt": str(attempt),
                "batch.kubernetes.io/job-completion-index": str(number),
            }
            self.pod(name, phase, labels)
        pod = next(p for p in self.pods if p["metadata"]["name"] == name)
        pod |= {"spec": {"containers": [{"name": "node"}]}, "status": {"phase": phase, **(says or {})}}
        return name

    def printed(self, pod: str, line: str) -> None:
        self.logs[pod] += f"{line}\n"

    # What follows answers.

    def _answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str, bytes]:
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with self._lock:
            fault = next((f for f in self.faults if f.times and _hits(f, method, parts.path)), None)
            if fault is not None:
                fault.times -= 1
                if not fault.after:
                    return _status(fault.status, "Unavailable", "the server is currently unable to handle the request")
            try:
                if headers.get("authorization") != f"Bearer {self.token}":
                    raise Refused(401, "Unauthorized", "Unauthorized")
                status, kind, content = self._route(method, parts.path, query, headers, body)
            except Refused as refused:
                status, kind, content = _status(refused.code, refused.reason, refused.message)
            if fault is not None:
                return _status(fault.status, "Unavailable", "the server is currently unable to handle the request")
            return status, kind, content

    def _route(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str, bytes]:
        if match := re.fullmatch(r"/api/v1/namespaces/([^/]+)/services/([^/:]+):80/proxy(/.*)", path):
            self._permit("create", "services/proxy", match[1])
            return self._proxied(match[2], json.loads(body))
        if match := re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/log", path):
            self._permit("get", "pods/log", match[1])
            return self._log(match[2], query)
        if match := re.fullmatch(r"/api/v1/namespaces/([^/]+)/(pods|events)", path):
            self._permit("list", match[2], match[1])
            return self._listed(self.pods if match[2] == "pods" else self.events, query)
        if match := re.fullmatch(r"/apis/([^/]+/[^/]+)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?", path):
            version, namespace, plural, name = match.groups()
            known = _READ.get(plural) or SHAPES.get(plural, {}).get("apiVersion")
            if plural not in self.kinds or known != version:
                return 404, "text/plain", b"404 page not found\n"
            verb = {"GET": "get" if name else "list", "PATCH": "patch", "DELETE": "delete", "POST": "create"}[method]
            self._permit(verb, plural, namespace)
            if method == "POST":
                return self._create(namespace, plural, query, json.loads(body))
            if method == "PATCH":
                return self._apply(namespace, plural, name, query, headers, body)
            if method == "DELETE":
                return self._delete(namespace, plural, name, query)
            if name is None:
                own = [o for key, o in self.objects.items() if key[:2] == (namespace, plural)]
                return self._listed([self._seen(plural, o) for o in own], query)
            found = self.objects.get((namespace, plural, name))
            if found is None:
                raise Refused(404, "NotFound", f'{plural}.{version.split("/")[0]} "{name}" not found')
            return _json(200, self._seen(plural, found))
        return 404, "text/plain", b"404 page not found\n"

    def _permit(self, verb: str, resource: str, namespace: str) -> None:
        self.asked.add((verb, resource))
        if (verb, resource) in self.forbidden:
            told = (
                f'{resource} is forbidden: User "system:serviceaccount:{namespace}:tester" cannot {verb} resource '
                f'"{resource}" in the namespace "{namespace}"'
            )
            raise Refused(403, "Forbidden", told)

    def _apply(
        self, namespace: str, plural: str, name: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str, bytes]:
        if headers.get("content-type") != "application/apply-patch+yaml":
            raise Refused(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {plural}")
        if not (manager := query.get("fieldManager")):
            raise Refused(400, "BadRequest", "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
        if namespace not in self.namespaces:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        if self.before_apply is not None:
            self.before_apply(plural, name)
        value, key = json.loads(body), (namespace, plural, name)
        if query.get("fieldValidation") == "Strict" and (unknown := list(_unknown(value, SHAPES[plural], ""))):
            told = ", ".join(f'unknown field "{field}"' for field in unknown)
            raise Refused(400, "BadRequest", f"failed to create typed patch object: strict decoding error: {told}")
        _check(plural, value)
        now = self.objects.get(key)
        asked = value["metadata"].pop("resourceVersion", None)
        if asked is not None and (now is None or now["metadata"]["resourceVersion"] != asked):
            told = (
                f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified; please apply your'
            )
            raise Refused(409, "Conflict", f"{told} changes to the latest version and try again")
        owner = self._owners.get(key, manager)
        if now is not None and owner != manager and query.get("force") != "true" and now["spec"] != value["spec"]:
            raise Refused(409, "Conflict", f'Apply failed with 1 conflict: conflict with "{owner}": .spec')
        same = now is not None and all(
            value["metadata"].get(part, {}) == now["metadata"].get(part, {}) for part in ("labels", "annotations")
        )
        if now is not None and same and now["spec"] == value["spec"]:
            return _json(200, now)
        made = {**value, "metadata": {**value["metadata"], "namespace": namespace}}
        if now is not None and "status" in now:
            made["status"] = now["status"]
        made["metadata"]["resourceVersion"] = str(next(self._versions))
        made["metadata"]["uid"] = now["metadata"]["uid"] if now is not None else f"uid-{next(self._versions)}"
        generation = now["metadata"]["generation"] if now is not None else 0
        changed = now is None or now["spec"] != value["spec"]
        made["metadata"]["generation"] = generation + 1 if changed else generation
        if changed and plural == "httproutes":
            self._looks[f"route {name}"] = 0
        self.objects[key], self._owners[key] = made, manager
        self.did.append(f"{'create' if now is None else 'change'} {plural} {name}")
        return _json(201 if now is None else 200, made)

    def _create(self, namespace: str, plural: str, query: Mapping[str, str], value: Json) -> tuple[int, str, bytes]:
        if namespace not in self.namespaces:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        if query.get("fieldValidation") == "Strict" and (unknown := list(_unknown(value, SHAPES[plural], ""))):
            told = ", ".join(f'unknown field "{field}"' for field in unknown)
            raise Refused(400, "BadRequest", f"strict decoding error: {told}")
        name = value["metadata"]["name"]
        if value["metadata"].get("namespace", namespace) != namespace:
            raise Refused(400, "BadRequest", "the namespace of the provided object does not match the request")
        _check(plural, value)
        if plural == "trainjobs" and (faults := trainer_fake.faults(value, self.runtimes)):
            told = 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: '
            raise Refused(403, "Forbidden", told + "; ".join(faults))
        if (namespace, plural, name) in self.objects:
            raise Refused(409, "AlreadyExists", f'{plural} "{name}" already exists')
        value["metadata"] |= {"resourceVersion": str(next(self._versions)), "uid": f"uid-{next(self._versions)}"}
        self.objects[namespace, plural, name] = value
        self.did.append(f"create {plural} {name}")
        return _json(201, value)

    def _delete(self, namespace: str, plural: str, name: str, query: Mapping[str, str]) -> tuple[int, str, bytes]:
        value = self.objects.get((namespace, plural, name))
        if value is None:
            raise Refused(404, "NotFound", f'{plural} "{name}" not found')
        if plural == "trainjobs" and query.get("propagationPolicy") == "Foreground":
            if "deletionTimestamp" not in value["metadata"]:
                self.did.append(f"delete {plural} {name}")
            value["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}
            return _json(200, value)
        del self.objects[namespace, plural, name]
        if plural == "trainjobs":
            self._end(name)
        self._looks.pop(name, None)
        self.did.append(f"delete {plural} {name}")
        return _status(200, "", "Success")

    def _seen(self, plural: str, value: Json) -> Json:
        """Returns an object as it is read: KServe's controller has come further with each look at a service."""
        if plural == "httproutes":
            self._tell(value)
            return value
        if plural == "trainjobs":
            return self._trained(value)
        if plural in _READ:
            return value
        name = value["metadata"]["name"]
        looks = self._looks[name] = self._looks.get(name, 0) + 1
        controller = self.controller(name)
        if controller.ready_after is not None and looks > controller.ready_after:
            value["status"] = {
                "conditions": [{"type": t, "status": "True"} for t in ("PredictorReady", "Ready")],
                "address": {"url": self._predictor(name)},
                "modelStatus": {"transitionStatus": "UpToDate"},
            }
        else:
            told = [{"type": t, "status": "Unknown"} for t in ("PredictorReady", "Ready")]
            value["status"] = {"conditions": told, **copy.deepcopy(controller.status)}
        return value

    def _trained(self, job: Json) -> Json:
        """Returns a TrainJob as it is read; one that is being deleted is gone when it has been seen once more."""
        name = job["metadata"]["name"]
        if "deletionTimestamp" in job["metadata"]:
            self._end(name)
            del self.objects["tidemill", "trainjobs", name]
            return job
        if name not in self.plays:
            self.plays[name] = self.play(name)
        job["status"] = self.plays[name].look(self, job).status
        return job

    def _end(self, name: str) -> None:
        if (play := self.plays.pop(name, None)) is not None:  # the next one of that name is another job
            play.end()
        own = [p for p in self.pods if p["metadata"]["labels"].get("jobset.sigs.k8s.io/jobset-name") == name]
        self.pods = [pod for pod in self.pods if pod not in own]
        for pod in own:
            del self.logs[pod["metadata"]["name"]]

    def _tell(self, route: Json) -> None:
        """Writes what the gateway says of a route into its status, which is another version of the object."""
        metadata, spec, gateway = route["metadata"], route["spec"], self.gateway
        looks = self._looks[key] = self._looks.get(key := f"route {metadata['name']}", 0) + 1
        if gateway.accepts_after is None or looks <= gateway.accepts_after:
            return
        if [parent["name"] for parent in spec["parentRefs"]] != [gateway.name]:
            return
        hostnames = spec.get("hostnames")
        matches = gateway.hostname is None or hostnames is None or gateway.hostname in hostnames
        services = {f"{name}-predictor" for _, plural, name in self.objects if plural == "inferenceservices"}
        missing = [b["name"] for rule in spec["rules"] for b in rule["backendRefs"] if b["name"] not in services]
        told = [
            ("Accepted", matches, "Accepted" if matches else "NoMatchingListenerHostname", ""),
            ("ResolvedRefs", not missing, "BackendNotFound" if missing else "ResolvedRefs", ", ".join(missing)),
        ]
        conditions = [
            {
                "type": kind,
                "status": "True" if well else "False",
                "reason": reason,
                "message": message,
                "observedGeneration": metadata["generation"],
            }
            for kind, well, reason, message in told
        ]
        parents = [
            {"parentRef": {"name": gateway.name}, "controllerName": "example.com/gateway", "conditions": conditions}
        ]
        if route.get("status") != {"parents": parents}:
            route["status"] = {"parents": parents}
            metadata["resourceVersion"] = str(next(self._versions))
            if self.on_verdict is not None:
                self.on_verdict(metadata["name"])

    def _predictor(self, name: str) -> str:
        """Returns the address of a service's predictor, which listens from when it is ready."""
        if name not in self._predictors:

            def answer(method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str, bytes]:
                self.did.append(f"ask {name}")
                model = re.fullmatch(r"/v1/models/([^/]+):predict", target)
                if method != "POST" or model is None or not name.startswith(f"{model[1]}-v"):
                    return _json(404, {"error": "no such model"})
                predict = self.controller(name).predict
                return _json(*predict(json.loads(body))) if predict else _json(503, {"error": "nothing is loaded"})

            self._predictors[name] = _serve(answer)
        return f"http://127.0.0.1:{self._predictors[name].server_address[1]}"

    def _proxied(self, service: str, body: Json) -> tuple[int, str, bytes]:
        name = service.removesuffix("-predictor")
        if ("tidemill", "inferenceservices", name) not in self.objects:
            raise Refused(404, "NotFound", f'services "{service}" not found')
        predict = self.controller(name).predict
        if predict is None:
            raise Refused(503, "ServiceUnavailable", f'no endpoints available for service "{service}"')
        return _json(*predict(body))

    def _log(self, pod: str, query: Mapping[str, str]) -> tuple[int, str, bytes]:
        if pod not in self.logs:
            raise Refused(404, "NotFound", f'pods "{pod}" not found')
        found = next((p for p in self.pods if p["metadata"]["name"] == pod), None)
        if found is None:
            raise Refused(404, "NotFound", f'pods "{pod}" not found')
        container = found.get("spec", _MAIN)["containers"][0]["name"]
        if query.get("container") != container:
            raise Refused(400, "BadRequest", f"container {query.get('container')} is not valid for pod {pod}")
        if found["status"]["phase"] == "Pending":
            told = f'container "{container}" in pod "{pod}" is waiting to start: ContainerCreating'
            raise Refused(400, "BadRequest", told)
        lines = [(trainer_fake.stamp(n), line) for n, line in enumerate(self.logs[pod].splitlines())]
        if since := query.get("sinceTime"):
            if not re.fullmatch(r"[0-9-]{10}T[0-9:]{8}Z", since):
                raise Refused(400, "BadRequest", f'sinceTime: Invalid value: "{since}"')
            lines = [(at, line) for at, line in lines if at[:19] >= since[:19]]
        if query.get("timestamps") == "true":
            return 200, "text/plain", "".join(f"{at} {line}\n" for at, line in lines).encode()
        if since:
            return 200, "text/plain", "".join(f"{line}\n" for _, line in lines).encode()
        return 200, "text/plain", self.logs[pod].encode()

    def _listed(self, items: Sequence[Json], query: Mapping[str, str]) -> tuple[int, str, bytes]:
        chosen = [i for i in items if _selected(i["metadata"].get("labels", {}), query.get("labelSelector", ""))]
        if query.get("fieldSelector") == "type=Warning":
            chosen = [i for i in chosen if i["type"] == "Warning"]
        begin, size = int(query.get("continue") or 0), min(int(query.get("limit") or self.page), self.page)
        more = {"continue": str(begin + size)} if begin + size < len(chosen) else {}
        return _json(200, {"kind": "List", "items": chosen[begin : begin + size], "metadata": more})


def _check(plural: str, value: Json) -> None:
    """Refuses what the CRDs' schemas and Kubernetes' names refuse."""
    name, faults = value["metadata"]["name"], []
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name):
        faults.append(f'metadata.name: Invalid value: "{name}"')
    faults += [
        f'metadata.labels: Invalid value: "{text}"'
        for text in value["metadata"].get("labels", {}).values()
        if not re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", text)
    ]
    if plural == "httproutes":
        for rule in value["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                if not 0 <= backend["weight"] <= 1_000_000:
                    faults.append(f"spec.rules[0].backendRefs.weight: Invalid value: {backend['weight']}")
    if plural == "inferenceservices":
        predictor = value["spec"]["predictor"]
        if predictor["minReplicas"] > predictor["maxReplicas"]:
            faults.append("admission webhook denied the request: MinReplicas cannot be greater than MaxReplicas")
    if faults:
        raise Refused(422, "Invalid", f'{value["kind"]} "{name}" is invalid: {"; ".join(faults)}')


def _unknown(value: Any, shape: Any, path: str) -> Any:
    """Yields the fields that a shape hasn't."""
    if isinstance(value, dict) and isinstance(shape, dict):
        for name, part in value.items():
            if name not in shape:
                yield f"{path}{name}"
            else:
                yield from _unknown(part, shape[name], f"{path}{name}.")
    elif isinstance(value, list) and isinstance(shape, list):
        for index, part in enumerate(value):
            yield from _unknown(part, shape[0], f"{path.rstrip('.')}[{index}].")


def _selected(labels: Mapping[str, str], selector: str) -> bool:
    for part in filter(None, selector.split(",")):
        key, equals, value = part.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _hits(fault: Fault, method: str, path: str) -> bool:
    return fault.method == method and re.fullmatch(fault.path, path) is not None


def _status(code: int, reason: str, message: str) -> tuple[int, str, bytes]:
    told = "Success" if code < 400 else "Failure"
    status = {"kind": "Status", "apiVersion": "v1", "status": told, "message": message, "reason": reason, "code": code}
    return _json(code, status)


def _json(status: int, value: Json) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(value).encode()


def _serve(answer: Callable[[str, str, Mapping[str, str], bytes], tuple[int, str, bytes]]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one packet: of two, the second may await an ACK for 40 ms

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {key.lower(): value for key, value in self.headers.items()}
            status, kind, content = answer(self.command, self.path, headers, body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = _handle

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server
