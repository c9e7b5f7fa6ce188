"""`containers/build.py` with engines that only note how they are called: choice, commands, faults and exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import podman_cli
import pytest
from podman_cli import script
from project import IMAGES, VERSION, Source, write_context

# Notes its arguments, and answers as the real one does to what build.py asks. FAKE_FAILS names a verb that fails.
FAKE = r"""#!/bin/sh
name=$(basename "$0")
echo "$name $*" >> "$FAKE_LOG"
case " $FAKE_DEAD " in *" $name "*) echo "Cannot connect to the Docker daemon" >&2; exit 1;; esac
if [ "$1" = "$FAKE_FAILS" ]; then echo "no space left on device" >&2; exit 125; fi
digest=sha256:1111111111111111111111111111111111111111111111111111111111111111
case "$name $1" in
  "buildah inspect") echo '{"FromImageDigest": "'$digest'", "Docker": {"config": {"User": "65532:65532"}}}';;
  "buildah from") echo working-container;;
  *" image") echo '[{"Digest": "'$digest'", "Id": "'$digest'", "Size": 1, "RepoDigests":
      ["registry.example.com/ml/serving@'$digest'"], "Config": {"User": "65532:65532"}}]';;
  *" push") while [ $# -gt 0 ]; do [ "$1" = --digestfile ] && printf %s "$digest" > "$2"; shift; done;;
  *" run") echo '{"dpkg": "", "system": {"ID": "debian", "VERSION_ID": "12"}, "python": "3.11.2",
      "interpreter": "/usr/bin/python3.11", "installed": {}}';;
esac
exit 0
"""
DIGEST = "sha256:" + "1" * 64


class Machine:
    """A machine with some engines."""

    def __init__(self, root: Path) -> None:
        self.bin, self.log, self.output = root / "bin", root / "log", root / "output"
        self.bin.mkdir()
        self.log.touch()
        for tool in ("sh", "basename", "git", "uv"):  # with the whole PATH behind them, which has real engines in it
            (self.bin / tool).write_text(f'#!/bin/sh\nPATH={os.environ["PATH"]!r} exec {tool} "$@"\n')
            (self.bin / tool).chmod(0o755)

    def has(self, *names: str) -> Machine:
        for name in names:
            (self.bin / name).write_text(FAKE)
            (self.bin / name).chmod(0o755)
        return self

    def build(self, *arguments: str, commit: str = "c" * 40, **environment: str) -> subprocess.CompletedProcess[str]:
        given = ("--output", str(self.output), *(("--commit", commit) if commit else ()))
        own = {"PATH": str(self.bin), "FAKE_LOG": str(self.log), "FAKE_FAILS": "", "FAKE_DEAD": ""}
        names = ("BASE", "CACHE", "COMMIT", "ENGINE", "KEEP_LAYERS", "PUSH", "REGISTRY", "SOURCE_DATE_EPOCH")
        unset = dict.fromkeys(names, "")
        return script("build", *arguments, *given, **{**unset, **own, **environment})

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()

    def call(self, verb: str) -> str:
        return next(call for call in self.calls if call.split()[1] == verb)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("there", "dead", "chosen"),
    [
        (("docker", "podman", "buildah"), "", "docker"),
        (("podman", "buildah"), "", "podman"),
        (("buildah",), "", "buildah"),
        (("docker", "podman"), "docker", "podman"),
    ],
)
def test_the_first_engine_that_answers_is_taken(
    machine: Machine, there: tuple[str, ...], dead: str, chosen: str
) -> None:
    """A docker client without its daemon is no engine."""
    done = machine.has(*there).build("serving", FAKE_DEAD=dead)
    assert done.returncode == 0, done.stderr
    assert machine.call("build").startswith(f"{chosen} build")


def test_the_engine_can_be_named(machine: Machine) -> None:
    machine.has("docker", "podman", "buildah").build("serving", ENGINE="buildah")
    assert machine.call("build").startswith("buildah build")


def test_without_an_engine_it_says_what_is_wrong_with_each(machine: Machine) -> None:
    done = machine.has("docker").build("serving", FAKE_DEAD="docker")
    assert done.returncode == 5
    assert "docker: Cannot connect to the Docker daemon; podman: not installed; buildah: not installed" in done.stderr


def test_a_named_engine_that_does_not_answer_is_not_replaced(machine: Machine) -> None:
    done = machine.has("docker", "podman").build("serving", FAKE_DEAD="docker", ENGINE="docker")
    assert done.returncode == 5
    assert "docker: Cannot connect" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (
            ("training",),
            {},
            "expected some of control, validation, tensorflow, serving, tensorflow-gpu, tensorflow-tpu",
        ),
        (("serving",), {"ENGINE": "nerdctl"}, "expected one of docker, podman, buildah (got nerdctl)"),
        (("serving",), {"PUSH": "1"}, "needs a registry"),
        (("serving",), {"SOURCE_DATE_EPOCH": "yesterday"}, "expected seconds since 1970 (got 'yesterday')"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    machine: Machine, arguments: tuple[str, ...], environment: dict[str, str], told: str
) -> None:
    done = machine.has("podman").build(*arguments, **environment)
    assert done.returncode == 4
    assert told in done.stderr
    assert not any(" build " in call for call in machine.calls)


def test_what_was_not_committed_is_not_pushed(machine: Machine) -> None:
    done = machine.has("podman").build("--push", "--registry", "registry.example.com/ml", commit="abc-dirty")
    assert done.returncode == 4
    assert "what is pushed must be what was committed (got abc-dirty)" in done.stderr


def test_an_unknown_option_is_a_mistyped_command(machine: Machine) -> None:
    assert machine.has("podman").build("--pull").returncode == 2


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
@pytest.mark.parametrize("verb", ["build", "push"])
def test_an_engine_that_fails_is_quoted(machine: Machine, engine: str, verb: str) -> None:
    done = machine.has(engine).build("serving", "--push", "--registry", "registry.example.com/ml", FAKE_FAILS=verb)
    assert done.returncode == 5
    assert "no space left on device" in done.stderr
    assert not (machine.output / "images.json").exists()


def test_podman_is_told_all_that_makes_an_image_reproducible(machine: Machine) -> None:
    machine.has("podman").build("serving", SOURCE_DATE_EPOCH="1700000000")
    call = machine.call("build")
    assert "--timestamp 1700000000" in call
    assert "--format docker" in call, "OCI's format would drop the HEALTHCHECK"
    machine.build("control")
    other = next(call for call in machine.calls if "/control:" in call)
    assert "--format oci" in other, "Docker's format holds the id of the container that built it"
    assert "--target serving" in call
    assert "--build-arg EXTRAS=serving" in call
    assert f"--build-arg GIT_COMMIT={'c' * 40}" in call
    assert "--build-arg CREATED=2023-11-14T22:13:20Z" in call
    assert re.search(r"--build-arg BASE=docker\.io/library/python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", call)
    assert re.search(r"--build-arg BASE_DIGEST=sha256:[0-9a-f]{64}", call)


def test_docker_is_given_nothing_that_only_the_others_know(machine: Machine) -> None:
    machine.has("docker").build("serving")
    call = machine.call("build")
    assert "--provenance=false" in call
    for option in ("--format", "--timestamp", "--layers", "--volume"):
        assert option not in call


def test_docker_takes_and_keeps_the_layers_of_all_stages_in_the_cache(machine: Machine) -> None:
    """By buildx's own builder, for the one inside of docker can't export them, and with the image loaded from there."""
    done = machine.has("docker").build("serving", CACHE="registry.example.com/ml/cache/")
    assert done.returncode == 0, done.stderr
    call = machine.call("buildx")
    assert call.startswith("docker buildx build --load ")
    assert "--cache-from type=registry,ref=registry.example.com/ml/cache/serving " in call
    assert "--cache-to type=registry,ref=registry.example.com/ml/cache/serving,mode=max " in call
    assert "--provenance=false" in call


@pytest.mark.parametrize("engine", ["podman", "buildah"])
def test_podman_and_buildah_take_and_keep_layers_in_the_cache(machine: Machine, engine: str) -> None:
    """Without ``--layers`` they would take no notice of it."""
    done = machine.has(engine).build("serving", CACHE="registry.example.com/ml/cache")
    assert done.returncode == 0, done.stderr
    cache = "registry.example.com/ml/cache/serving"
    assert f"--layers=true --cache-from {cache} --cache-to {cache} " in machine.call("build")


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_without_a_cache_none_is_named(machine: Machine, engine: str) -> None:
    machine.has(engine).build("serving")
    assert "--cache-" not in machine.call("build")


def test_another_base_is_taken_with_its_digest(machine: Machine) -> None:
    machine.has("podman").build("serving", BASE="localhost/base:1")
    assert f"--build-arg BASE=localhost/base:1 --build-arg BASE_DIGEST={DIGEST}" in machine.call("build")


def test_images_of_this_machine_are_named_as_its_engine_names_them(machine: Machine) -> None:
    machine.has("podman").build("serving", "control")
    file = json.loads((machine.output / "images.json").read_text())
    assert file["images"] == {name: f"localhost/tidemill/{name}@{DIGEST}" for name in ("control", "serving")}
    assert (file["version"], file["commit"]) == (VERSION, "c" * 40)


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_pushed_images_are_named_by_the_digest_of_the_registry(machine: Machine, engine: str) -> None:
    done = machine.has(engine).build("serving", PUSH="1", REGISTRY="registry.example.com/ml/")
    assert done.returncode == 0, done.stderr
    file = json.loads((machine.output / "images.json").read_text())
    assert file["images"] == {"serving": f"registry.example.com/ml/serving@{DIGEST}"}
    assert f"registry.example.com/ml/serving:{VERSION}" in machine.call("push")


def test_images_built_one_after_the_other_are_all_in_the_file(machine: Machine) -> None:
    machine.has("podman").build("serving")
    machine.build("control")
    assert set(json.loads((machine.output / "images.json").read_text())["images"]) == {"control", "serving"}
    machine.build("control", commit="d" * 40)
    assert set(json.loads((machine.output / "images.json").read_text())["images"]) == {"control"}, "of another commit"


def test_images_of_accelerators_are_built_when_named(machine: Machine) -> None:
    machine.has("podman").build("tensorflow-gpu")
    assert "--build-arg EXTRAS=tensorflow gpu" in machine.call("build")


def test_the_base_needs_root_or_says_so(machine: Machine) -> None:
    machine.has("podman")
    done = script("base", PATH=str(machine.bin), FAKE_LOG=str(machine.log), FAKE_DEAD="")
    expected, told = (5, "debootstrap: is not installed") if os.geteuid() == 0 else (4, "debootstrap needs root")
    assert done.returncode == expected
    assert told in done.stderr


def test_the_context_has_what_is_tracked_in_one_mode(tmp_path: Path) -> None:
    write_context(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    assert (tmp_path / "components" / "tidemill" / "stage.py").is_file()
    assert not [path for path in files if path.suffix == ".pyc"]


def test_a_source_without_git_needs_its_commit_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Exception, match="name the commit that the source is of"):
        Source.read()


def test_what_builds_packages_without_wheels_is_what_the_lock_has() -> None:
    """A version that is written twice must not differ."""
    project = tomllib.loads((podman_cli.ROOT / "pyproject.toml").read_text())
    locked = tomllib.loads((podman_cli.ROOT / "uv.lock").read_text())["package"]
    version = next(package["version"] for package in locked if package["name"] == "setuptools")
    assert project["tool"]["uv"]["build-constraint-dependencies"] == [f"setuptools=={version}"]


def test_every_image_is_made_of_extras_that_exist() -> None:
    project = tomllib.loads((podman_cli.ROOT / "pyproject.toml").read_text())
    extras = {extra for image in IMAGES.values() for extra in image.extras}
    assert extras == set(project["project"]["optional-dependencies"])
