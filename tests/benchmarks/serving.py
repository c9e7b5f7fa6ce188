"""Requests per second and latencies of the model server, at several concurrencies and rows per request.

    .venvs/serving/bin/python tests/benchmarks/serving.py
    .venvs/serving/bin/python tests/benchmarks/serving.py --model .tidemill/registry/lending/1

Clients and server share the machine: the clients are one process with an event loop and keep-alive connections. The
last lines call the model directly, without HTTP, which is the limit of what a server could reach with one thread.
``CPU ms`` is the server's CPU time per request: unlike the others it hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from tidemill.artifacts import ModelManifest
from tidemill.serving.client import Client
from tidemill.serving.process import listening_socket, spawn

LOADS = ((1, 1), (1, 4), (1, 16), (1, 64), (32, 1), (32, 16), (128, 1), (128, 4))
_TOY = Path(__file__).parents[1] / "unit" / "serving" / "toy.py"


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    rows: int
    clients: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    batch_rows: float
    cpu_ms: float
    failed: int


@contextmanager
def server(model: Path) -> Iterator[tuple[Client, int, int, float]]:
    """Yields a client, the port, the process id and the seconds it took to be ready."""
    with tempfile.TemporaryFile() as log, listening_socket(0, exact=True) as listening:
        port, started = listening.getsockname()[1], time.monotonic()
        arguments = ["--storage-uri", str(model.absolute()), "--socket-fd", str(listening.fileno())]
        process = spawn(Path(sys.executable), arguments, log, (listening.fileno(),), outlives=False)
    try:
        with Client("127.0.0.1", port) as client:
            while client.get("/readyz").status != 200:
                time.sleep(0.05)
            yield client, port, process.pid, time.monotonic() - started
    finally:
        process.terminate()
        process.wait()


async def one_client(port: int, request: bytes, until: float, times: list[float]) -> int:
    """Sends ``request`` again and again, and returns how many answers weren't 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    failed = 0
    while (started := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
        times.append(time.perf_counter() - started)
        failed += not head.startswith(b"HTTP/1.1 200")
    writer.close()
    return failed


async def load(port: int, request: bytes, clients: int, seconds: float) -> tuple[list[float], int]:
    times: list[float] = []
    until = time.perf_counter() + seconds
    failed = await asyncio.gather(*(one_client(port, request, until, times) for _ in range(clients)))
    return times, sum(failed)


def measure(client: Client, port: int, name: str, instance: Any, rows: int, clients: int, seconds: float) -> Measured:
    body = json.dumps({"instances": [instance] * rows}).encode()
    head = f"POST /v1/models/{name}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    uvloop.run(load(port, request, clients, min(0.5, seconds)))
    before = counters(client)
    times, failed = uvloop.run(load(port, request, clients, seconds))
    after = counters(client)
    p50, p99 = np.percentile(times, (50, 99)) * 1000
    called_rows, calls, cpu_s = (now - then for now, then in zip(after, before, strict=True))
    cpu_ms = cpu_s / len(times) * 1000
    return Measured(rows, clients, len(times) / seconds, float(p50), float(p99), called_rows / calls, cpu_ms, failed)


def counters(client: Client) -> tuple[float, ...]:
    """Returns the rows and the number of TensorFlow calls, and the server's CPU seconds, so far."""
    text = client.get("/metrics").value
    names = ("tidemill_serving_batch_rows_sum", "tidemill_serving_batch_rows_count", "process_cpu_seconds_total")
    found = [re.search(rf"^{name} (\S+)", text, re.MULTILINE) for name in names]
    return tuple(float(match[1]) if match else 0.0 for match in found)


def direct(model: Path, instance: Any, rows: int, seconds: float) -> float:
    """Returns the median milliseconds of a call of the signature in this process."""
    from tidemill.serving.model import load as load_model
    from tidemill.serving.payload import parse

    loaded = load_model(model)
    call = parse(json.dumps({"instances": [instance] * rows}).encode(), loaded.signatures, rows)
    loaded.predict(call.signature, call.arrays)
    times, until = [], time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        loaded.predict(call.signature, call.arrays)
        times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1000


def an_instance(model: Path) -> dict[str, Any]:
    """Returns the row that was kept with a registered version, or one made up from the dtypes."""
    sample = model / "assets.extra" / "tidemill" / "sample.json"
    if sample.is_file():
        return json.loads(sample.read_text())["instance"]
    made_up = {"float32": 31.5, "int64": 40, "string": "clerk"}
    return {name: made_up[dtype] for name, dtype in ModelManifest.read(model).inputs.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model artefact or registered version; a toy by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="per line")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or Path(scratch) / "toy"
        if options.model is None:
            subprocess.run([sys.executable, _TOY, model], check=True, stderr=subprocess.DEVNULL)
        name, instance = ModelManifest.read(model).name, an_instance(model)
        with server(model) as (client, port, pid, startup_s):
            print(f"{name}: {len(instance)} features, ready after {startup_s:.1f} s, {os.cpu_count()} cores\n")
            print("rows  clients  requests/s    rows/s  p50 ms  p99 ms  rows per call  CPU ms  not 200")
            for rows, clients in LOADS:
                m = measure(client, port, name, instance, rows, clients, options.seconds)
                print(
                    f"{m.rows:4d}  {m.clients:7d}  {m.requests_per_s:10.0f}  {m.requests_per_s * m.rows:8.0f}"
                    f"  {m.p50_ms:6.2f}  {m.p99_ms:6.2f}  {m.batch_rows:13.1f}  {m.cpu_ms:6.2f}  {m.failed:7d}"
                )
            peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
            print(f"\npeak memory of the server: {int(peak[1]) / 1024:.0f} MB")
        for rows in sorted({rows for rows, _ in LOADS}):
            print(f"model called directly, {rows:3d} rows: {direct(model, instance, rows, options.seconds):.2f} ms")


if __name__ == "__main__":
    main()
