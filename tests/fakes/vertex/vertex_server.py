"""The fake as a process of its own: gRPC over TLS, Cloud Storage over HTTP, and a socket by which tests look inside.

::

    python vertex_server.py DIRECTORY --project P --number N --region R [--port 443]

DIRECTORY has ``server.pem`` (key and certificates) and ``caller.pem`` (the certificate of the one service account that
may call), and gets ``control`` (a Unix socket) and, once all listens, ``ready.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any, Final

import grpc
from google.auth import jwt
from google.cloud.aiplatform_v1.services.endpoint_service.transports import EndpointServiceGrpcTransport
from google.cloud.aiplatform_v1.services.job_service.transports import JobServiceGrpcTransport
from google.cloud.aiplatform_v1.services.model_service.transports import ModelServiceGrpcTransport
from google.cloud.aiplatform_v1.services.pipeline_service.transports import PipelineServiceGrpcTransport
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcTransport
from google.cloud.aiplatform_v1.services.schedule_service.transports import ScheduleServiceGrpcTransport
from google.cloud.aiplatform_v1.types import prediction_service
from google.longrunning import operations_pb2
from google.protobuf import json_format
from vertex_endpoints import Endpoints, Predictions
from vertex_logging import ADDRESS, logging_server
from vertex_models import Models
from vertex_pipelines import Pipelines
from vertex_schedules import Schedules
from vertex_storage import storage_server
from vertex_tunings import AllJobs
from vertex_wire import Method, handler, methods
from vertex_world import Refusal, Scripted, World

_SERVICES: Final = (
    (PipelineServiceGrpcTransport, Pipelines),
    (ScheduleServiceGrpcTransport, Schedules),
    (ModelServiceGrpcTransport, Models),
    (EndpointServiceGrpcTransport, Endpoints),
    (PredictionServiceGrpcTransport, Predictions),
    (JobServiceGrpcTransport, AllJobs),
)


class Gate:
    """What every call passes: who asks, what is written down, and the refusals that a test asked for."""

    def __init__(self, world: World, caller: bytes) -> None:
        self._world = world
        self._caller = caller

    def serve(self, method: Method, request: Any, context: grpc.ServicerContext, answer: Callable[[Any], Any]) -> Any:
        raw = type(request).pb(request) if hasattr(type(request), "pb") else request
        metadata = dict(context.invocation_metadata())
        with self._world.lock:
            self._world.requests.append(
                {
                    "method": method.path.removeprefix("/google.cloud.aiplatform.v1."),
                    "request": json_format.MessageToDict(raw, preserving_proto_field_name=True),
                    "routing": metadata.get("x-goog-request-params"),
                    "host": metadata.get(":authority"),
                }
            )
            try:
                self._authenticate(metadata.get("authorization", ""))
                scripted = self._scripted(method)
                if scripted is not None and scripted.done:
                    answer(request)
                if scripted is not None:
                    raise Refusal(scripted.code, scripted.message)
                return answer(request)
            except Refusal as refusal:
                context.abort(refusal.code, refusal.message)

    def _authenticate(self, header: str) -> None:
        try:
            claims = jwt.decode(header.removeprefix("Bearer "), certs=self._caller.decode())
        except Exception as error:
            expected = "Request had invalid authentication credentials. Expected OAuth 2 access token"
            raise Refusal("UNAUTHENTICATED", f"{expected}: {error}") from error
        if "aiplatform" not in claims.get("aud", "") and "cloud-platform" not in claims.get("scope", ""):
            raise Refusal("UNAUTHENTICATED", "The token is for another service.")

    def _scripted(self, method: Method) -> Scripted | None:
        for scripted in self._world.scripted:
            if scripted.method == method.name and scripted.times > 0:
                scripted.times -= 1
                return scripted
        return None


class Control:
    """What a test may ask and change, by name."""

    def __init__(self, world: World) -> None:
        self._world = world

    def requests(self) -> list[dict[str, Any]]:
        return list(self._world.requests)

    def refuse(self, method: str, code: str, message: str, times: int, done: bool) -> None:
        self._world.scripted.append(Scripted(method, code, message, times, done))

    def set(self, name: str, value: Any) -> None:
        assert hasattr(self._world, name), name
        setattr(self._world, name, value)

    def objects(self) -> dict[str, bytes]:
        return {f"gs://{bucket}/{name}": content for (bucket, name), content in self._world.objects.items()}

    def put(self, uri: str, content: bytes) -> None:
        bucket, name = re.fullmatch(r"gs://([^/]+)/(.+)", uri).groups()
        self._world.objects[bucket, name] = content

    def log(self, job: str, entries: list[dict[str, Any]]) -> None:
        self._world.logs.setdefault(job, []).extend(entries)

    def complete_schedule(self, name: str) -> None:
        for schedule in self._world.schedules.values():
            if schedule.display_name == name:
                schedule.state = type(schedule).State.COMPLETED

    def reset(self) -> None:
        fresh = World(self._world.project, self._world.number, self._world.region)
        kept = {name: getattr(self._world, name) for name in ("lock", "http", "hosts", "serial")}
        vars(self._world).update(vars(fresh) | kept)


def _handlers(world: World, gate: Gate) -> list[grpc.GenericRpcHandler]:
    found = []
    for transport, service in _SERVICES:
        served, handlers, path = service(world), {}, ""
        for method in methods(transport):
            path = method.path
            answer = getattr(served, re.sub(r"(?<!^)([A-Z])", r"_\1", method.name).lower(), None)
            if answer is not None:
                handlers[method.name] = handler(
                    method, lambda m, request, context, answer=answer: gate.serve(m, request, context, answer)
                )
        found.append(grpc.method_handlers_generic_handler(path.split("/")[1], handlers))
    look = Method("/google.longrunning.Operations/GetOperation", operations_pb2.GetOperationRequest, _Operation)
    served_look = handler(look, lambda m, q, c: gate.serve(m, q, c, lambda request: world.look(request.name)))
    found.append(grpc.method_handlers_generic_handler("google.longrunning.Operations", {"GetOperation": served_look}))
    return found


_Operation = operations_pb2.Operation


def _dedicated_server(world: World, pem: Path, port: int) -> ThreadingHTTPServer:
    """Returns the HTTPS server behind the endpoints' own hosts, each of which knows its endpoint only."""
    predictions = Predictions(world)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # head and body in one packet: apart, each answer would wait 40 ms for an acknowledgement

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            host, path = self.headers["Host"].split(":")[0], self.path.split("?")[0]
            match = re.fullmatch(r"/v1/(projects/[^:]+):predict", path)
            status, answer = 200, b""
            with world.lock:
                world.requests.append({"method": "dedicated predict", "host": host, "request": json.loads(body)})
                try:
                    if match is None or host.split(".")[0] != match.group(1).rsplit("/", 1)[-1]:
                        raise Refusal("NOT_FOUND", f"{host} does not serve {path}.")
                    raw = json_format.Parse(body, prediction_service.PredictRequest.pb()())
                    raw.endpoint = match.group(1)
                    response = predictions.predict(prediction_service.PredictRequest.wrap(raw), shared=False)
                    answer = prediction_service.PredictResponse.to_json(response).encode()
                except Refusal as refusal:
                    status = 404 if refusal.code == grpc.StatusCode.NOT_FOUND else 400
                    error = {"code": status, "message": refusal.message, "status": refusal.code.name}
                    answer = json.dumps({"error": error}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.2", port), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def _listen(control: Control, world: World, path: Path) -> None:
    """Answers the test's questions until the process is ended."""
    with Listener(str(path), "AF_UNIX") as listener:
        while True:
            threading.Thread(target=_converse, args=(control, world, listener.accept()), daemon=True).start()


def _converse(control: Control, world: World, connection: Connection) -> None:
    with connection:
        while True:
            try:
                name, arguments = connection.recv()
            except EOFError:
                return
            with world.lock:
                connection.send(getattr(control, name)(*arguments))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    for name in ("project", "number", "region"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--hosts", default="")
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    world = World(arguments.project, arguments.number, arguments.region, hosts=arguments.hosts)
    pem = (directory / "server.pem").read_bytes()
    certificates = pem[pem.index(b"-----BEGIN CERTIFICATE") :]
    key = pem[: pem.index(b"-----BEGIN CERTIFICATE")]
    predictions = Predictions(world)
    storage = storage_server(world, predictions.private)
    world.http = f"http://127.0.0.1:{storage.server_address[1]}"
    caller = (directory / "caller.pem").read_bytes()
    server = grpc.server(ThreadPoolExecutor(8), handlers=_handlers(world, Gate(world, caller)))
    port = server.add_secure_port(f"127.0.0.1:{arguments.port}", grpc.ssl_server_credentials([(key, certificates)]))
    server.start()
    threading.Thread(target=storage.serve_forever, daemon=True).start()
    dedicated = _dedicated_server(world, directory / "server.pem", arguments.port)
    threading.Thread(target=dedicated.serve_forever, daemon=True).start()
    logs = logging_server(world, directory / "server.pem", arguments.port, caller)
    threading.Thread(target=logs.serve_forever, daemon=True).start()
    threading.Thread(target=_listen, args=(Control(world), world, directory / "control"), daemon=True).start()
    ready = directory / "ready.json.partial"
    ready.write_text(
        json.dumps({"port": port, "storage": world.http, "logging": f"https://{ADDRESS}:{logs.server_address[1]}"})
    )
    os.replace(ready, directory / "ready.json")
    server.wait_for_termination()


if __name__ == "__main__":
    main()
