"""Ports of this machine for workers that talk to one another."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

from tidemill.errors import PlatformError

# Below where the kernel takes ports for outgoing connections (32768 and up by default): those can't come between.
_RANGE = (20000, 32000)
_ATTEMPTS = 1000


@contextlib.contextmanager
def reserved(count: int) -> Iterator[list[int]]:
    """Yields free ports of the loopback interface that no other caller on this machine gets while the block runs.

    TensorFlow binds its port itself and shares it with nobody, so it can't be held for it. What is held instead is a
    name that stands for the port, in the namespace of the machine's network as ports are; the kernel lets go of it
    when this process ends, however it ends.

    Raises:
        PlatformError: if there are none.
    """
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for _ in range(_ATTEMPTS):
            if len(ports) == count:
                break
            port = random.randrange(*_RANGE)
            if (claim := _claimed(port)) is not None:
                held.enter_context(claim)
                ports.append(port)
        else:
            raise PlatformError("127.0.0.1", f"needs {count} free ports between {_RANGE[0]} and {_RANGE[1]}")
        yield ports


def _claimed(port: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0tidemill-port-{port}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        claim.close()
        return None
    return claim
