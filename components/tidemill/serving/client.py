"""Asks a server, over one connection that is kept open. Needs the standard library alone."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """A response: its status, its headers by lower-case name, and its JSON value (or text)."""

    status: int
    headers: Mapping[str, str]
    value: Any

    @property
    def error(self) -> str:
        """What the server said is wrong."""
        return str(self.value["error"] if isinstance(self.value, dict) and "error" in self.value else self.value)


class Client:
    """A connection to ``host:port``. Not for use by several threads at once."""

    def __init__(self, host: str, port: int, timeout_s: float = 10.0) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def post(self, path: str, value: Any) -> Answer:
        """Sends ``value`` as JSON."""
        return self.send("POST", path, json.dumps(value, ensure_ascii=False, allow_nan=False).encode())

    def send(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Sends a request, once more if the server had closed the idle connection.

        Raises:
            OSError: if the server cannot be reached or doesn't answer in time.
        """
        used = self._connection.sock is not None
        try:
            return self._send(method, path, body)
        except ConnectionError:
            if not used:
                raise
            return self._send(method, path, body)

    def _send(self, method: str, path: str, body: bytes | None) -> Answer:
        try:
            return self._exchange(method, path, body)
        except OSError:
            self._connection.close()
            raise
        except (http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise ConnectionError(f"not an HTTP response with JSON: {type(error).__name__}") from error

    def _exchange(self, method: str, path: str, body: bytes | None) -> Answer:
        self._connection.request(method, path, body, _JSON if body is not None else {})
        response = self._connection.getresponse()
        content = response.read()
        headers = {key.lower(): value for key, value in response.getheaders()}
        is_json = headers.get("content-type", "").startswith("application/json")
        value = json.loads(content) if is_json else content.decode("utf-8", "replace")
        return Answer(response.status, headers, value)
