"""Cloud Build's files hold together: order, times, images, substitutions, and every path, target and option in them."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
from builds import BUILDER, FILES, ROOT, Build, faults, seconds
from resources import attributes, of_type, trigger_file

from tidemill_pipelines.cli import app

BUILDS = [Build.read(path) for path in FILES]
MERGE = BUILDS[0]
SCRIPTS = sorted(p for p in (ROOT / ".ci" / "cloudbuild").iterdir() if p.suffix == "" and p.name != "Containerfile")


def by_trigger(terraform: list[dict[str, Any]], path: str) -> set[str]:
    """Returns the substitutions that a file's trigger makes."""
    triggers = of_type(terraform, "google_cloudbuild_trigger").values()
    (trigger,) = [one for one in triggers if trigger_file(one) == path]
    return set(trigger["attributes"]["substitutions"]["items"])


def texts() -> Iterator[tuple[str, str]]:
    """Yields every shell text with where it stands."""
    for build in BUILDS:
        for step in build.steps:
            yield f"{build.path}: {step['id']}", step["script"]
    for script in SCRIPTS:
        yield str(script.relative_to(ROOT)), script.read_text()


@pytest.mark.parametrize("build", BUILDS, ids=FILES)
def test_a_build_is_one_that_cloud_build_takes(build: Build, terraform: list[dict[str, Any]]) -> None:
    assert faults(build, by_trigger(terraform, build.path)) == []


def test_every_build_has_a_trigger_and_every_trigger_a_build(terraform: list[dict[str, Any]]) -> None:
    files = [trigger_file(trigger) for trigger in of_type(terraform, "google_cloudbuild_trigger").values()]
    assert sorted(files) == sorted(FILES)
    there = {str(p.relative_to(ROOT)) for p in (ROOT / ".ci" / "cloudbuild").glob("*.yaml")} | {"cloudbuild.yaml"}
    assert there == set(FILES)


@pytest.mark.parametrize("build", BUILDS, ids=FILES)
def test_a_trigger_makes_no_substitution_that_nobody_reads(build: Build, terraform: list[dict[str, Any]]) -> None:
    triggers = of_type(terraform, "google_cloudbuild_trigger").values()
    (trigger,) = [one for one in triggers if trigger_file(one) == build.path]
    in_filter = trigger["attributes"].get("filter", {"text": ""})["text"]
    for name in by_trigger(terraform, build.path) - build.substitutions_used():
        assert name in in_filter, name


def _edit(change: Callable[[dict[str, Any]], None]) -> Build:
    content = copy.deepcopy(dict(MERGE.content))
    change({"build": content, **{step["id"]: step for step in content["steps"]}})
    return Build(MERGE.path, MERGE.head, content)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda at: at["lint"].update(timeOut="1s"), "lint: timeOut is no field"),
        (lambda at: at["build"].update(step=[]), ": step is no field"),
        (lambda at: at["build"]["options"].update(machine="x"), "options: machine is no field"),
        (lambda at: at["lint"].pop("timeout"), "lint: timeout is missing"),
        (lambda at: at["lint"].update(waitFor=["tests"]), "lint: waits for tests, which is no step above it"),
        (lambda at: at["lint"].update(waitFor=[]), "lint: an empty waitFor waits for all above; name them, or -"),
        (lambda at: at["lint"].update(id="setup"), "setup: stands there twice"),
        (lambda at: at["build"].update(timeout="900s"), r"timeout: steps up to record may take \d+ s, the build 900 s"),
        (lambda at: at["build"].update(timeout="90000s"), "timeout: 90000 s is more than Cloud Build's 86400 s"),
        (lambda at: at["setup"].update(waitFor=["cache"]), f"setup: runs in {BUILDER} without waiting for .*"),
        (lambda at: at["cache"].update(name="gcr.io/example:latest"), "cache: gcr.io/example:latest is not pinned.*"),
        (lambda at: at["lint"].update(script="echo $_NOTHING"), "_NOTHING has no value"),
        (lambda at: at["build"]["substitutions"].update(_SPARE="1"), "_SPARE is never used"),
    ],
)
def test_what_is_wrong_with_a_build_is_told(change: Any, fault: str, terraform: list[dict[str, Any]]) -> None:
    found = faults(_edit(change), by_trigger(terraform, MERGE.path))
    assert any(re.fullmatch(fault, one) for one in found), found


def test_a_substitution_must_be_explained(terraform: list[dict[str, Any]]) -> None:
    silent = Build(MERGE.path, MERGE.head.replace("_FAIL_ON", ""), MERGE.content)
    assert faults(silent, by_trigger(terraform, MERGE.path)) == ["_FAIL_ON is not explained at the head of the file"]


def test_nothing_is_released_before_everything_was_tried() -> None:
    assert {"lint", "tests", "images", "agree", "scan", "compile", "turn"} <= MERGE.before("staging")
    assert "staging" in MERGE.before("promote")
    assert "promote" in MERGE.before("record")
    (release,) = [build for build in BUILDS if "release" in build.path]
    assert {"version", "records"} <= release.before("names")
    assert {"version", "records"} <= release.before("wheel")


def test_a_step_outlives_what_it_waits_for() -> None:
    patience = int(MERGE.content["substitutions"]["_STAGING_TIMEOUT_S"])
    assert seconds(MERGE.step("staging")["timeout"]) >= patience + 600
    (turn,) = [e.partition("=")[2] for e in MERGE.step("turn")["env"] if e.startswith("TURN_TIMEOUT_S=")]
    assert seconds(MERGE.step("turn")["timeout"]) >= int(turn) + 60


def test_a_pull_request_pushes_and_submits_nothing() -> None:
    (review,) = [build for build in BUILDS if "pull-request" in build.path]
    for step in review.steps:
        assert not re.search(r"PUSH|tidemill (submit|schedule|deploy)|promote|gcloud", step["script"]), step["id"]
    assert "artifacts" not in review.content


def _unquoted(script: str) -> list[str]:
    """Returns the variables from outside that stand in no double quotes: a shell would split their values."""
    return re.findall(r"\$\{?(\w+)", re.sub(r'"[^"]*"', "", script).replace("${_SOURCE:+--source }", ""))


def test_what_comes_from_outside_is_only_ever_read_by_a_script() -> None:
    """Cloud Build pastes substitutions into `args`; for a `script` they are variables, which a shell only reads."""
    for build in BUILDS:
        assert build.content["options"]["automapSubstitutions"] is True
        assert build.content["options"]["logging"] == "CLOUD_LOGGING_ONLY"
        for step in build.steps:
            assert _unquoted(step["script"]) == [], f"{build.path}: {step['id']}"
    assert _unquoted("tidemill submit $_OBJECT") == ["_OBJECT"]


@pytest.mark.parametrize(("where", "text"), list(texts()))
def test_every_script_is_shell(where: str, text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _missing_paths(text: str) -> list[str]:
    named = re.findall(r"(?<![\w/$\"{])((?:\.ci|containers|pipelines|tests|manifests)/[\w./-]+)", text)
    return [path for path in named if not (ROOT / path).exists()]


def _missing_targets(text: str) -> list[str]:
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = re.findall(r"\bmake (?:--[a-z-]+ )*([a-z-]+)", text)
    return [name for name in named if name not in rules]


@pytest.mark.parametrize(("where", "text"), list(texts()))
def test_every_path_and_target_that_a_script_names_is_there(where: str, text: str) -> None:
    shell = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert _missing_paths(shell) == [], where
    assert _missing_targets(shell) == [], where


def test_a_path_or_target_that_is_gone_would_be_seen() -> None:
    assert _missing_paths("python3 .ci/cloudbuild/gone.py x") == [".ci/cloudbuild/gone.py"]
    assert _missing_targets("make gone") == ["gone"]
    assert _missing_targets("make --no-print-directory goldens") == []


def test_every_path_that_is_a_default_is_there() -> None:
    """But for the targets, which every user names for himself."""
    for build in BUILDS:
        for name, value in build.content.get("substitutions", {}).items():
            if "/" in value and not name.endswith("_TARGET") and name != "_TIME_ZONE":
                assert (ROOT / value).exists(), f"{build.path}: {name}"


def commands(text: str) -> Iterator[list[str]]:
    """Yields the arguments of each call of `tidemill`, variables and all."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        if found := re.search(r"\.venv/bin/tidemill (.*)", line):
            plain = re.sub(r"\$\{(\w+):\+(.*?)\}(?= |$)", r"\2", found[1]).rstrip(")")
            yield shlex.split(plain.replace("$verb", "update"))


def parsed(arguments: list[str]) -> list[str]:
    """Reads a command line as `tidemill` does, without running it; returns the command's name.

    Raises:
        LookupError: if there is no such command or option, or one is wanting.
    """
    command, name, rest = typer.main.get_command(app), [], list(arguments)
    while hasattr(command, "commands"):
        name.append(rest.pop(0))
        command = command.commands[name[-1]]
    options = {o: p for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
    given, places = set(), 0
    while rest:
        word = rest.pop(0)
        if word.startswith("-") and word != "-":
            if word not in options:
                raise LookupError(f"{' '.join(name)}: no such option: {word}")
            given.add(options[word].name)
            if not options[word].is_flag:
                rest.pop(0)
        else:
            places += 1
    wanting = [p.opts[-1] for p in command.params if p.required and p in options.values() and p.name not in given]
    if wanting or places != sum(p not in options.values() for p in command.params):
        raise LookupError(f"{' '.join(name)}: wanting: {wanting}; {places} arguments")
    return name


CALLS = [(where, call) for where, text in texts() for call in commands(text)]


def test_the_calls_of_tidemill_are_found() -> None:
    assert {(call[0], call[1] if call[0] == "schedule" else "") for _, call in CALLS} == {
        ("submit", ""),
        ("compile", ""),
        ("check", ""),
        ("schedule", "list"),
        ("schedule", "update"),
    }


@pytest.mark.parametrize(("where", "call"), CALLS, ids=[f"{where} {call[0]}" for where, call in CALLS])
def test_every_option_of_tidemill_that_a_script_names_is_one(where: str, call: list[str]) -> None:
    parsed(call)


def test_an_option_that_is_gone_would_be_seen() -> None:
    with pytest.raises(LookupError, match="--bogus"):
        parsed(["submit", "problem", "--target", "x", "--bogus", "1"])
    with pytest.raises(LookupError, match="wanting: \\['--target'\\]"):
        parsed(["submit", "problem"])
    with pytest.raises(LookupError, match="2 arguments"):
        parsed(["submit", "problem", "more", "--target", "x"])
    with pytest.raises(KeyError, match="submitt"):
        parsed(["submitt", "problem"])


def test_the_builder_and_the_images_begin_with_the_same_base() -> None:
    pinned = r"docker\.io/library/python:\S+@sha256:[0-9a-f]{64}"
    (builder,) = re.findall(rf"^FROM ({pinned})$", (ROOT / ".ci/cloudbuild/Containerfile").read_text(), re.M)
    (images,) = re.findall(rf"^ARG BASE=({pinned})$", (ROOT / "containers/Containerfile").read_text(), re.M)
    assert builder == images


def test_images_that_triggers_name_must_be_pinned_by_digest(terraform: list[dict[str, Any]]) -> None:
    variables = {b["labels"][0]: b for b in terraform if b["type"] == "variable"}
    for name in ("docker_image", "gcloud_image", "buildkit_image"):
        (validation,) = variables[name]["blocks"]
        assert "@sha256:[0-9a-f]{64}$" in dict(attributes(validation))["condition"]["text"]
