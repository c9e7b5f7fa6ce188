"""Cloud Build's files as Cloud Build reads them, and what is wrong with one.

The fields: https://cloud.google.com/build/docs/build-config-file-schema; the substitutions that Cloud Build itself
makes: https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
FILES: Final = ("cloudbuild.yaml", *(f".ci/cloudbuild/{name}.yaml" for name in (
    "pull-request", "release", "nightly", "new-data"
)))  # fmt: skip
BUILDER: Final = "tidemill-ci"
PINNED: Final = ("$_DOCKER", "$_GCLOUD")
"""Images that the triggers name by digest."""
LONGEST_S: Final = 24 * 3600
_MADE_BY_CLOUD_BUILD: Final = {
    *("PROJECT_ID", "PROJECT_NUMBER", "BUILD_ID", "LOCATION", "TRIGGER_NAME", "COMMIT_SHA", "SHORT_SHA", "REVISION_ID"),
    *("REPO_NAME", "REPO_FULL_NAME", "BRANCH_NAME", "TAG_NAME", "REF_NAME", "SERVICE_ACCOUNT_EMAIL"),
}
_OF_PULL_REQUESTS: Final = {"_HEAD_BRANCH", "_BASE_BRANCH", "_HEAD_REPO_URL", "_PR_NUMBER"}
_BUILD_FIELDS: Final = {
    "timeout",
    "queueTtl",
    "substitutions",
    "options",
    "steps",
    "artifacts",
    "tags",
    "availableSecrets",
}
_STEP_FIELDS: Final = {
    *("id", "name", "waitFor", "timeout", "script", "env", "allowFailure", "allowExitCodes", "dir", "volumes"),
    *("automapSubstitutions", "secretEnv"),
}
_OPTION_FIELDS: Final = {
    *("logging", "machineType", "diskSizeGb", "automapSubstitutions", "dynamicSubstitutions", "env", "pool", "volumes"),
    *("requestedVerifyOption", "substitutionOption", "defaultLogsBucketBehavior", "sourceProvenanceHash"),
}
_ARTIFACT_FIELDS: Final = {"objects", "pythonPackages", "images"}
_VARIABLE: Final = re.compile(r"(?<!\\)\$(?:\{([A-Za-z_]\w*)|([A-Za-z_]\w*))")
_ASSIGNED: Final = re.compile(r"(?:^|[\s;|&(])([A-Za-z_]\w*)=|\bread (?:-\w+ )*([\w ]+)|\bfor (\w+) in", re.M)


@dataclass(frozen=True)
class Build:
    """One file.

    Attributes:
        head: the comment that it begins with.
    """

    path: str
    head: str
    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: str) -> Build:
        text = (ROOT / path).read_text(encoding="utf-8")
        head = "\n".join(line for line in text.split("timeout:")[0].splitlines() if line.startswith("#"))
        return cls(path, head, yaml.safe_load(text))

    @property
    def steps(self) -> list[dict[str, Any]]:
        return list(self.content["steps"])

    def step(self, name: str) -> dict[str, Any]:
        (found,) = [step for step in self.steps if step["id"] == name]
        return found

    def before(self, name: str) -> set[str]:
        """Returns the steps that have ended well when a step begins."""
        direct = [other for other in self.step(name)["waitFor"] if other != "-"]
        return {*direct, *(further for other in direct for further in self.before(other))}

    def substitutions_used(self) -> set[str]:
        """Returns the substitutions, Cloud Build's and ours, that fields and scripts take."""
        fields = {**self.content, "steps": [{k: v for k, v in s.items() if k != "script"} for s in self.steps]}
        fields.pop("substitutions", None)
        names = {name for text in _texts(fields) for name in variables(text)}
        for step in self.steps:
            names |= variables(step["script"]) - assigned(step["script"]) - environment(self, step)
        return names


def variables(text: str) -> set[str]:
    return {match[1] or match[2] for match in _VARIABLE.finditer(text)}


def assigned(script: str) -> set[str]:
    """Returns the variables that a script gives values to."""
    return {name for match in _ASSIGNED.finditer(script) for group in match.groups() if group for name in group.split()}


def environment(build: Build, step: Mapping[str, Any]) -> set[str]:
    given = [*build.content.get("options", {}).get("env", []), *step.get("env", [])]
    return {entry.partition("=")[0] for entry in given}


def seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)s", text)
    if found is None:
        raise ValueError(f"expected seconds, such as 600s (got {text!r})")
    return int(found[1])


def faults(build: Build, given: set[str]) -> list[str]:
    """Returns what Cloud Build would refuse, or what would hang on a moving image, wait without end or run forever.

    Args:
        given: the substitutions that the file's trigger makes.
    """
    found = [*_unknown_fields(build), *_graph(build)]
    return found or [*_times(build), *_images(build), *_substitutions(build, given)]


def _unknown_fields(build: Build) -> Iterator[str]:
    content = build.content
    places = [("", content, _BUILD_FIELDS), ("options", content.get("options", {}), _OPTION_FIELDS)]
    places += [("artifacts", content.get("artifacts", {}), _ARTIFACT_FIELDS)]
    places += [(step.get("id", "?"), step, _STEP_FIELDS) for step in content["steps"]]
    for where, fields, known in places:
        for field in sorted(set(fields) - known):
            yield f"{where}: {field} is no field"
    for step in content["steps"]:
        for field in sorted({"id", "name", "waitFor", "timeout", "script"} - set(step)):
            yield f"{step.get('id', '?')}: {field} is missing"


def _graph(build: Build) -> Iterator[str]:
    """Steps wait only for steps above them, as Cloud Build asks; so there is no circle."""
    above: list[str] = []
    for step in build.steps:
        if step["id"] in above:
            yield f"{step['id']}: stands there twice"
        for other in step["waitFor"]:
            if other != "-" and other not in above:
                yield f"{step['id']}: waits for {other}, which is no step above it"
        if not step["waitFor"]:
            yield f"{step['id']}: an empty waitFor waits for all above; name them, or -"
        above.append(step["id"])


def _times(build: Build) -> Iterator[str]:
    ends: dict[str, int] = {}
    for step in build.steps:
        ends[step["id"]] = seconds(step["timeout"]) + max(ends.get(other, 0) for other in step["waitFor"])
    whole = seconds(build.content["timeout"])
    if max(ends.values()) > whole:
        last = max(ends, key=lambda name: ends[name])
        yield f"timeout: steps up to {last} may take {ends[last]} s, the build {whole} s"
    if whole > LONGEST_S:
        yield f"timeout: {whole} s is more than Cloud Build's {LONGEST_S} s"


def _images(build: Build) -> Iterator[str]:
    for step in build.steps:
        if step["name"] == BUILDER:
            if "builder" not in build.before(step["id"]):
                yield f"{step['id']}: runs in {BUILDER} without waiting for the step that makes it"
        elif step["name"] not in PINNED and not re.search(r"@sha256:[0-9a-f]{64}$", step["name"]):
            yield f"{step['id']}: {step['name']} is not pinned by digest"


def _substitutions(build: Build, given: set[str]) -> Iterator[str]:
    own = set(build.content.get("substitutions", {}))
    there = own | given | _MADE_BY_CLOUD_BUILD | (_OF_PULL_REQUESTS if "pull-request" in build.path else set())
    used = build.substitutions_used()
    for name in sorted(used - there):
        yield f"{name} has no value"
    for name in sorted(own - used):
        yield f"{name} is never used"
    for name in sorted(n for n in used if n.startswith("_") and not re.search(rf"\b{n}\b", build.head)):
        yield f"{name} is not explained at the head of the file"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
