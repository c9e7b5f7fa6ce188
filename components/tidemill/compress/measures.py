"""How large a network is and how long it takes to answer."""

from __future__ import annotations

import gzip
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tidemill.compress.networks import Features, Network

BATCHES = (1, 256)
_CALLS, _WARM_UP = 200, 10


@dataclass(frozen=True)
class Size:
    """Bytes of a network's file, as it is and gzipped. Zeros cost little only in the latter."""

    file_bytes: int
    gzip_bytes: int

    @classmethod
    def of(cls, content: bytes) -> Size:
        return cls(len(content), len(gzip.compress(content, 9, mtime=0)))


@dataclass(frozen=True)
class Latency:
    """Time of one call in this process, in milliseconds."""

    p50_ms: float
    p99_ms: float


def weights_content(weights: Sequence[tuple[str, np.ndarray]]) -> bytes:
    """Returns what a Keras network is measured by: its weights, as they are in memory."""
    return b"".join(np.ascontiguousarray(value).tobytes() for _, value in weights)


def latencies(networks: Mapping[str, Network], rows: Features) -> dict[str, dict[int, Latency]]:
    """Times every network at every size of :data:`BATCHES`, in turns, so that all meet the same noise.

    Args:
        rows: transformed rows to ask for, at least one; they are repeated to fill the largest batch.
    """
    found: dict[str, dict[int, Latency]] = {name: {} for name in networks}
    for size in BATCHES:
        repeats = -(-size // len(next(iter(rows.values()))))
        batch = {name: np.concatenate([value] * repeats)[:size] for name, value in rows.items()}
        times: dict[str, list[float]] = {name: [] for name in networks}
        for call in range(_WARM_UP + _CALLS):
            for name, network in networks.items():
                begun = time.perf_counter()
                network.answer(batch)
                if call >= _WARM_UP:
                    times[name].append((time.perf_counter() - begun) * 1000)
        for name, taken in times.items():
            p50, p99 = np.quantile(taken, (0.5, 0.99)).tolist()
            found[name][size] = Latency(p50, p99)
    return found


def processor() -> str:
    """Returns the name of the processor that was measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
