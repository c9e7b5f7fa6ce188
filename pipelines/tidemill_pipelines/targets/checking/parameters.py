"""The pipeline's parameters: whether they have values, how long those are, what they must not be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject

_MOST: Final = 10_000
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
_SECRET_NAME: Final = re.compile(
    r"(^|[_-])(password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)($|[_-])",
    re.I,
)
_NO_SECRET_NAME: Final = re.compile(
    r"(file|path|name|variable|uri|url|id|ref|version|count|length|size|max[_-]\w*)$", re.I
)
_SECRET_VALUE: Final[Mapping[str, re.Pattern[str]]] = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "a key of a Google service account": re.compile(r'"type"\s*:\s*"service_account"'),
    "a Google API key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "a Google access token": re.compile(r"\bya29\.[0-9A-Za-z_-]{20,}"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{40,})\b"),
    "a Slack token": re.compile(r"\bxox[abposr]-[0-9A-Za-z-]{10,}"),
    "a JSON Web Token": re.compile(r"\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}"),
    "an address with a password": re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s:@]+@"),
}
_KEEP: Final = "keep it in a secret store, and let the component read it as the task's service account"


@check("parameter-missing", "error", "A parameter has no value: the backend refuses the run.")
def parameter_missing(subject: Subject) -> Iterator[Told]:
    for name, one in subject.parameters.items():
        if "defaultValue" not in one and not one.get("isOptional"):
            yield Told(None, f"the parameter {name} has no value", "give one when compiling")


@check("parameter-type", "error", "A parameter's value isn't of its type: the backend refuses the run.")
def parameter_type(subject: Subject) -> Iterator[Told]:
    for name, value in subject.values.items():
        declared = subject.parameters[name].get("parameterType", "")
        fits = isinstance(value, _KINDS.get(declared, (object,)))
        if not fits or (isinstance(value, bool) and declared not in ("BOOLEAN", "")):
            yield Told(None, f"the parameter {name} is {type(value).__name__}, declared {declared}", "mend its default")


@check("parameter-too-long", "error", "Vertex AI refuses values over 10,000 characters.", ["vertex"])
def parameter_too_long(subject: Subject) -> Iterator[Told]:
    for name, text in _texts(subject):
        if len(text) > _MOST:
            cure = "keep it in a file: what lies beside problem.yaml travels in the bundle"
            yield Told(None, f"the parameter {name} has {len(text):,} characters, {_MOST:,} are taken", cure)


@check(
    "parameters-too-long",
    "warning",
    "An API server of KFP may refuse more than 10,000 bytes of parameters in all (its MAX_PARAMETER_BYTES).",
    ["kubernetes"],
)
def parameters_too_long(subject: Subject) -> Iterator[Told]:
    size = len(json.dumps(subject.values, ensure_ascii=False).encode())
    if size > _MOST:
        cure = "keep the longest in a file: what lies beside problem.yaml travels in the bundle"
        yield Told(None, f"the parameters have {size:,} bytes in all", cure)


@check("secret-in-parameter", "error", "A parameter looks like a secret; parameters are shown, logged and kept.")
def secret_in_parameter(subject: Subject) -> Iterator[Told]:
    for name, text in _texts(subject):
        if found := _secret(name, text):
            yield Told(None, f"the parameter {name} looks like {found}", _KEEP)
    for task in subject.tasks:
        for name, one in task.spec.get("inputs", {}).get("parameters", {}).items():
            constant = one.get("runtimeValue", {}).get("constant")
            if constant is not None and (found := _secret(name, _text(constant))):
                yield Told(task.name, f"its parameter {name} looks like {found}", _KEEP)


@check("secret-in-environment", "error", "A variable of a task looks like a secret; the file is uploaded and kept.")
def secret_in_environment(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        for name, value in task.environment.items():
            if found := _secret(name, value):
                yield Told(task.name, f"its variable {name} looks like {found}", _KEEP)


def _texts(subject: Subject) -> Iterator[tuple[str, str]]:
    for name, value in subject.values.items():
        yield name, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _secret(name: str, text: str) -> str | None:
    """Returns what kind of secret a value looks like, by itself or by its name; None if like none."""
    for what, pattern in _SECRET_VALUE.items():
        if pattern.search(text):
            return what
    placeholder = text.startswith("{{") or "://" in text or text.startswith("/")
    named = _SECRET_NAME.search(name) and not _NO_SECRET_NAME.search(name)
    return "a secret by its name" if named and text and not placeholder else None


CHECKS: Final = (
    parameter_missing,
    parameter_type,
    parameter_too_long,
    parameters_too_long,
    secret_in_parameter,
    secret_in_environment,
)
