"""The server's settings, read once from the command line and the environment."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidemill.errors import UsageError

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Settings:
    """How to serve what.

    Attributes:
        model: name of the model in the registry, whose aliases are followed; with ``registry``.
        registry: root of the registry.
        storage_uri: directory of one model, local or any URI that ``tf.io.gfile`` reads; instead of a registry.
        host: address to bind.
        port: port to bind; unused with ``socket_fd``.
        socket_fd: an inherited socket that listens already.
        lock_fd: an inherited locked file that tells others that this process lives; held until it ends.
        state_file: file that tells others where this process listens; removed when it ends.
        predict_route: path that also answers predictions (Vertex AI's AIP_PREDICT_ROUTE).
        health_route: path that also answers readiness (Vertex AI's AIP_HEALTH_ROUTE).
        batch_sizes: rows that a TensorFlow call is padded to; the last is the largest call.
        workers: TensorFlow calls at the same time.
        max_queued_rows: rows that may wait; beyond, requests are refused with 503.
        max_rows: rows of one request; all others wait while they are answered.
        max_body_bytes: size of one request.
        body_timeout_s: seconds that a client has to send its request.
        drain_grace_s: seconds to refuse with 503 before the port is closed, so that load balancers notice.
        drain_timeout_s: seconds that requests in flight may take after the signal to end.
        poll_s: seconds between two looks at the registry's aliases.
        retry_s: seconds until a version that could not be loaded is tried again.
    """

    model: str | None = None
    registry: Path | None = None
    storage_uri: str | None = None
    host: str = "127.0.0.1"
    port: int = 8501
    socket_fd: int | None = None
    lock_fd: int | None = None
    state_file: Path | None = None
    predict_route: str | None = None
    health_route: str | None = None
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    workers: int = 1
    max_queued_rows: int = 4096
    max_rows: int = 2048
    max_body_bytes: int = 4 << 20
    body_timeout_s: float = 30.0
    drain_grace_s: float = 0.0
    drain_timeout_s: float = 30.0
    poll_s: float = 0.25
    retry_s: float = 30.0


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Reads the command line over the environment (Vertex AI's ``AIP_*``) over the defaults.

    Raises:
        UsageError: unless exactly one of a registry and a storage URI says what to serve, or if a limit is below 1.
    """
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m tidemill.serving",
        description="Serves one model: a directory, or whatever version the registry's alias `champion` names.",
    )
    add = parser.add_argument
    add("--registry", type=Path, help="root of the registry; needs --model")
    add("--model", help="name of the model in the registry")
    add("--storage-uri", default=environment.get("AIP_STORAGE_URI"), help="directory of one model ($AIP_STORAGE_URI)")
    # Vertex AI and Kubernetes reach a container from outside of it; a process of one's own machine is for it alone.
    add("--host", default="0.0.0.0" if "AIP_HTTP_PORT" in environment else default.host)
    add("--port", type=int, default=environment.get("AIP_HTTP_PORT", default.port), help="$AIP_HTTP_PORT")
    add("--socket-fd", type=int, help="inherited listening socket, instead of --host and --port")
    add("--lock-fd", type=int, help="inherited lock that is held while the process lives")
    add("--state-file", type=Path, help="file that says where the process listens")
    add("--predict-route", default=environment.get("AIP_PREDICT_ROUTE"), help="$AIP_PREDICT_ROUTE")
    add("--health-route", default=environment.get("AIP_HEALTH_ROUTE"), help="$AIP_HEALTH_ROUTE")
    add("--workers", type=int, default=default.workers, help="TensorFlow calls at the same time")
    add("--max-queued-rows", type=int, default=default.max_queued_rows)
    add("--max-rows", type=int, default=default.max_rows, help="rows of one request")
    add("--max-body-bytes", type=int, default=default.max_body_bytes)
    add("--body-timeout-s", type=float, default=default.body_timeout_s)
    add("--drain-grace-s", type=float, default=default.drain_grace_s)
    add("--drain-timeout-s", type=float, default=default.drain_timeout_s)
    add("--poll-s", type=float, default=default.poll_s, help="seconds between two looks at the registry")
    add("--retry-s", type=float, default=default.retry_s, help="seconds until an unloadable version is tried again")
    settings = Settings(**vars(parser.parse_args(arguments)))
    if (settings.registry is None) == (settings.storage_uri is None):
        raise UsageError("serving", "exactly one of --registry and --storage-uri says what to serve")
    if settings.registry is not None and settings.model is None:
        raise UsageError("serving", "--registry needs --model")
    for name in ("workers", "max_queued_rows", "max_rows", "max_body_bytes"):
        if getattr(settings, name) < 1:
            raise UsageError("serving", f"--{name.replace('_', '-')} must be 1 or more", str(getattr(settings, name)))
    return settings
