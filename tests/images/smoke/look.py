"""Looks around inside an image and prints what it sees as JSON."""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path

PACKAGES = Path("/opt/tidemill/lib/python3.11/site-packages")
TOOLS = (
    *("uv", "uvx", "pip", "pip3", "easy_install", "gcc", "g++", "cc", "c++", "clang", "ld", "as", "make", "cmake"),
    *("git", "curl", "wget", "cargo", "go", "javac"),
)
MODULES = ("pip", "ensurepip", "uv", "pytest", "hatchling")
CHECKED_BY_TIME = 0


def writable(path: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def parses(path: Path) -> bool:
    try:
        compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def flags(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(8)[4:], "little")


sources = list(PACKAGES.rglob("*.py"))
bytecode = {path: path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc" for path in sources}
there = {path: code for path, code in bytecode.items() if code.is_file()}
print(
    json.dumps(
        {
            "uid": os.getuid(),
            "gid": os.getgid(),
            "name": getpass.getuser(),
            "writable": [p for p in ("/", "/etc", "/opt/tidemill", "/root", "/usr", "/var", "/tmp") if writable(p)],
            "homes": [os.environ[v] for v in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR")],
            "tools": [t for t in TOOLS if shutil.which(t)] + [m for m in MODULES if importlib.util.find_spec(m)],
            "without_bytecode": [str(path) for path in sources if path not in there and parses(path)][:10],
            "checked_by_time": [str(code) for code in there.values() if flags(code) & 1 == CHECKED_BY_TIME][:10],
            "compiled": len(there),
        }
    )
)
