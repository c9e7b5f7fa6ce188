"""gRPC handlers for the SDK's own services: what each method takes and gives is read off its generated transport."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

PACKAGE = "google.cloud.aiplatform.v1"


@dataclass(frozen=True)
class Method:
    """A method as the SDK's transport calls it.

    Attributes:
        path: ``/google.cloud.aiplatform.v1.PipelineService/CreatePipelineJob``.
        request: message class.
        response: message class.
    """

    path: str
    request: Any
    response: Any

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


class _Listening(grpc.Channel):
    """A channel that carries nothing, and keeps what is registered on it."""

    def __init__(self) -> None:
        self.methods: list[tuple[str, Any, Any]] = []

    def unary_unary(self, method: str, request_serializer=None, response_deserializer=None, *_: Any, **__: Any) -> Any:
        self.methods.append((method, request_serializer, response_deserializer))
        return lambda *args, **kwargs: None

    unary_stream = stream_unary = stream_stream = lambda *args, **kwargs: lambda *a, **k: None

    def subscribe(self, *args: Any, **kwargs: Any) -> None: ...

    def unsubscribe(self, *args: Any, **kwargs: Any) -> None: ...

    def close(self) -> None: ...


def methods(transport: Any) -> Iterator[Method]:
    """Yields the unary methods of a generated transport class that belong to Vertex AI itself."""
    channel = _Listening()
    made = transport(channel=channel)
    made._logged_channel = channel  # the interceptor over it registers a method only when it is called
    made._stubs.clear()
    for name in dir(transport):
        if isinstance(getattr(transport, name), property) and name not in ("grpc_channel", "kind", "operations_client"):
            getattr(made, name)
    for path, serialize, deserialize in channel.methods:
        if path.startswith(f"/{PACKAGE}."):
            yield Method(path, serialize.__self__, deserialize.__self__)


def handler(method: Method, serve: Callable[[Method, Any, grpc.ServicerContext], Any]) -> grpc.RpcMethodHandler:
    """Returns the server's side of a method."""
    read = getattr(method.request, "deserialize", None) or method.request.FromString
    write = getattr(method.response, "serialize", None) or method.response.SerializeToString
    return grpc.unary_unary_rpc_method_handler(
        lambda request, context: serve(method, request, context), request_deserializer=read, response_serializer=write
    )
