"""As much of Cloud Storage's JSON API as its Python client asks for here, with preconditions and permissions.

Beside it, on the same port, the model servers of private endpoints: ``/private/<deployed model>:predict``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
from vertex_world import Refusal, World


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Incomplete(Exception):
    def __init__(self, received: str) -> None:
        super().__init__(received)
        self.range = received


def storage_server(world: World, predict: Any) -> ThreadingHTTPServer:
    """Returns a server on a free port of the loopback; the caller runs it.

    Args:
        predict: what answers for a deployed model: id and instances to predictions.
    """

    uploads: dict[str, tuple[str, str, dict[str, str], bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # head and body in one packet: apart, each answer would wait 40 ms for an acknowledgement

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def do_PUT(self) -> None:
            self._answer("PUT")

        def log_message(self, *_: Any) -> None: ...

        def _answer(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            try:
                with world.lock:
                    content = self._dispatch(method, url.path, query, body)
            except _Incomplete as incomplete:
                self._send(308, b"", {"Range": incomplete.range})
                return
            except _Refused as refused:
                error = {"error": {"code": refused.status, "message": str(refused), "errors": []}}
                self._send(refused.status, json.dumps(error).encode())
                return
            content, headers = content if isinstance(content, tuple) else (content, {})
            self._send(200, content if isinstance(content, bytes) else json.dumps(content).encode(), headers)

        def _dispatch(self, method: str, path: str, query: dict[str, str], body: bytes) -> Any:
            if match := re.fullmatch(r"/private/(\d+):predict", path):
                try:
                    return predict(match.group(1), json.loads(body)["instances"])
                except Refusal as refusal:
                    raise _Refused(500, refusal.message) from refusal
            if match := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path):
                world.requests.append({"method": "storage.objects.insert", "request": {"query": query}})
                return self._insert(match.group(1), query, body)
            if match := re.fullmatch(r"/upload/resumable/(\d+)", path):
                return self._resume(match.group(1), body)
            if match := re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)", path):
                return self._get(match.group(1), unquote(match.group(2)), query)
            if match := re.fullmatch(r"/storage/v1/b/([^/]+)/o", path):
                return self._list(match.group(1), query)
            raise _Refused(404, f"{method} {path} is not served.")

        def _insert(self, bucket: str, query: dict[str, str], body: bytes) -> Any:
            _check_bucket(world, bucket, "storage.objects.create")
            if query.get("uploadType") == "multipart":
                about, content = _parts(self.headers["Content-Type"], body)
                return self._write(bucket, about["name"], query, content)
            if query.get("uploadType") == "resumable":
                name = query.get("name") or json.loads(body)["name"]
                self._refuse_existing(bucket, name, query)
                upload = world.number_for()
                uploads[upload] = (bucket, name, query, b"")
                return {}, {"Location": f"{world.http}/upload/resumable/{upload}"}
            raise _Refused(501, f"uploadType {query.get('uploadType')} is not served.")

        def _resume(self, upload: str, body: bytes) -> Any:
            bucket, name, query, before = uploads[upload]
            uploads[upload] = (bucket, name, query, before + body)
            match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", self.headers["Content-Range"])
            assert match is not None
            if match.group(3) == "*" or int(match.group(2)) + 1 < int(match.group(3)):
                raise _Incomplete(f"bytes=0-{match.group(2)}")
            return self._write(bucket, name, query, before + body)

        def _write(self, bucket: str, name: str, query: dict[str, str], content: bytes) -> Any:
            self._refuse_existing(bucket, name, query)
            world.objects[bucket, name] = content
            return _described(world, bucket, name)

        def _refuse_existing(self, bucket: str, name: str, query: dict[str, str]) -> None:
            if query.get("ifGenerationMatch") == "0" and (bucket, name) in world.objects:
                raise _Refused(412, "At least one of the pre-conditions you specified did not hold.")

        def _get(self, bucket: str, name: str, query: dict[str, str]) -> Any:
            _check_bucket(world, bucket, "storage.objects.get")
            if (bucket, name) not in world.objects:
                raise _Refused(404, f"No such object: {bucket}/{name}")
            return world.objects[bucket, name] if query.get("alt") == "media" else _described(world, bucket, name)

        def _list(self, bucket: str, query: dict[str, str]) -> Any:
            _check_bucket(world, bucket, "storage.objects.list")
            prefix = query.get("prefix", "")
            names = sorted(name for b, name in world.objects if b == bucket and name.startswith(prefix))
            begin = int(query.get("pageToken") or 0)
            size = min(int(query.get("maxResults") or 1000), 1000)
            answer: dict[str, Any] = {"items": [_described(world, bucket, n) for n in names[begin : begin + size]]}
            return answer | ({"nextPageToken": str(begin + size)} if begin + size < len(names) else {})

        def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def _check_bucket(world: World, bucket: str, permission: str) -> None:
    if bucket in world.forbidden_buckets:
        who = "caller@example-project.iam.gserviceaccount.com does not have"
        raise _Refused(403, f"{who} {permission} access to the Google Cloud Storage object.")
    if bucket not in world.buckets:
        raise _Refused(404, "The specified bucket does not exist.")


def _parts(kind: str, body: bytes) -> tuple[Any, bytes]:
    """Returns the metadata and the content of a multipart upload."""
    match = re.search(r'boundary="?([^";]+)', kind)
    assert match is not None
    _, about, content, _ = body.split(b"--" + match.group(1).encode())
    return json.loads(about.split(b"\r\n\r\n", 1)[1]), content.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")


def _described(world: World, bucket: str, name: str) -> dict[str, Any]:
    content = world.objects[bucket, name]
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "generation": "1",
        "metageneration": "1",
        "size": str(len(content)),
        "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
        "crc32c": base64.b64encode(google_crc32c.Checksum(content).digest()).decode(),
    }
