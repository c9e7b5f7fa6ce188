"""KFP's DockerRunner, made to see failures. The one seam into `kfp.local.docker_task_handler`.

It starts containers that remove themselves and then asks for their exit code. Often the container is gone by then,
and kfp takes "not found" for success. Here the container stays until it was asked.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from kfp.local import docker_task_handler


@contextlib.contextmanager
def failures_seen() -> Iterator[None]:
    """Lets a DockerRunner inside the block take a container that failed for a task that failed."""
    original = docker_task_handler.run_docker_container
    docker_task_handler.run_docker_container = _run
    try:
        yield
    finally:
        docker_task_handler.run_docker_container = original


def _run(client: Any, image: str, command: list[str], volumes: dict[str, Any], **arguments: Any) -> int:
    container = client.containers.run(image=image, command=command, detach=True, volumes=volumes, **arguments)
    try:
        code = int(container.wait()["StatusCode"])
        sys.stdout.write(container.logs().decode(errors="replace"))
        return code
    finally:
        container.remove(force=True)
