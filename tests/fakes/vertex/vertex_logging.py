"""As much of Cloud Logging as the launcher asks for: ``entries:list``, over HTTPS, with a token for this service."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from google.auth import jwt
from vertex_world import World

ADDRESS: Final = "127.0.0.3"
HOST: Final = "logging.googleapis.com"
_PAGE: Final = 2  # so that every test turns pages
_FILTER: Final = re.compile(
    r'resource\.type="ml_job" AND resource\.labels\.job_id="(\d+)"(?: AND timestamp>="([^"]+)")?'
)


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def logging_server(world: World, pem: Path, port: int, caller: bytes) -> ThreadingHTTPServer:
    """Returns the server; the whole runs it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = 200
            with world.lock:
                world.requests.append({"method": "entries:list", "request": body})
                try:
                    _authenticate(self.headers.get("Authorization", ""), caller)
                    answer: Any = _entries(world, self.path, body)
                except _Refused as refused:
                    status = refused.status
                    answer = {"error": {"code": status, "message": str(refused), "status": refused.code}}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer((ADDRESS, port), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def _authenticate(header: str, caller: bytes) -> None:
    try:
        claims = jwt.decode(header.removeprefix("Bearer "), certs=caller.decode())
    except Exception as error:
        raise _Refused(401, "UNAUTHENTICATED", f"Request had invalid authentication credentials: {error}") from error
    if claims.get("aud") != f"https://{HOST}/":
        raise _Refused(401, "UNAUTHENTICATED", "The token is for another service.")


def _entries(world: World, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    if path != "/v2/entries:list":
        raise _Refused(404, "NOT_FOUND", f"{path} is not found.")
    if world.log_refusals:
        raise _Refused(*world.log_refusals.pop(0))
    if body.get("resourceNames") != [f"projects/{world.project}"]:
        raise _Refused(403, "PERMISSION_DENIED", f"No access to {body.get('resourceNames')}.")
    if (match := _FILTER.fullmatch(body.get("filter", ""))) is None or body.get("orderBy") != "timestamp asc":
        raise _Refused(400, "INVALID_ARGUMENT", f"Unparseable filter: {body.get('filter')}")
    job, since = match.groups()
    found = [e for e in world.logs.get(job, ()) if since is None or e["timestamp"] >= since[:19]]
    found.sort(key=lambda entry: entry["timestamp"])
    begin = int(body.get("pageToken", 0))
    more = {"nextPageToken": str(begin + _PAGE)} if begin + _PAGE < len(found) else {}
    return {"entries": found[begin : begin + _PAGE], **more}
