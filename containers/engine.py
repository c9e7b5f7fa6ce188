"""docker, podman and buildah, as far as images need them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from project import PlatformError, UsageError

ENGINES: Final = ("docker", "podman", "buildah")
_LAST_LINES: Final = 15


@dataclass(frozen=True)
class Recipe:
    """What to build.

    Attributes:
        reference: name and tag of the image.
        context: directory with the Containerfile at ``containerfile``.
        target: the stage to end with; None for the last.
        epoch: seconds since 1970 that every file and the image are dated.
        certificates: file with the certificate authorities to trust while building; not in the image.
        volumes: directories of this machine by where the build sees them; what it writes there is dropped.
        health_check: whether the image has a HEALTHCHECK.
        keep_layers: whether the layers of all stages are kept, for a next build to go on from.
        cache: repository of a registry that layers are taken from and put into; None for none.
    """

    reference: str
    context: Path
    containerfile: Path
    epoch: int
    target: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    certificates: Path | None = None
    volumes: Mapping[str, Path] = field(default_factory=dict)
    health_check: bool = False
    keep_layers: bool = False
    cache: str | None = None


@dataclass(frozen=True)
class Built:
    """What an engine says of an image that it has.

    Attributes:
        reference: name with digest, as this engine takes it.
        size: bytes, uncompressed; None where the engine doesn't say.
    """

    reference: str
    user: str
    labels: Mapping[str, str]
    environment: Mapping[str, str]
    size: int | None

    @property
    def digest(self) -> str:
        return self.reference.rpartition("@")[2]


class Engine:
    """One of the three, by its command line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, recipe: Recipe) -> None:
        """Builds an image; what the build says goes to stderr.

        Raises:
            PlatformError: if it doesn't build.
        """
        command = [self.name, "build", "--tag", recipe.reference, "--file", str(recipe.containerfile)]
        if recipe.target:
            command += ["--target", recipe.target]
        for name, value in sorted({**recipe.arguments, "SOURCE_DATE_EPOCH": str(recipe.epoch)}.items()):
            command += ["--build-arg", f"{name}={value}"]
        if recipe.certificates:
            command += ["--secret", f"id=ca-certificates,src={recipe.certificates}"]
        if self.name == "docker":
            command += ["--provenance=false"]  # it would wrap the image in an index with the time of the build
            if recipe.cache:  # `docker build` would not take the builder that `docker buildx use` chose
                command[1:2] = ["buildx", "build", "--load", "--cache-from", f"type=registry,ref={recipe.cache}"]
                command += ["--cache-to", f"type=registry,ref={recipe.cache},mode=max"]
        else:
            # OCI's format has no HEALTHCHECK. Docker's has the id of the container that built it, a new one each time.
            command += ["--format", "docker" if recipe.health_check else "oci", "--timestamp", str(recipe.epoch)]
            command += [f"--layers={str(recipe.keep_layers or recipe.cache is not None).lower()}"]
            if recipe.cache:
                command += ["--cache-from", recipe.cache, "--cache-to", recipe.cache]
            for inside, outside in sorted(recipe.volumes.items()):
                command += ["--volume", f"{outside}:{inside}:O"]
        remedy = "where no registry answers: make a base with containers/base.py, and give it as BASE="
        self._run([*command, str(recipe.context)], f"{recipe.reference} could not be built", remedy, show=True)

    def inspect(self, reference: str) -> Built:
        """Returns what the engine says of an image.

        Raises:
            PlatformError: if it has no such image.
        """
        absent = f"{self.name} has no image {reference}"
        kind = ["--type", "image"] if self.name == "buildah" else []
        verb = ["inspect", *kind] if self.name == "buildah" else ["image", "inspect"]
        value = json.loads(self._run([self.name, *verb, reference], absent))
        if self.name == "buildah":
            config, digest, size = value["Docker"]["config"], value["FromImageDigest"], None
        else:
            value = value[0]
            # Without a registry docker knows no digest of the manifest; the image's id is that of its config.
            config, digest, size = value["Config"], value.get("Digest") or value["Id"], value["Size"]
        environment = dict(entry.split("=", 1) for entry in config.get("Env") or [])
        by_digest = f"{_repository(reference)}@{digest}"
        return Built(by_digest, config.get("User") or "", config.get("Labels") or {}, environment, size)

    def push(self, reference: str) -> str:
        """Pushes an image and returns its reference with the digest that the registry has it by.

        Raises:
            PlatformError: if the registry doesn't take it.
        """
        refused = f"{reference} could not be pushed"
        if self.name == "docker":
            self._run(["docker", "push", reference], refused, show=True)
            inspected = json.loads(self._run(["docker", "image", "inspect", reference], refused))
            of_this = [d for d in inspected[0]["RepoDigests"] if d.startswith(f"{_repository(reference)}@")]
            return str(of_this[0])
        with tempfile.NamedTemporaryFile("r") as file:
            self._run([self.name, "push", "--digestfile", file.name, reference], refused, show=True)
            return f"{_repository(reference)}@{file.read().strip()}"

    def run(self, reference: str, command: Sequence[str]) -> str:
        """Returns what a command prints in a fresh container without network.

        Raises:
            PlatformError: if it fails.
        """
        failed = f"{command[0]} failed in {reference}"
        if self.name != "buildah":
            full = [self.name, "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp"]
            return self._run([*full, "--entrypoint", "", reference, *command], failed)
        container = self._run(["buildah", "from", "--pull-never", reference], failed).strip()
        try:
            return self._run(["buildah", "run", container, "--", *command], failed)
        finally:
            self._run(["buildah", "rm", container], failed)

    def _run(self, command: Sequence[str], expected: str, remedy: str | None = None, show: bool = False) -> str:
        """Runs the engine; ``show`` passes on what it says, and all that it prints is returned."""
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if show else subprocess.PIPE, text=True
        ) as process:
            if show and process.stdout:
                lines = []
                for line in process.stdout:
                    lines.append(line)
                    sys.stderr.write(line)
                output = said = "".join(lines)
            else:
                output, said = process.communicate()
        if process.returncode != 0:
            last = "\n".join(said.strip().splitlines()[-_LAST_LINES:])
            raise PlatformError(self.name, expected, f"exit code {process.returncode}: {last}", remedy)
        return output


def find_engine(name: str | None) -> Engine:
    """Returns the engine of that name, or the first that is there and answers.

    Raises:
        UsageError: if ``name`` is none of the three.
        PlatformError: if the engine that was asked for, or every one, is absent or doesn't answer.
    """
    if name is not None and name not in ENGINES:
        raise UsageError("ENGINE", f"expected one of {', '.join(ENGINES)}", name)
    reasons = []
    for candidate in [name] if name else ENGINES:
        reason = _reason_against(candidate)
        if reason is None:
            return Engine(candidate)
        reasons.append(f"{candidate}: {reason}")
    remedy = "`apt-get install --no-install-recommends buildah podman`, or start docker"
    raise PlatformError("images", "expected an engine that builds containers", "; ".join(reasons), remedy)


def _reason_against(name: str) -> str | None:
    if shutil.which(name) is None:
        return "not installed"
    done = subprocess.run([name, "info"], capture_output=True, text=True)  # a docker without its daemon says so here
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["does not answer"])[-1]


def _repository(reference: str) -> str:
    """Returns a reference without its tag: ``host:5000/a/b:1`` → ``host:5000/a/b``."""
    head, slash, last = reference.partition("@")[0].rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"
