"""Builds the images: `make images`. Exit codes are those of `tidemill.errors`: 4 for the user's faults, 5 for others.

Writes ``images.json`` (where each image is, by digest) and ``<image>.cdx.json`` (what is in it) to ``--output``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sbom
from engine import Built, Engine, Recipe, find_engine
from project import IMAGES, ROOT, VERSION, Source, TidemillError, UsageError, write_context

CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
MACHINE_CACHE: Final = "/machine/uv"


@dataclass(frozen=True)
class Order:
    """What to build, and where it goes.

    Attributes:
        registry: ``host/path`` that the images' names begin with; None for names of this machine alone.
        base: base image instead of the Containerfile's.
        uv_cache: uv's cache on this machine, read for what is downloaded already.
        certificates: file with the authorities that this machine trusts; the images keep their own.
        cache: ``host/path`` below which each image has a repository with the layers of its stages; None for none.
    """

    images: Sequence[str]
    registry: str | None
    push: bool
    base: str | None
    output: Path
    uv_cache: Path | None
    certificates: Path | None
    keep_layers: bool
    cache: str | None


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Builds what the command line names; returns the process's exit code."""
    options = parser(environment).parse_args(arguments)
    try:
        order = Order(
            images=options.images or [name for name, image in IMAGES.items() if image.default],
            registry=options.registry.rstrip("/") if options.registry else None,
            push=options.push,
            base=options.base,
            output=options.output,
            uv_cache=_uv_cache(environment),
            certificates=_certificates(environment),
            keep_layers=options.keep_layers,
            cache=options.cache.rstrip("/") if options.cache else None,
        )
        source = Source.read(options.commit, environment.get("SOURCE_DATE_EPOCH") or None)
        build(order, find_engine(options.engine), source)
    except TidemillError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Returns the command line; the environment's variables of the same names are the defaults."""
    read = argparse.ArgumentParser(prog="containers/build.py", description="Builds the images from uv.lock.")
    add = read.add_argument
    add("images", nargs="*", metavar="IMAGE", help=f"{', '.join(IMAGES)}; all that need no accelerator by default")
    add("--engine", default=environment.get("ENGINE") or None, help="docker, podman or buildah; else the first there")
    add("--registry", default=environment.get("REGISTRY") or None, help="host/path that the names begin with")
    add("--push", action="store_true", default=environment.get("PUSH") == "1", help="push what was built")
    add("--base", default=environment.get("BASE") or None, help="base image: Debian 12 with python3.11")
    add("--commit", default=environment.get("COMMIT") or None, help="git commit, where there is no .git")
    add("--keep-layers", action="store_true", default=environment.get("KEEP_LAYERS") == "1")
    add("--cache", default=environment.get("CACHE") or None, help="host/path in a registry where layers are kept")
    add("--output", type=Path, default=ROOT / "build" / "images", help="directory for images.json and the SBOMs")
    return read


def build(order: Order, engine: Engine, source: Source) -> dict[str, Any]:
    """Builds, describes and, if asked to, pushes images; returns what images.json holds.

    Raises:
        UsageError: if an image is unknown, or is to be pushed without a registry or from no commit.
        PlatformError: if the engine fails.
    """
    unknown = [name for name in order.images if name not in IMAGES]
    if unknown:
        raise UsageError("images", f"expected some of {', '.join(IMAGES)}", ", ".join(unknown))
    if order.push and order.registry is None:
        raise UsageError("PUSH=1", "needs a registry", remedy="REGISTRY=host/path")
    if order.push and source.dirty:
        raise UsageError("PUSH=1", "what is pushed must be what was committed", source.commit, "commit first")
    references = {}
    with tempfile.TemporaryDirectory(prefix="tidemill-images-") as directory:
        context = Path(directory)
        write_context(context)
        for name in order.images:
            begun = time.monotonic()
            tag = f"{_repository(order, engine, name)}:{VERSION}"
            engine.build(_recipe(order, source, engine, name, tag, context))
            built = engine.inspect(tag)
            references[name] = engine.push(tag) if order.push else built.reference
            _write_sbom(order.output, engine, source, name, built)
            size = f"{built.size / 1e9:.2f} GB, " if built.size else ""
            print(f"{references[name]}  ({size}{time.monotonic() - begun:.0f} s)", flush=True)
    value = {"version": VERSION, "lock": source.lock, "commit": source.commit, "images": references}
    return _write_images(order.output / "images.json", value)


def _repository(order: Order, engine: Engine, name: str) -> str:
    # podman and buildah say localhost where docker says nothing; a name without either may be looked for elsewhere.
    local = "tidemill" if engine.name == "docker" else "localhost/tidemill"
    return f"{order.registry or local}/{name}"


def _recipe(order: Order, source: Source, engine: Engine, name: str, tag: str, context: Path) -> Recipe:
    image = IMAGES[name]
    base = order.base or _default_base()
    arguments = {
        "BASE": base,
        "BASE_DIGEST": base.partition("@")[2] or engine.inspect(base).digest,
        "BASE_NAME": base.partition("@")[0],
        "COMPILERS": " ".join(image.compilers),
        "CREATED": source.created,
        "ENVIRONMENT": name,
        "EXTRAS": " ".join(image.extras),
        "GIT_COMMIT": source.commit,
        "LOCK_SHA256": source.lock,
        "VERSION": VERSION,
    }
    volumes = {}
    if order.uv_cache and engine.name != "docker":
        volumes = {MACHINE_CACHE: order.uv_cache}
        arguments["UV_CACHE"] = MACHINE_CACHE
    return Recipe(
        reference=tag,
        context=context,
        containerfile=context / "containers" / "Containerfile",
        epoch=source.epoch,
        target=image.target,
        arguments=arguments,
        certificates=order.certificates,
        volumes=volumes,
        health_check=image.health_check,
        keep_layers=order.keep_layers,
        cache=f"{order.cache}/{name}" if order.cache else None,
    )


def _default_base() -> str:
    lines = (ROOT / "containers" / "Containerfile").read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("ARG BASE=") for line in lines if line.startswith("ARG BASE="))


def _write_sbom(output: Path, engine: Engine, source: Source, name: str, built: Built) -> None:
    inside = json.loads(engine.run(built.reference, ["python3", "-c", sbom.PROBE]))
    bom = sbom.describe(name, IMAGES[name].extras, source, built.reference, inside)
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.cdx.json").write_text(json.dumps(bom, indent=2) + "\n", encoding="utf-8")


def _write_images(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    """Writes images.json; images built earlier of the same lock and commit stay in it."""
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if all(before.get(key) == value[key] for key in ("version", "lock", "commit")):
            value = {**value, "images": {**before["images"], **value["images"]}}
    beside = path.with_name(".images.json.partial")
    beside.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(beside, path)
    return value


def _uv_cache(environment: Mapping[str, str]) -> Path | None:
    base = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/root")) / ".cache")
    path = Path(environment.get("UV_CACHE_DIR") or base / "uv")
    return path.resolve() if path.is_dir() else None


def _certificates(environment: Mapping[str, str]) -> Path | None:
    path = Path(environment.get("SSL_CERT_FILE") or CERTIFICATES)
    return path.resolve() if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
