"""A repository as Cloud Build has it connected: private, behind HTTP, with tokens that Cloud Build's API gives out."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

NAME: Final = "projects/example-project/locations/europe-west1/connections/github/repositories/tidemill"
ACCESS_TOKEN: Final = "of-the-account"
_READ_TOKEN: Final = "of-the-repository"
_GIT: Final = ("git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=main")


@dataclass(frozen=True)
class Repository:
    """A served repository.

    Attributes:
        work: where commits are made; its ``origin`` is what is served.
        address: of repository and API.
    """

    work: Path
    address: str

    def commit(self, name: str) -> str:
        """Makes a commit with one file more, pushes it and returns it."""
        (self.work / name).write_text(name)
        for arguments in (("add", "--all"), ("commit", "--quiet", "--message", name)):
            self._git(*arguments)
        self._git("push", "--quiet", "--force", "origin", "HEAD:main")
        return self._git("rev-parse", "HEAD")

    def go_to(self, commit: str) -> None:
        self._git("checkout", "--quiet", "--detach", commit)

    def clone(self, commit: str, root: Path) -> None:
        """Clones one commit as Cloud Build does: without history, and leaving no credentials."""
        subprocess.run([*_GIT, "init", "--quiet", str(root)], check=True)
        inside = [*_GIT, "-C", str(root)]
        subprocess.run([*inside, "fetch", "--quiet", "--depth=1", f"file://{self._origin}", commit], check=True)
        subprocess.run([*inside, "checkout", "--quiet", "FETCH_HEAD"], check=True)
        subprocess.run([*inside, "remote", "add", "origin", f"{self.address}/origin.git"], check=True)

    @property
    def _origin(self) -> Path:
        return self.work.parent / "served" / "origin.git"

    def _git(self, *arguments: str) -> str:
        done = subprocess.run([*_GIT, *arguments], cwd=self.work, check=True, capture_output=True, text=True)
        return done.stdout.strip()


@contextlib.contextmanager
def served(directory: Path) -> Iterator[Repository]:
    """Yields an empty repository, which is served until the end."""
    origin, work = directory / "served" / "origin.git", directory / "work"
    subprocess.run([*_GIT, "init", "--quiet", "--bare", str(origin)], check=True)
    subprocess.run([*_GIT, "init", "--quiet", str(work)], check=True)
    subprocess.run([*_GIT, "-C", str(work), "remote", "add", "origin", str(origin)], check=True)

    class Handler(_Handler):
        root = origin.parent

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Repository(work, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    """Cloud Build's API and git's protocol; each refuses who has no token of its own kind."""

    root: Path

    def do_GET(self) -> None:
        self._git(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path == f"/v2/{NAME}:accessReadToken":
            if body:
                self._answer(400, b'{"error": {"status": "INVALID_ARGUMENT"}}')
            elif self.headers.get("Authorization") == f"Bearer {ACCESS_TOKEN}":
                self._answer(200, json.dumps({"token": _READ_TOKEN}).encode())
            else:
                self._answer(403, b'{"error": {"status": "PERMISSION_DENIED"}}')
        else:
            self._git(body)

    def _git(self, body: bytes) -> None:
        kind, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if kind != "Basic" or base64.b64decode(encoded).partition(b":")[2] != _READ_TOKEN.encode():
            self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="GitHub"'})
            return
        path, _, query = self.path.partition("?")
        told = {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env={**os.environ, **told}, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self._answer(int(headers.pop("Status", "200").split()[0]), content, headers)

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing: tests look at what clients say."""
