"""What the images are made of: this checkout, its lock, its version, its commit."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "components"))  # these scripts run before anything is installed

from tidemill import __version__ as VERSION  # noqa: E402
from tidemill.errors import PlatformError, TidemillError, UsageError  # noqa: E402

__all__ = ["CONTEXT", "IMAGES", "ROOT", "VERSION", "Image", "PlatformError", "Source", "TidemillError", "UsageError"]

CONTEXT: Final = (".ci/setup.py", "LICENSE", "README.md", "components", "containers/Containerfile")
CONTEXT += ("pipelines/tidemill_pipelines", "pyproject.toml", "uv.lock")
"""All that can influence an image."""


@dataclass(frozen=True)
class Image:
    """One of the images.

    Attributes:
        extras: the extras of pyproject.toml that are installed in it.
        target: the stage of the Containerfile.
        health_check: whether that stage has a HEALTHCHECK.
        compilers: Debian packages that build what of the environment has no wheel.
        default: whether it is built when none is named.
    """

    extras: tuple[str, ...]
    target: str = "stage"
    health_check: bool = False
    compilers: tuple[str, ...] = ()
    default: bool = True


IMAGES: Final[Mapping[str, Image]] = {
    "control": Image(("control",)),
    "validation": Image(("validation",), compilers=("g++", "python3.11-dev")),  # pyfarmhash, which TFDV imports
    "tensorflow": Image(("tensorflow",)),
    "serving": Image(("serving",), target="serving", health_check=True),
    "tensorflow-gpu": Image(("tensorflow", "gpu"), default=False),
    "tensorflow-tpu": Image(("tpu",), default=False),
}


@dataclass(frozen=True)
class Source:
    """What the images say they were made from.

    Attributes:
        commit: git's, with ``-dirty`` if what enters the images isn't what was committed.
        epoch: seconds since 1970 that every file and the image itself are dated.
        lock: hex sha256 of uv.lock.
    """

    commit: str
    epoch: int
    lock: str

    @property
    def created(self) -> str:
        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @classmethod
    def read(cls, commit: str | None = None, epoch: str | None = None) -> Source:
        """Reads the checkout.

        Args:
            commit: instead of git's, where the source came without its history.
            epoch: instead of the commit's time.

        Raises:
            UsageError: if there is neither a git checkout nor a commit given, or the time isn't one.
        """
        if epoch is not None and not epoch.isdigit():
            raise UsageError("SOURCE_DATE_EPOCH", "expected seconds since 1970", repr(epoch))
        lock = hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()
        if commit is not None:
            return cls(commit, int(epoch or 0), lock)
        try:
            head, time = _git("log", "-1", "--format=%H %ct").split()
            changed = _git("status", "--porcelain", "--", *CONTEXT)
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            remedy = "name the commit that the source is of: --commit SHA"
            raise UsageError(str(ROOT), "expected a git checkout", type(error).__name__, remedy) from error
        return cls(head + ("-dirty" if changed else ""), int(epoch or time), lock)

    @property
    def dirty(self) -> bool:
        return self.commit.endswith("-dirty")


def write_context(target: Path) -> None:
    """Copies all that can influence an image below ``target``, with one mode whatever the umask was here."""
    for name in _files():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, path)
        path.chmod(0o644)


def _files() -> list[str]:
    try:
        listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *CONTEXT).split("\0")
        return sorted(name for name in listed if name and (ROOT / name).is_file())
    except (OSError, subprocess.CalledProcessError):
        found = [path for name in CONTEXT for path in [ROOT / name, *(ROOT / name).rglob("*")]]
        return sorted(str(p.relative_to(ROOT)) for p in found if p.is_file() and "__pycache__" not in p.parts)


def _git(*arguments: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()
