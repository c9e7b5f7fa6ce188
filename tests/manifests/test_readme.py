"""The commands of manifests/README.md are true: what they name is there, and those that need no cluster are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import ROOT
from tools import kustomize as kustomize_binary

README = (ROOT / "manifests" / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
DIRECTORIES = sorted(path.name for path in (ROOT / "manifests").iterdir() if path.is_dir())
Documents = list[dict[str, Any]]


def kubectl_lines() -> list[list[str]]:
    parts = (part.strip() for line in LINES for part in re.split(r"&&|\|", line))
    return [shlex.split(part) for part in parts if part.startswith("kubectl ")]


def test_every_line_is_of_a_program_that_is_checked() -> None:
    assert len(LINES) == 12
    for line in LINES:
        assert line.startswith(("kubectl ", "cd manifests/overlays/prod && kustomize edit set image "))


def test_what_is_applied_is_there_and_what_is_asked_for_is_applied(rendered: dict[str, Documents]) -> None:
    everything = {(d["kind"].lower(), d["metadata"]["name"]) for ds in rendered.values() for d in ds}
    for words in kubectl_lines():
        if "-k" in words:
            assert words[words.index("-k") + 1].removeprefix("manifests/") in rendered
        for word in words:
            if re.fullmatch(r"(--from=)?(cronjob|trainjob|job)/[\w-]+", word):
                kind, _, name = word.removeprefix("--from=").partition("/")
                assert (kind, name) in everything, word
        if "-n" in words:
            assert ("namespace", words[words.index("-n") + 1]) in everything
        for word in words:
            if word.startswith("--from-file="):
                assert (ROOT / word.removeprefix("--from-file=")).is_dir()


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
def test_kubectl_knows_the_options() -> None:
    for words in kubectl_lines():
        command = words[1:3] if words[1] == "create" else words[1:2]
        told = subprocess.run(["kubectl", *command, "--help"], capture_output=True, text=True).stdout
        told += subprocess.run(["kubectl", "options"], capture_output=True, text=True).stdout
        for word in words:
            option = word.split("=")[0]
            if option.startswith("--"):
                assert f"{option}=" in told, option
            elif option.startswith("-") and option != "-":
                assert f"{option}, --" in told, option


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq")
def test_images_are_pinned_as_it_says(kustomize: Any, tmp_path: Path) -> None:
    (line,) = (line for line in LINES if "set image" in line)
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    digests = {name: f"registry.example.com/own/{name}@sha256:{'ab' * 32}" for name in ("serving", "tensorflow")}
    (tmp_path / "build" / "images").mkdir(parents=True)
    (tmp_path / "build" / "images" / "images.json").write_text(json.dumps({"images": digests}))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kustomize").symlink_to(kustomize_binary())
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", line], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    text = yaml.safe_dump_all(kustomize(tmp_path / "manifests" / "overlays" / "prod"))
    assert set(re.findall(r"image: (\S+)", text)) == set(digests.values())


def test_every_directory_is_in_its_table() -> None:
    assert set(re.findall(r"^\| `(\w+)/", README, re.MULTILINE)) == set(DIRECTORIES)
    for directory in ("overlays", "components"):
        for inner in (ROOT / "manifests" / directory).iterdir():
            assert f"`{directory}/{inner.name}`" in README


def test_images_json_is_where_make_images_writes_it() -> None:
    named = re.findall(r"[\w./]*images\.json", README)
    assert {name.removeprefix("../../../") for name in named} == {"build/images/images.json"}


def test_every_path_it_names_is_there() -> None:
    for name in re.findall(rf"`((?:{'|'.join(DIRECTORIES)}|tests)/[\w./-]*)`", README):
        assert (ROOT / name if name.startswith("tests/") else ROOT / "manifests" / name).exists(), name
    for name in re.findall(r"`(\w+\.yaml)`", README):
        assert list((ROOT / "manifests" / "overlays").glob(f"*/{name}")), name


def test_the_versions_it_names_are_those_that_are_validated_against() -> None:
    from schemas import OLDEST
    from tools import CRDS

    versions = {module.path.split("/")[2 if "github" in module.path else 1]: module.version for module in CRDS}
    said = {
        "kserve": "KServe",
        "gateway-api": "Gateway API",
        "trainer": "Trainer",
        "jobset": "JobSet",
        "kueue": "Kueue",
        "prometheus-operator": "Prometheus operator",
    }
    assert set(said) == set(versions)
    text = " ".join(README.split())
    for module, name in said.items():
        assert f"{name} {versions[module].removeprefix('v').rpartition('.')[0]}" in text, name
    assert f"Kubernetes {OLDEST} or newer" in text


def test_the_schedule_submits_as_the_command_does(rendered: dict[str, Documents]) -> None:
    """The CronJob's command line is one that ``tidemill`` takes, and its target is a valid one."""
    import typer

    from tidemill_pipelines.cli import app
    from tidemill_pipelines.targets.config import parse_target

    documents = {d["kind"]: d for d in rendered["examples/schedule"]}
    target = parse_target(documents["ConfigMap"]["data"]["kubernetes.yaml"], "kubernetes.yaml")
    pod = documents["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][:3] == ["python3", "-m", "tidemill_pipelines"]
    command = typer.main.get_command(app).commands[container["command"][3]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {argument.split("=")[0] for argument in container["args"]} <= known
    assert target.service_account == "tidemill-pipeline"
    assert target.on_kubernetes.namespace == documents["CronJob"]["metadata"]["namespace"]
    (token,) = (volume["projected"] for volume in pod["volumes"] if "projected" in volume)
    assert token["sources"][0]["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"


def test_the_token_lies_where_the_target_reads_it(rendered: dict[str, Documents]) -> None:
    from tidemill_pipelines.targets.kubernetes.credentials import WORKLOAD_TOKEN

    (job,) = (d for d in rendered["examples/schedule"] if d["kind"] == "CronJob")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert Path(mounts["token"]) / "token" == WORKLOAD_TOKEN
