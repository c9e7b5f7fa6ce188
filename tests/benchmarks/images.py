"""The images' sizes, and how long they take from a cold start to the first import, and to the first answer.

    make images && .venv/bin/python tests/benchmarks/images.py
    .venv/bin/python tests/benchmarks/images.py --directory build/images --runs 5

Needs podman and what ``make images`` left. ``cold`` is with nothing of the image in the page cache, as on a node that
has just pulled it, and is measured for root alone; ``warm`` is the median of the runs after it. Both count from the
start of ``podman run``: the import until the process says that it is done, the server until ``/readyz`` answers 200.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "unit" / "serving" / "toy.py"
IMPORTS = {
    "control": "tidemill_pipelines.cli",
    "validation": "tensorflow_data_validation",
    "tensorflow": "tensorflow",
    "serving": "tidemill.serving.server",
}
RESTRICTED = ("podman", "run", "--rm", "--read-only", "--tmpfs=/tmp", "--network=host")
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def main(arguments: Sequence[str]) -> int:
    """Prints one line per image; returns the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "images", help="where images.json is")
    parser.add_argument("--runs", type=int, default=3, help="starts after the cold one")
    options = parser.parse_args(arguments)
    file = options.directory / "images.json"
    if shutil.which("podman") is None or not file.is_file():
        print(f"images: not measured: needs podman and {file}, which `make images` writes")
        return 0
    images = json.loads(file.read_text())["images"]
    print(f"{'image':<12}{'size':>9}{'layers':>8}   {'start until':<40}{'cold':>8}{'warm':>8}")
    for name, module in IMPORTS.items():
        inspected = json.loads(output("podman", "image", "inspect", images[name]))[0]
        cold, warm = times(lambda: imported(images[name], module), options.runs)  # noqa: B023
        size, layers = f"{inspected['Size'] / 1e9:.2f} GB", len(inspected["RootFS"]["Layers"])
        print(f"{name:<12}{size:>9}{layers:>8}   {f'import {module}':<40}{cold:>8}{warm:>8}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        models = Path(directory)
        models.chmod(0o777)
        mounts = (f"--volume={models}:/models", f"--volume={TOY}:/toy.py:ro")
        output(*RESTRICTED, *mounts, images["serving"], "python3", "/toy.py", "/models/1")
        cold, warm = times(lambda: ready(images["serving"], models / "1"), options.runs)
        print(f"{'serving':<12}{'':>9}{'':>8}   {'/readyz answers 200':<40}{cold:>8}{warm:>8}")
    return 0


def times(run: Callable[[], float], runs: int) -> tuple[str, str]:
    """Returns the seconds of a cold start and of the following ones, as shown."""
    cold = "–"
    if os.access(DROP_CACHES, os.W_OK):
        os.sync()
        DROP_CACHES.write_text("3")
        cold = f"{run():.1f} s"
    else:
        run()
    return cold, f"{statistics.median(run() for _ in range(runs)):.1f} s"


def imported(image: str, module: str) -> float:
    started = time.monotonic()
    output(*RESTRICTED, image, "python3", "-c", f"import {module}, os; os._exit(0)")
    return time.monotonic() - started


def ready(image: str, model: Path) -> float:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = ("python3", "-m", "tidemill.serving", "--storage-uri=/model", "--host=127.0.0.1", f"--port={port}")
    started = time.monotonic()
    process = subprocess.Popen(
        [*RESTRICTED, f"--volume={model}:/model:ro", image, *serve],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
            except OSError:
                if process.poll() is not None or time.monotonic() - started > 120:
                    sys.exit("images: the server did not come up")
                time.sleep(0.02)
            else:
                return time.monotonic() - started
    finally:
        process.terminate()
        process.wait()


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
