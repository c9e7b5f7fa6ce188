"""An S3-like object store over real HTTP: buckets that exist, keys that may be written, credentials that it knows."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

ACCESS_KEY = "example-access-key"


class ObjectFake:
    """The server; what was stored is in ``objects`` by ``bucket/key``."""

    def __init__(self, buckets: tuple[str, ...] = ("example-bucket",)) -> None:
        self.buckets, self.objects, self.writes = buckets, dict[str, bytes](), list[str]()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else the second packet of an answer may await an ACK for 40 ms

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {key.lower(): value for key, value in self.headers.items()}
                status, content = fake.answer(self.command, self.path, headers, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/xml" if status != 200 else "binary/octet-stream")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                self.send_header("ETag", '"0"')
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = _handle

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ObjectFake:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What AWS's credential chain is to find."""
        return {
            "AWS_ENDPOINT_URL_S3": self.address,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": "example-secret",
            "AWS_DEFAULT_REGION": "eu-example-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(target)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if f"Credential={ACCESS_KEY}/" not in headers.get("authorization", ""):
            return _error(403, "AccessDenied", "Access Denied")
        if bucket not in self.buckets:
            return _error(404, "NoSuchBucket", "The specified bucket does not exist")
        name = f"{bucket}/{key}"
        if method == "PUT":
            self.objects[name] = _content(headers, body)
            self.writes.append(name)
            return 200, b""
        if not key:
            prefix = parse_qs(parts.query).get("prefix", [""])[0]
            found = [n.partition("/")[2] for n in self.objects if n.startswith(f"{bucket}/{prefix}")]
            items = "".join(f"<Contents><Key>{k}</Key><Size>1</Size></Contents>" for k in found)
            listing = f"<ListBucketResult><KeyCount>{len(found)}</KeyCount>{items}</ListBucketResult>"
            return 200, listing.encode()
        if name not in self.objects:
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        return 200, self.objects[name]


def _content(headers: Mapping[str, str], body: bytes) -> bytes:
    """Returns what is stored: newer clients send chunks with their sizes, and a checksum after the last."""
    if "aws-chunked" not in headers.get("content-encoding", ""):
        return body
    content, rest = b"", body
    while match := re.match(rb"([0-9a-fA-F]+)[^\r\n]*\r\n", rest):
        size = int(match[1], 16)
        if size == 0:
            break
        content += rest[match.end() : match.end() + size]
        rest = rest[match.end() + size + 2 :]
    return content


def _error(status: int, code: str, message: str) -> tuple[int, bytes]:
    return status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
