"""Sets the environments up from uv.lock: ``.venv`` (control) and ``.venvs/<name>``.

Needs Python 3.11 and nothing else. uv itself comes from the same lock: by pip where there is one, else as the
wheel that the lock names, checked against its sha256.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = {
    "control": ("--group", "test", "--group", "remote", "--group", "lint"),
    "validation": ("--group", "test"),
    "tensorflow": ("--group", "test", "--group", "reference"),
    "serving": ("--group", "test"),
}


def main() -> int:
    if sys.version_info[:2] != (3, 11) or platform.machine() != "x86_64":
        found = f"{platform.python_version()} on {platform.machine()}"
        print(f"setup: expected Python 3.11 on x86_64 (got {found})\n  → make PYTHON=/path/to/python3.11 setup")
        return 4
    uv = find_uv()
    started = time.monotonic()
    if not all((directory(name) / "bin" / "python").exists() for name in ENVIRONMENTS):
        print("setup: four environments, 1.5 GB to download, 5 GB of disk; the first time takes 2 to 6 minutes")
    for name, groups in ENVIRONMENTS.items():
        begun = time.monotonic()
        settings = {
            "UV_PROJECT_ENVIRONMENT": str(directory(name)),
            "UV_COMPILE_BYTECODE": "1",  # importing TensorFlow takes three times as long without
            "UV_PYTHON": sys.executable,
            "UV_PYTHON_DOWNLOADS": "never",
        }
        command = [uv, "sync", "--locked", "--quiet", "--project", str(ROOT), "--extra", name, *groups]
        done = subprocess.run(command, env={**os.environ, **settings}, cwd=ROOT)
        if done.returncode != 0:
            print(f"setup: {name} could not be installed\n  → the reason stands above; `make setup` goes on from here")
            return 5
        print(f"setup: {name} ready ({time.monotonic() - begun:.0f} s)", flush=True)
    print(f"setup: done in {time.monotonic() - started:.0f} s")
    return 0


def directory(environment: str) -> Path:
    return ROOT / ".venv" if environment == "control" else ROOT / ".venvs" / environment


def find_uv() -> str:
    """Returns the path of uv, installed below ``.venvs/uv`` if the machine has none."""
    if found := shutil.which("uv"):
        return found
    package = next(p for p in tomllib.loads((ROOT / "uv.lock").read_text())["package"] if p["name"] == "uv")
    target = ROOT / ".venvs" / "uv" / package["version"]
    binary = target / "bin" / "uv"
    if not binary.exists():
        print(f"setup: installing uv {package['version']}", flush=True)
        target.mkdir(parents=True, exist_ok=True)
        if not (importlib.util.find_spec("pip") and install_by_pip(package["version"], target) and binary.exists()):
            install_from_lock(package, binary)
    return str(binary)


def install_by_pip(version: str, target: Path) -> bool:
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--no-deps"]
    return subprocess.run([*install, "--target", str(target), f"uv=={version}"]).returncode == 0


def install_from_lock(package: dict, binary: Path) -> None:
    wheel = next(w for w in package["wheels"] if "manylinux" in w["url"] and w["url"].endswith("_x86_64.whl"))
    archive = binary.parent.parent / "uv.whl"
    with urllib.request.urlopen(wheel["url"], timeout=120) as response, archive.open("wb") as file:
        shutil.copyfileobj(response, file)
    digest = "sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != wheel["hash"]:
        archive.unlink()
        sys.exit(f"setup: the download of uv is not what uv.lock names (expected {wheel['hash']}, got {digest})")
    binary.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive) as content:
        name = next(n for n in content.namelist() if n.endswith("/scripts/uv"))
        binary.write_bytes(content.read(name))
    binary.chmod(0o755)
    archive.unlink()


if __name__ == "__main__":
    sys.exit(main())
