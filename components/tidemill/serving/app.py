"""The HTTP interface: TensorFlow Serving's REST API, Vertex AI's container contract, health and metrics."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidemill.serving import payload
from tidemill.serving.logs import event
from tidemill.serving.metrics import Metrics
from tidemill.serving.payload import Fault, Refused
from tidemill.serving.settings import Settings
from tidemill.serving.versions import Version, Versions

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_PREDICT: Final = "predict"
# `curl -d` without a header sends the last, and TensorFlow Serving's documentation calls it so.
_MEDIA_TYPES: Final = ("", "application/json", "application/x-www-form-urlencoded")
_DRAIN_RETRY_S: Final = 1


class Drain:
    """Whether the server is going away, and what it still owes."""

    def __init__(self) -> None:
        self.draining = False
        self.in_flight = 0


def build_app(versions: Versions, settings: Settings, metrics: Metrics, drain: Drain) -> ASGIApp:
    """Returns the ASGI application that answers for ``versions``."""
    api = _Api(versions, settings, metrics, drain)
    model = "/v1/models/{name}"
    version = f"{model}/versions/{{version}}"
    routes = [
        Route(f"{model}:predict", api.predict, methods=["POST"], name=_PREDICT),
        Route(f"{version}:predict", api.predict, methods=["POST"], name=_PREDICT),
        Route(model, api.status, name="status"),
        Route(version, api.status, name="status"),
        Route(f"{model}/metadata", api.metadata, name="metadata"),
        Route(f"{version}/metadata", api.metadata, name="metadata"),
        Route("/livez", api.live, name="livez"),
        Route("/readyz", api.ready, name="readyz"),
        Route("/metrics", api.metrics, name="metrics"),
    ]
    if settings.predict_route:
        routes.append(Route(settings.predict_route, api.predict, methods=["POST"], name=_PREDICT))
    if settings.health_route:
        routes.append(Route(settings.health_route, api.ready, name="readyz"))
    return _Frame(Starlette(routes=routes), metrics, drain)


class _Api:
    """What is answered on each route."""

    def __init__(self, versions: Versions, settings: Settings, metrics: Metrics, drain: Drain) -> None:
        self._versions, self._settings, self._metrics, self._drain = versions, settings, metrics, drain

    async def predict(self, request: Request) -> Response:
        """Predicts with the champion, or the version that the path names."""
        if self._drain.draining:
            raise Refused(503, Fault("the server is about to end"), retry_after_s=_DRAIN_RETRY_S)
        name, number = self._asked(request)
        self._versions.resolve(name, number)  # before the body is read: nobody should upload it for a 404
        body = await _body(request, self._settings)
        version = self._versions.resolve(name, number)
        with version.in_use():
            call = payload.parse(body, version.model.signatures, self._settings.max_rows)
            request.scope["state"].update(rows=call.rows, version=version.number)
            outputs = await version.predict(call)
            content = payload.render(outputs, call.columnar)
        return Response(content, media_type="application/json", headers={"X-Model-Version": str(version.number)})

    async def status(self, request: Request) -> Response:
        """Tells which versions are loaded, and in which state the others are."""
        name, number = self._asked(request)
        if name == f"{self._versions.name}:predict":
            raise HTTPException(405, "Method Not Allowed", {"Allow": "POST"})
        if name != self._versions.name:
            raise Refused(404, Fault(f"no such model; this server has {self._versions.name}"))
        return _json({"model_version_status": self._versions.status(number)})

    async def metadata(self, request: Request) -> Response:
        """Describes the signatures of the champion, or of the version that the path names."""
        return _json(_metadata(self._versions.resolve(*self._asked(request))))

    async def live(self, _: Request) -> Response:
        """Answers as long as the process can."""
        return _json({"status": "live"})

    async def ready(self, _: Request) -> Response:
        """Answers 200 while predictions are answered: after warm-up, before draining."""
        if self._drain.draining:
            raise Refused(503, Fault("the server is about to end"), retry_after_s=_DRAIN_RETRY_S)
        return _json({"status": "ready", "version": self._versions.resolve(self._versions.name, None).number})

    async def metrics(self, _: Request) -> Response:
        """Gives the metrics in Prometheus' text format."""
        self._metrics.queued_rows.set(self._versions.queued_rows)
        self._metrics.draining.set(int(self._drain.draining))
        return Response(generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _asked(self, request: Request) -> tuple[str, int | None]:
        """Returns the model and version that the path names; Vertex AI's routes name neither."""
        path: Mapping[str, str] = request.path_params
        return path.get("name", self._versions.name), _number(path["version"]) if "version" in path else None


class _Frame:
    """What is done around every request: its id, its time, its log line, and an answer whatever happens."""

    def __init__(self, app: Starlette, metrics: Metrics, drain: Drain) -> None:
        self._app, self._metrics, self._drain = app, metrics, drain
        app.add_exception_handler(Refused, _refused)
        app.add_exception_handler(HTTPException, _not_routed)
        app.add_exception_handler(ClientDisconnect, _gone)
        app.add_exception_handler(Exception, _failed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        identity = _request_id(scope)
        state: dict[str, Any] = {"request_id": identity}
        scope["state"] = {**scope.get("state", {}), **state}
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
                if self._drain.draining:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        self._drain.in_flight += 1
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 - `_failed` has answered; Starlette raises it again for us to log
            event("request_failed", logging.ERROR, error, request_id=identity)
        finally:
            self._drain.in_flight -= 1
            self._metrics.in_flight.dec()
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "name", None) or "unknown"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.latency.labels(route).observe(seconds)
        if route == _PREDICT or status == 500:  # probes and scrapes would drown the rest
            event("request", route=route, status=status, ms=round(seconds * 1000, 2), **scope["state"])


async def _body(request: Request, settings: Settings) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES and not media_type.endswith("+json"):
        raise Refused(415, Fault("Content-Type: expected application/json"))
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, Fault("Content-Encoding: expected none"))
    too_large = Refused(413, Fault(f"the body must have at most {settings.max_body_bytes} bytes"))
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_body_bytes:
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > settings.max_body_bytes:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError as error:
        raise Refused(408, Fault(f"the body did not arrive within {settings.body_timeout_s:g} s")) from error
    return b"".join(chunks)


def _number(version: str) -> int:
    if not version.isdecimal() or len(version) > 18:
        raise Refused(404, Fault("versions are whole numbers"))
    return int(version)


def _metadata(version: Version) -> dict[str, Any]:
    manifest = version.model.manifest
    signatures = {
        name: {
            "inputs": {key: _tensor(key, dtype) for key, dtype in signature.inputs.items()},
            "outputs": {key: _tensor(key, dtype) for key, dtype in signature.outputs.items()},
            "method_name": "tensorflow/serving/predict",
        }
        for name, signature in version.model.signatures.items()
    }
    return {
        "model_spec": {"name": manifest.name, "signature_name": "", "version": str(version.number)},
        "metadata": {"signature_def": {"signature_def": signatures}},
        "model": {
            "task": manifest.task,
            "classes": manifest.classes,
            "threshold": manifest.threshold,
            "digest": manifest.digest,
        },
    }


def _tensor(name: str, dtype: str) -> dict[str, Any]:
    dtypes = {"float32": "DT_FLOAT", "int64": "DT_INT64", "string": "DT_STRING"}
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    return {"name": name, "dtype": dtypes.get(dtype, f"DT_{dtype.upper()}"), "tensor_shape": shape}


def _request_id(scope: Scope) -> str:
    given = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"x-request-id"), "")
    # What a client sends stands in our logs: only what cannot break a line or a parser is taken over.
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def _error(status: int, faults: list[Fault], request_id: str, retry_after_s: int | None = None) -> Response:
    listed = [{k: v for k, v in vars(fault).items() if v is not None} for fault in faults]
    content = {"error": "; ".join(fault.message for fault in faults), "faults": listed, "request_id": request_id}
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Response(orjson.dumps(content), status, headers, "application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    state = request.scope["state"]
    state["faults"] = len(error.faults)
    return _error(error.status, list(error.faults), state["request_id"], error.retry_after_s)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _error(error.status_code, [Fault(str(error.detail))], request.scope["state"]["request_id"])
    response.headers.update(error.headers or {})
    return response


async def _gone(request: Request, _: Exception) -> Response:
    """The client went away before its request was read; 499 is for the log, nobody gets it."""
    return _error(499, [Fault("the client closed the connection")], request.scope["state"]["request_id"])


async def _failed(request: Request, _: Exception) -> Response:
    """The server's own fault. What it was goes to the log, as frames; neither gets values."""
    return _error(500, [Fault("internal error")], request.scope["state"]["request_id"])
