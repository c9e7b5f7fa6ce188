"""Makes a base image of Debian 12 with Python 3.11 by debootstrap, for where no registry answers. Needs root.

It has what the official Python image has and is none: its Python is Debian's. It prints the image's name with digest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from engine import Engine, Recipe, find_engine
from project import PlatformError, TidemillError, UsageError

MIRROR: Final = "http://deb.debian.org/debian"
NAME: Final = "localhost/tidemill-base:bookworm"
PACKAGES: Final = ("ca-certificates", "netbase", "python3.11", "tzdata")
# Of the machine that it is made on, of the day, or of no use to a program.
_LEFT_OUT: Final = (
    *("etc/hostname", "etc/resolv.conf", "etc/machine-id", "var/cache/apt", "var/cache/debconf", "var/cache/ldconfig"),
    *("var/lib/apt/lists", "var/log", "usr/share/man", "usr/share/locale", "usr/share/info", "dev"),
)
_PUT_BACK: Final = ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial", "var/log", "dev")


def main(arguments: Sequence[str]) -> int:
    """Makes the base image; returns the process's exit code, which `tidemill.errors` explains."""
    parser = argparse.ArgumentParser(prog="containers/base.py", description=__doc__)
    parser.add_argument("--engine", help="docker, podman or buildah; else the first that is there")
    parser.add_argument("--mirror", default=MIRROR, help="Debian archive")
    parser.add_argument("--name", default=NAME, help="name and tag of the image")
    options = parser.parse_args(arguments)
    try:
        print(make(find_engine(options.engine), options.name, options.mirror))
    except TidemillError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make(engine: Engine, name: str, mirror: str) -> str:
    """Makes the image and returns its reference with digest.

    Raises:
        UsageError: if this isn't root, who alone can debootstrap.
        PlatformError: if debootstrap is missing or fails.
    """
    if os.geteuid() != 0:
        raise UsageError("containers/base.py", "debootstrap needs root", f"user {os.geteuid()}", "run it with sudo")
    if shutil.which("debootstrap") is None:
        raise PlatformError("debootstrap", "is not installed", remedy="apt-get install debootstrap")
    with tempfile.TemporaryDirectory(prefix="tidemill-base-") as directory:
        context = Path(directory)
        _debootstrap(context / "root", mirror)
        _trim(context / "root")
        archive = ["tar", "--sort=name", "--numeric-owner", "-cf", str(context / "root.tar")]
        subprocess.run([*archive, "-C", str(context / "root"), "."], check=True)
        shutil.rmtree(context / "root")
        containerfile = context / "Containerfile"
        containerfile.write_text('FROM scratch\nADD root.tar /\nCMD ["python3.11"]\n', encoding="utf-8")
        engine.build(Recipe(reference=name, context=context, containerfile=containerfile, epoch=0))
    return engine.inspect(name).reference


def _debootstrap(root: Path, mirror: str) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(root), mirror]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise PlatformError("debootstrap", "must succeed", done.stdout.strip()[-2000:], f"is {mirror} reachable?")


def _trim(root: Path) -> None:
    for name in _LEFT_OUT:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in _PUT_BACK:
        (root / name).mkdir(parents=True, exist_ok=True)
    for path in (root / "usr/share/doc").rglob("*"):
        if path.is_file() and path.name != "copyright":
            path.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
