"""Programs in Go that tests are held against: built from a module of ours, whose go.sum pins all that it needs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tools import DIRECTORY, Missing

_DOWNLOAD_TIMEOUT_S: Final = 300


def built(source: Path) -> Path:
    """Returns the binary of the module in a directory, built when the module is another than before.

    Raises:
        Missing: if there is no Go, or no way to its proxy.
    """
    made_from = b"".join((source / name).read_bytes() for name in ("go.mod", "go.sum", "main.go"))
    binary = DIRECTORY / "bin" / f"{source.name}-{hashlib.sha256(made_from).hexdigest()[:16]}"
    if not binary.exists():
        go("mod", "download", cwd=source)
        binary.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=DIRECTORY, prefix=".making-") as beside:
            made = Path(beside) / source.name
            build = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(made), "."]
            done = subprocess.run(build, cwd=source, env=_environment(), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            os.replace(made, binary)
    return binary


def go(*arguments: str, cwd: Path) -> str:
    """Runs a command of Go that may need the network.

    Raises:
        Missing: if it fails.
    """
    if shutil.which("go") is None:
        raise Missing("no Go, which builds the programs that this is held against")
    try:
        done = subprocess.run(
            ["go", *arguments], cwd=cwd, env=_environment(), capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"go {' '.join(arguments[:2])} took more than {_DOWNLOAD_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise Missing(f"go {' '.join(arguments[:2])} failed: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "GOFLAGS": "-modcacherw -buildvcs=false", "GOWORK": "off", "CGO_ENABLED": "0"}
