"""A KFP API server (2.17) over real HTTP: what its clients see of it, and what it refuses.

Written from what the server's sources say it answers, error texts included. It holds everything in memory, runs
nothing, and lets a test say what becomes of a run.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import kfp_fake_cron
import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

Json = dict[str, Any]
MAX_WORKFLOW_BYTES: Final = 3 << 19
"""Of a Workflow in etcd, 1.5 MiB; run parameters have no other limit in v2beta1."""
MAX_FILE_BYTES: Final = 32 << 20
MAX_PAGE: Final = 200
_HTTP: Final = {3: 400, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 13: 500, 14: 503, 16: 401}
"""HTTP status by gRPC code, as grpc-gateway has it."""
_NAMES: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_FIELDS: Final[Mapping[str, str]] = {
    "runs": "run_id display_name created_at finished_at description scheduled_at storage_state namespace experiment_id "
    "state state_history recurring_run_id name id status runtime_details",
    "recurringRuns": "recurring_run_id display_name created_at updated_at description id name",
    "pipelines": "pipeline_id display_name created_at description namespace id name",
    "pipeline_versions": "pipeline_version_id display_name created_at status description pipeline_spec id name",
    "experiments": "experiment_id display_name created_at last_run_created_at description namespace storage_state id "
    "name",
}
"""What lists can be sorted and filtered by."""
_UNSORTED: Final = frozenset({"state_history", "runtime_details", "pipeline_spec"})
_SCALARS: Final = ("int_value", "long_value", "string_value", "timestamp_value")
_ARRAYS: Final = ("int_values", "long_values", "string_values")


class Refused(Exception):
    """An answer that is no success.

    Args:
        code: of gRPC.
        told: what the server means for the caller.
        inside: the whole chain of its own words, which comes first in the message.
    """

    def __init__(self, code: int, told: str, inside: str | None = None) -> None:
        super().__init__(told)
        self.code, self.told, self.inside = code, told, inside or told


def invalid(told: str, *around: str) -> Refused:
    """Returns the refusal of an invalid argument, wrapped in the server's way."""
    return Refused(3, told, ": ".join([*around, f"Invalid input error: {told}"]))


def missing(kind: str, name: str, *around: str) -> Refused:
    return Refused(
        5, f"{kind} {name} not found", ": ".join([*around, f"ResourceNotFoundError: {kind} {name} not found"])
    )


def internal(refused: Refused, told: str) -> Refused:
    """Returns what becomes of a refusal that the server takes for its own failure."""
    return Refused(13, "Internal Server Error", f"InternalServerError: {told}: {refused.inside}")


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        """The body, as a test looks at it."""
        return dict(json.loads(self.body))

    def message(self, kind: type) -> Json:
        """Returns the body as a message of the API; what such a message hasn't is refused.

        Args:
            kind: kfp_server_api's class of it, whose fields are those of the server's.
        """
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as error:
            raise Refused(3, f"proto: syntax error: {error}") from error
        if not isinstance(value, dict):
            raise Refused(3, "proto: syntax error (line 1:1): unexpected token")
        _known(value, kind)
        return value


@dataclass
class Fault:
    """A failure to be: of the requests that match, the next ``times``."""

    method: str
    path: str
    status: int
    times: int = 1
    after: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = "upstream connect error or disconnect/reset before headers"


class KfpFake:
    """The server. ``with KfpFake() as kfp: …`` listens on a free port of loopback.

    Args:
        multi_user: as with profiles: namespaces are required and tokens authorised for them.
        access: namespaces by bearer token, in multi-user mode.
        gate: bearer token or ``Cookie`` header that a proxy before the server wants; others are refused there.
        login: whether that proxy sends others to a login page, as IAP and OIDC do, instead of answering 401.
        tls: certificate of the server.
    """

    def __init__(
        self,
        multi_user: bool = False,
        access: Mapping[str, Sequence[str]] | None = None,
        gate: str | None = None,
        login: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.multi_user, self.access = multi_user, dict(access or {})
        self.gate, self.login = gate, login
        self.pipelines: dict[str, Json] = {}
        self.versions: dict[str, Json] = {}
        self.experiments: dict[str, Json] = {}
        self.runs: dict[str, Json] = {}
        self.recurring: dict[str, Json] = {}
        self.logs: dict[tuple[str, str], str] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.max_page = MAX_PAGE
        self.on_run: Callable[[Json], None] = lambda run: None
        self._clock = datetime.now(UTC).replace(microsecond=0)
        self._lock = threading.RLock()
        self._server = _Server(self)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.address = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> KfpFake:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def sent(self, method: str, pattern: str) -> list[Request]:
        """Returns the requests of a method whose path matches."""
        return [r for r in self.requests if r.method == method and re.fullmatch(pattern, r.path)]

    def fail(self, method: str, path: str, status: int, times: int = 1, after: bool = False, **more: Any) -> None:
        """Lets coming requests fail; with ``after`` they are carried out and only the answer is lost."""
        self.faults.append(Fault(method, path, status, times, after, **more))

    def end(self, run: str, state: str, tasks: Mapping[str, str] | None = None, error: str | None = None) -> None:
        """Lets a run reach a state, with Argo's nodes for the states of its tasks."""
        told = self.runs[run]
        told["state"] = state
        if state in ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"):
            told["finished_at"] = self.now()
        if error is not None:
            told["error"] = {"code": 13, "message": error}
        nodes = {"training-x7k2p": state, "root-driver": "SUCCEEDED", "root": state}
        for name, own in (tasks or {}).items():
            nodes |= {f"{name}-driver": "SUCCEEDED", name: own, "executor": own}
        details = []
        for name, own in nodes.items():
            times = {"create_time": self.now(), "start_time": self.now(), "end_time": self.now()}
            if own in ("RUNNING", "PENDING"):
                times["end_time"] = "1970-01-01T00:00:00Z"
            details.append({"run_id": run, "task_id": str(uuid.uuid4()), "display_name": name, "state": own, **times})
        told["run_details"] = {"task_details": details}

    def fire(self, recurring: str, scheduled: datetime) -> str | None:
        """Does what the controller does when a schedule is due: makes a run, unless it is disabled or has enough."""
        job = self.recurring[recurring]
        active = [
            r
            for r in self.runs.values()
            if r.get("recurring_run_id") == recurring and r["state"] in ("PENDING", "RUNNING", "PAUSED")
        ]
        if job["mode"] != "ENABLE" or len(active) >= int(job["max_concurrency"]):
            return None
        run = self._stored_run(
            {
                "display_name": f"{job['display_name']}-{scheduled:%Y%m%d%H%M}",
                "experiment_id": job["experiment_id"],
                "runtime_config": job.get("runtime_config"),
                "pipeline_version_reference": job["pipeline_version_reference"],
                "service_account": job.get("service_account"),
                "recurring_run_id": recurring,
            }
        )
        run["scheduled_at"] = scheduled.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return str(run["run_id"])

    def now(self) -> str:
        """Returns the time, which goes on by a second with every question: KFP's times have no fractions."""
        self._clock += timedelta(seconds=1)
        return self._clock.strftime("%Y-%m-%dT%H:%M:%SZ")

    # What follows answers.

    def answer(self, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        with self._lock:
            self.requests.append(request)
            fault = next((f for f in self.faults if f.times and _hits(f, request)), None)
            if fault is not None:
                fault.times -= 1
                if fault.after:
                    self._answer(request)
                return fault.status, {"Content-Type": "text/plain", **fault.headers}, fault.body.encode()
            return self._answer(request)

    def _answer(self, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        if (turned_away := self._at_the_gate(request)) is not None:
            return turned_away
        if request.path.endswith(("/pipelines/upload", "/pipelines/upload_version")):
            return self._upload(request)
        if match := re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", request.path):
            return self._log(*match.groups())
        if request.path == "/apis/v2beta1/healthz":
            return _json(200, {"commit_sha": "unknown", "tag_name": "2.17.0", "multi_user": self.multi_user})
        try:
            for method, pattern, act in self._routes():
                match = re.fullmatch(pattern, request.path)
                if match and method == request.method:
                    return _json(200, act(request, *map(unquote, match.groups())))
            raise Refused(5, "Not Found")
        except Refused as refused:
            detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": refused.code, "message": refused.told}
            return _json(_HTTP[refused.code], {"code": refused.code, "message": refused.inside, "details": [detail]})

    def _routes(self) -> Iterator[tuple[str, str, Callable[..., Json]]]:
        base, one = "/apis/v2beta1", "([^/:]+)"
        yield "GET", f"{base}/pipelines", self._list_pipelines
        yield "POST", f"{base}/pipelines", self._create_pipeline
        yield "GET", f"{base}/pipelines/names/{one}", self._pipeline_by_name
        yield "GET", f"{base}/pipelines/{one}", self._get_pipeline
        yield "GET", f"{base}/pipelines/{one}/versions", self._list_versions
        yield "GET", f"{base}/pipelines/{one}/versions/{one}", self._get_version
        yield "GET", f"{base}/experiments", self._list_experiments
        yield "POST", f"{base}/experiments", self._create_experiment
        yield "GET", f"{base}/runs", self._list_runs
        yield "POST", f"{base}/runs", self._create_run
        yield "GET", f"{base}/runs/{one}", self._get_run
        yield "POST", f"{base}/runs/{one}:terminate", self._terminate
        yield "GET", f"{base}/recurringruns", self._list_recurring
        yield "POST", f"{base}/recurringruns", self._create_recurring
        yield "GET", f"{base}/recurringruns/{one}", self._get_recurring
        yield "POST", f"{base}/recurringruns/{one}:enable", lambda r, i: self._switch(r, i, "ENABLE")
        yield "POST", f"{base}/recurringruns/{one}:disable", lambda r, i: self._switch(r, i, "DISABLE")
        yield "DELETE", f"{base}/recurringruns/{one}", self._delete_recurring

    def _at_the_gate(self, request: Request) -> tuple[int, Mapping[str, str], bytes] | None:
        shown = {request.headers.get("authorization", "").removeprefix("Bearer "), request.headers.get("cookie", "")}
        if self.gate is None or self.gate in shown:
            return None
        if self.login:
            return 302, {"Location": "https://accounts.example.com/login"}, b"<a href='/login'>Found</a>"
        return 401, {"Content-Type": "text/plain"}, b"Invalid IAP credentials: Unable to parse JWT"

    def _authorize(self, request: Request, namespace: str, what: str) -> None:
        if not self.multi_user:
            return
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.access:
            told = "Request header error: there is no user identity header."
            raise Refused(16, told, f"Failed to authorize the request: Unauthenticated: {told}")
        if namespace not in self.access[token]:
            told = f"User 'user@example.com' is not authorized with reason:  (request: namespace {namespace}, {what})"
            raise Refused(7, told, f"Failed to authorize with API: PermissionDenied: {told}: Unauthorized access")

    # Pipelines and versions

    def _create_pipeline(self, request: Request) -> Json:
        asked = request.message(kfp_server_api.V2beta1Pipeline)
        name = asked.get("name") or asked.get("display_name") or ""
        namespace = self._namespace(asked.get("namespace", ""))
        self._authorize(request, namespace, "create pipelines")
        if not name:
            raise invalid("pipeline's name cannot be empty")
        if len(name) > 128:
            raise invalid("Pipeline.Name length cannot exceed 128")
        if any(p["name"] == name and p["namespace"] == namespace for p in self.pipelines.values()):
            told = f"Failed to create a new pipeline. The name {name} already exists. Please specify a new name"
            raise Refused(6, told, f"Failed to create a pipeline in PipelineStore: Already exist error: {told}")
        made = {
            "pipeline_id": str(uuid.uuid4()),
            "name": name,
            "display_name": asked.get("display_name") or name,
            "description": asked.get("description", ""),
            "created_at": self.now(),
            "namespace": namespace,
        }
        self.pipelines[made["pipeline_id"]] = made
        return made

    def _pipeline_by_name(self, request: Request, name: str) -> Json:
        namespace = self._namespace(request.query.get("namespace", ""))
        self._authorize(request, namespace, "get pipelines")
        for pipeline in self.pipelines.values():
            if pipeline["name"] == name and pipeline["namespace"] == namespace:
                return pipeline
        raise missing("Namespace/Pipeline", f"{namespace}/{name}", f"Failed to get a pipeline named {name}")

    def _get_pipeline(self, request: Request, pipeline: str) -> Json:
        if pipeline not in self.pipelines:
            raise missing("Pipeline", pipeline, f"Failed to get a pipeline with id {pipeline}")
        return self.pipelines[pipeline]

    def _list_pipelines(self, request: Request) -> Json:
        namespace = self._namespace(request.query.get("namespace", ""))
        self._authorize(request, namespace, "list pipelines")
        return self._page(request, "pipelines", [p for p in self.pipelines.values() if p["namespace"] == namespace])

    def _list_versions(self, request: Request, pipeline: str) -> Json:
        self._get_pipeline(request, pipeline)
        versions = [v for v in self.versions.values() if v["pipeline_id"] == pipeline]
        return self._page(request, "pipeline_versions", versions)

    def _get_version(self, request: Request, pipeline: str, version: str) -> Json:
        if version not in self.versions:
            raise missing("PipelineVersion", version, f"Failed to get a pipeline version with id {version}")
        return self.versions[version]

    def _upload(self, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        """Takes a file as the handler beside grpc-gateway does: its errors are of another form, and tell little."""
        failed = "Failed to create a pipeline version"
        try:
            text = _uploaded_file(request)
        except ValueError:
            return _upload_error(400, failed)
        pipeline = request.query.get("pipelineid", "")
        if pipeline not in self.pipelines or not request.path.endswith("upload_version"):
            return _upload_error(400, failed)
        name = request.query.get("name") or request.query.get("display_name") or "uploaded"
        if len(name) > 127:
            return 400, {"Content-Type": "text/plain"}, b"PipelineVersion.Name length cannot exceed 127\n"
        try:
            self._authorize(request, self.pipelines[pipeline]["namespace"], "create pipelines")
        except Refused:
            return _upload_error(400, failed)
        try:
            spec, platform = specs(text)
        except Refused as refused:
            return _upload_error(400, refused.told)
        if any(v["pipeline_id"] == pipeline and v["name"] == name for v in self.versions.values()):
            return _upload_error(409, failed)
        made = {
            "pipeline_id": pipeline,
            "pipeline_version_id": str(uuid.uuid4()),
            "name": name,
            "display_name": request.query.get("display_name") or name,
            "description": request.query.get("description", ""),
            "created_at": self.now(),
            "pipeline_spec": spec if platform is None else {"pipeline_spec": spec, "platform_spec": platform},
        }
        self.versions[made["pipeline_version_id"]] = made
        return _json(200, made)

    # Experiments

    def _create_experiment(self, request: Request) -> Json:
        asked = request.message(kfp_server_api.V2beta1Experiment)
        name, namespace = asked.get("display_name", ""), asked.get("namespace", "")
        if not name:
            raise invalid("Experiment's name cannot be empty", "Failed to create an experiment")
        if self.multi_user and not namespace:
            raise invalid("An experiment cannot have an empty namespace in multi-user mode")
        self._authorize(request, namespace, "create experiments")
        if len(name) > 128:
            raise invalid("Experiment.Name length cannot exceed 128")
        if any(e["display_name"] == name and e["namespace"] == namespace for e in self.experiments.values()):
            told = f"Failed to create a new experiment. The name {name} already exists. Please specify a new name"
            raise Refused(6, told, f"Failed to create a experiment: Already exist error: {told}")
        made = {
            "experiment_id": str(uuid.uuid4()),
            "display_name": name,
            "description": asked.get("description", ""),
            "created_at": self.now(),
            "namespace": namespace,
            "storage_state": "AVAILABLE",
        }
        self.experiments[made["experiment_id"]] = made
        return made

    def _list_experiments(self, request: Request) -> Json:
        namespace = self._namespace(request.query.get("namespace", ""))
        if self.multi_user and not namespace:
            raise invalid("An experiment cannot have an empty namespace in multi-user mode")
        self._authorize(request, namespace, "list experiments")
        return self._page(request, "experiments", [e for e in self.experiments.values() if e["namespace"] == namespace])

    # Runs

    def _create_run(self, request: Request) -> Json:
        asked = request.message(kfp_server_api.V2beta1Run)
        self._check_run(request, asked, "run")
        version = self._version_of(asked)
        check_parameters(_root(version["pipeline_spec"]), asked.get("runtime_config"))
        if len(json.dumps([version["pipeline_spec"], asked.get("runtime_config")])) > MAX_WORKFLOW_BYTES:
            told = "Failed to create a workflow: etcdserver: request is too large"
            raise Refused(13, "Internal Server Error", f"Failed to create a new run: InternalServerError: {told}")
        return self._stored_run(asked)

    def _stored_run(self, asked: Json) -> Json:
        time = self.now()
        made = {
            **{k: v for k, v in asked.items() if v is not None},
            "run_id": str(uuid.uuid4()),
            "storage_state": "AVAILABLE",
            "state": "PENDING",
            "created_at": time,
            "scheduled_at": time,
            "finished_at": "1970-01-01T00:00:00Z",
            "state_history": [{"update_time": time, "state": "PENDING"}],
        }
        self.runs[made["run_id"]] = made
        self.experiments[made["experiment_id"]]["last_run_created_at"] = time
        self.on_run(made)
        return made

    def _check_run(self, request: Request, asked: Json, kind: str) -> None:
        experiment = asked.get("experiment_id", "")
        if not experiment:
            if self.multi_user:
                raise invalid("Experiment id can not be empty in multi-user mode", f"Failed to create a new {kind}")
            raise invalid("this fake has no default experiment")
        if experiment not in self.experiments:
            raise missing("Experiment", experiment, f"Failed to create a {kind} due to invalid experimentId")
        self._authorize(request, self.experiments[experiment]["namespace"], f"create {kind}s")

    def _version_of(self, asked: Json) -> Json:
        reference = asked.get("pipeline_version_reference") or {}
        version, pipeline = reference.get("pipeline_version_id", ""), reference.get("pipeline_id", "")
        if version not in self.versions:
            raise internal(
                missing("PipelineVersion", version, f"Failed to get a pipeline version with id {version}"),
                "Failed to create a run due to error fetching manifest",
            )
        found = self.versions[version]
        if pipeline and found["pipeline_id"] != pipeline:
            told = f"Pipeline version {version} belongs to pipeline {found['pipeline_id']} (not {pipeline})"
            raise internal(invalid(told), "Failed to create a run due to error fetching manifest")
        return found

    def _get_run(self, request: Request, run: str) -> Json:
        if run not in self.runs:
            raise missing("Run", run, "Failed to get a run")
        self._authorize(request, self._namespace_of(self.runs[run]), "get runs")
        return self.runs[run]

    def _list_runs(self, request: Request) -> Json:
        return self._page(
            request, "runs", [_without(r, "run_details") for r in self._of_experiment(request, self.runs, "runs")]
        )

    def _terminate(self, request: Request, run: str) -> Json:
        told = self._get_run(request, run)
        if told["state"] not in ("PENDING", "RUNNING", "PAUSED"):
            raise invalid(f"Failed to terminate a run {run}. Row not found", f"Failed to terminate run {run}")
        told["state"] = "CANCELING"
        return {}

    # Recurring runs

    def _create_recurring(self, request: Request) -> Json:
        asked = request.message(kfp_server_api.V2beta1RecurringRun)
        if not asked.get("display_name"):
            raise internal(invalid("Recurring run's name cannot be empty"), "Failed to convert a API recurring run")
        trigger = asked.get("trigger") or {}
        concurrency = int(asked.get("max_concurrency") or 0)
        if not 1 <= concurrency <= 10:
            told = f"Max concurrency of a recurring run must be at least 1 and at most 10. Received {concurrency}"
            raise invalid(told, "Failed to create a recurring run due to conversion error")
        cron = trigger.get("cron_schedule")
        if cron is not None:
            try:
                kfp_fake_cron.parse(cron.get("cron", ""))
            except ValueError as error:
                told = (
                    f"Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron). Error: {error}"
                )
                raise invalid(told, "Failed to create a recurring run due to conversion error") from error
        elif int((trigger.get("periodic_schedule") or {}).get("interval_second") or 0) < 1:
            raise invalid("Found invalid period schedule interval 0. Set at interval to least 1 second")
        if (mode := asked.get("mode", "MODE_UNSPECIFIED")) == "MODE_UNSPECIFIED":
            told = f"Recurring run's mode is invalid: {mode}"
            raise internal(invalid(told), "Failed to convert API recurring run's mode to its internal representation")
        if mode not in ("ENABLE", "DISABLE"):
            raise Refused(3, f'proto: (line 1:1): invalid value for enum field mode: "{mode}"')
        self._check_run(request, asked, "recurring run")
        version = self._version_of(asked)
        check_parameters(_root(version["pipeline_spec"]), asked.get("runtime_config"))
        if len(json.dumps([version["pipeline_spec"], asked.get("runtime_config")])) > MAX_WORKFLOW_BYTES:
            told = "Failed to create a workflow: etcdserver: request is too large"
            raise Refused(13, "Internal Server Error", f"Failed to create a new run: InternalServerError: {told}")
        time = self.now()
        made = {
            **{k: v for k, v in asked.items() if v is not None},
            "recurring_run_id": str(uuid.uuid4()),
            "created_at": time,
            "updated_at": time,
            "max_concurrency": str(concurrency),
            "mode": "ENABLE" if mode == "ENABLE" else "DISABLE",
            "status": "ENABLED" if mode == "ENABLE" else "DISABLED",
        }
        self.recurring[made["recurring_run_id"]] = made
        return made

    def _get_recurring(self, request: Request, recurring: str) -> Json:
        if recurring not in self.recurring:
            raise missing("Job", recurring, "Failed to fetch a recurring run")
        self._authorize(request, self._namespace_of(self.recurring[recurring]), "get jobs")
        return self.recurring[recurring]

    def _list_recurring(self, request: Request) -> Json:
        return self._page(request, "recurringRuns", self._of_experiment(request, self.recurring, "jobs"))

    def _switch(self, request: Request, recurring: str, mode: str) -> Json:
        told = self._get_recurring(request, recurring)
        told["mode"], told["status"] = mode, f"{mode}D"
        told["updated_at"] = self.now()
        return {}

    def _delete_recurring(self, request: Request, recurring: str) -> Json:
        self._get_recurring(request, recurring)
        del self.recurring[recurring]
        return {}

    # Lists and logs

    def _of_experiment(self, request: Request, items: Mapping[str, Json], what: str) -> list[Json]:
        experiment, namespace = request.query.get("experiment_id", ""), request.query.get("namespace", "")
        if experiment:
            if experiment not in self.experiments:
                raise missing("Experiment", experiment, f"Failed to list {what}")
            namespace = self.experiments[experiment]["namespace"]
        namespace = self._namespace(namespace)
        if self.multi_user and not namespace:
            raise invalid("A run cannot have an empty namespace in multi-user mode", f"Failed to list {what}")
        self._authorize(request, namespace, f"list {what}")
        return [
            item
            for item in items.values()
            if (item["experiment_id"] == experiment if experiment else self._namespace_of(item) == namespace)
        ]

    def _page(self, request: Request, items: str, found: Sequence[Json]) -> Json:
        """Sorts, filters and cuts a list as the server's do; a page token stands for the whole question."""
        size = int(request.query.get("page_size") or 0)
        if size < 0:
            raise invalid(f"The page size should be greater than 0. Got {size!r}", "Failed to create list options")
        size = min(size or 20, self.max_page)
        sort, wanted = request.query.get("sort_by", ""), request.query.get("filter", "")
        token, question = request.query.get("page_token", ""), [sort, wanted]
        begin = 0
        if token:
            try:
                value = json.loads(base64.b64decode(token, validate=True))
                begin, question = int(value["Begin"]), list(value["Question"])
            except (ValueError, KeyError, TypeError) as error:
                raise Refused(3, "Invalid page token", "Failed to create list options: Invalid page token") from error
            if (sort or wanted) and [sort, wanted] != question:
                raise invalid(
                    "page token does not match the supplied sort by and/or filtering criteria. Either specify the "
                    "same criteria or leave the latter empty if page token is specified"
                )
        chosen = [item for item in found if _matches(item, question[1], items)]
        ordered = _sorted(chosen, question[0], items)
        part = ordered[begin : begin + size]
        answer: Json = {items: copy.deepcopy(part), "total_size": len(chosen)}
        if begin + size < len(ordered):
            position = json.dumps({"Begin": begin + size, "Question": question})
            answer["next_page_token"] = base64.b64encode(position.encode()).decode()
        return answer

    def _log(self, run: str, node: str) -> tuple[int, Mapping[str, str], bytes]:
        """Answers 200 always: the server writes its status before it looks for the pod."""
        text = self.logs.get((run, node))
        if text is None:
            told = f"BadRequestError: Failed to read logs for run {run}: pods {node!r} not found"
            text = json.dumps({"error_message": told, "error_details": told})
        return 200, {"Content-Type": "text/plain"}, text.encode()

    def _namespace(self, asked: str) -> str:
        return asked if self.multi_user else ""

    def _namespace_of(self, item: Json) -> str:
        return str(self.experiments[item["experiment_id"]]["namespace"])


def specs(text: str) -> tuple[Json, Json | None]:
    """Reads a package as the server's template does: one pipeline spec, and at most one platform spec."""
    spec = platform = None
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        raise Refused(3, f"unable to decode yaml document: {error}") from error
    for document in documents:
        if (found := _platform(document)) is not None:
            if platform is not None:
                raise Refused(3, "multiple platform specs provided")
            platform = found
        elif isinstance(document, dict) and document.get("pipelineInfo", {}).get("name") and document.get("root"):
            if spec is not None:
                raise Refused(3, "multiple pipeline specs provided")
            try:
                spec = _parsed(document, pipeline_spec_pb2.PipelineSpec())
            except json_format.ParseError as error:
                raise Refused(3, f"invalid v2 pipeline spec: proto: {error}") from error
    if spec is None:
        raise Refused(3, "no pipeline spec is provided")
    if spec.get("schemaVersion") != "2.1.0":
        told = f"KFP only supports schema version 2.1.0, but the pipeline spec has version {spec.get('schemaVersion')}"
        raise Refused(3, told)
    if not _NAMES.fullmatch(spec["pipelineInfo"]["name"]):
        told = "pipeline's name must contain only lowercase alphanumeric characters or '-' and must start with"
        raise Refused(3, f"{told} alphanumeric characters")
    return spec, platform


def check_parameters(root: Json, config: Json | None) -> None:
    """Refuses values that the pipeline has no parameter for, lacks or has of another type."""
    wanted = root.get("inputDefinitions", {}).get("parameters", {})
    given = (config or {}).get("parameters") or {}
    types: Mapping[str, type | tuple[type, ...]] = {
        "NUMBER_DOUBLE": (int, float),
        "NUMBER_INTEGER": (int, float),
        "STRING": str,
        "BOOLEAN": bool,
        "LIST": list,
        "STRUCT": dict,
    }
    for name, parameter in wanted.items():
        kind = parameter["parameterType"]
        if name not in given:
            if not parameter.get("isOptional") and "defaultValue" not in parameter:
                told = f"parameter {name} is not optional, yet has neither default value nor user provided value"
                raise invalid(told, "Failed to generate the ExecutionSpec")
        elif not isinstance(given[name], types[kind]) or (isinstance(given[name], bool) != (kind == "BOOLEAN")):
            short = kind.rpartition("_")[2].lower()
            told = f"input parameter {name} requires type {short}, but the parameter value is not of {short} value type"
            raise invalid(told, "Failed to generate the ExecutionSpec")
    if extra := sorted(given.keys() - wanted.keys()):
        told = f"parameter(s) provided are not required by pipeline: {', '.join(extra)}"
        raise invalid(told, "Failed to generate the ExecutionSpec")


def _known(value: Json, kind: Any) -> None:
    for name, part in value.items():
        if name not in kind.openapi_types:
            raise Refused(3, f'proto: (line 1:2): unknown field "{name}"')
        inner = getattr(kfp_server_api, kind.openapi_types[name], None)
        if isinstance(part, dict) and inner is not None:
            _known(part, inner)


def _platform(document: Any) -> Json | None:
    """Returns a platform spec for Kubernetes; the server passes over a second document that is none in silence."""
    try:
        value = _parsed(document, pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError:
        return None
    return value if "kubernetes" in value.get("platforms", {}) else None


def _parsed(document: Any, message: Any) -> Json:
    return dict(json_format.MessageToDict(json_format.ParseDict(document, message)))


def _root(spec: Json) -> Json:
    return dict(spec.get("pipeline_spec", spec)["root"])


def _matches(item: Json, text: str, items: str) -> bool:
    """Tells whether an item passes a filter; refuses the filters that the server refuses."""
    if not text:
        return True
    try:
        predicates = json.loads(unquote(text)).get("predicates", [])
    except (ValueError, AttributeError) as error:
        raise invalid(f"failed to parse valid filter from {text!r}: {error}") from error
    return all(_holds(item, predicate, text, items) for predicate in predicates)


def _holds(item: Json, predicate: Json, text: str, items: str) -> bool:
    snake = {re.sub(r"(?<=[a-z])([A-Z])", lambda m: "_" + m[1].lower(), k): v for k, v in predicate.items()}
    if unknown := snake.keys() - {"operation", "key", *_SCALARS, *_ARRAYS}:
        raise invalid(f"failed to parse valid filter from {text!r}: unknown field {sorted(unknown)[0]!r}")
    key, operation = snake.get("key"), snake.get("operation")
    if key not in _FIELDS[items].split():
        raise invalid(f'no support for filtering on unrecognized field "{key}"')
    scalar = next((snake[k] for k in _SCALARS if k in snake), None)
    array = next((snake[k]["values"] for k in _ARRAYS if k in snake), None)
    own = item.get({"name": "display_name"}.get(key, key) if items in ("runs", "recurringRuns") else key, "")
    if operation == "EQUALS" and array is None:
        return bool(str(own) == str(scalar))
    if operation == "NOT_EQUALS" and array is None:
        return bool(str(own) != str(scalar))
    if operation == "IS_SUBSTRING" and isinstance(scalar, str):
        return _like(scalar).search(str(own)) is not None
    if operation == "IN" and array is not None:
        return str(own) in map(str, array)
    if operation == "IN":
        raise invalid("cannot use IN operator with scalar type string")
    if operation in ("EQUALS", "NOT_EQUALS"):
        raise invalid(f"cannot use scalar operator {operation} on array type []string")
    raise invalid(f"invalid predicate operation: {operation}")


def _like(text: str) -> re.Pattern[str]:
    """Returns SQL's ``LIKE '%text%'`` in MySQL's default collation."""
    patterns = {"%": ".*", "_": "."}
    return re.compile("".join(patterns.get(c, re.escape(c)) for c in text), re.IGNORECASE | re.DOTALL)


def _sorted(found: Sequence[Json], sort: str, items: str) -> list[Json]:
    words = sort.lower().split()
    if len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
        raise invalid(
            f'Received invalid sort by format "{sort}". Supported format: "field_name", "field_name desc", or '
            '"field_name asc"'
        )
    key = words[0] if words else "created_at"
    if key not in _FIELDS[items].split() or key in _UNSORTED:
        raise invalid(f'Invalid sorting field: "{key}" on listable type {items}')
    return sorted(found, key=lambda item: str(item.get(key, "")), reverse=len(words) == 2 and words[1] == "desc")


def _without(item: Json, *keys: str) -> Json:
    return {key: value for key, value in item.items() if key not in keys}


def _uploaded_file(request: Request) -> str:
    """Returns the text of the form's file; ValueError if there is none that can be read."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise ValueError("request Content-Type isn't multipart/form-data")
    message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + request.body)
    for part in message.walk():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            name = str(part.get_filename() or "")
            if len(content) > MAX_FILE_BYTES or not name.endswith((".yaml", ".yml", ".json")):
                raise ValueError("unexpected pipeline file")
            return content.decode()
    raise ValueError("http: no such file")


def _upload_error(status: int, told: str) -> tuple[int, Mapping[str, str], bytes]:
    body = json.dumps({"error_message": told, "error_details": told})
    return status, {"Content-Type": "text/plain; charset=utf-8"}, body.encode()


def _json(status: int, value: Json) -> tuple[int, Mapping[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _hits(fault: Fault, request: Request) -> bool:
    return fault.method == request.method and re.fullmatch(fault.path, request.path) is not None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, fake: KfpFake) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one packet: of two, the second may await an ACK for 40 ms

            def _handle(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
                headers = {key.lower(): value for key, value in self.headers.items()}
                status, named, content = fake.answer(Request(self.command, parts.path, query, headers, body))
                self.send_response(status)
                for key, value in named.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = do_PUT = _handle

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that hang up, as those do that don't trust its certificate."""
