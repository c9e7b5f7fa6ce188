"""Strict validation: what a cluster would prune or refuse is an error here."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from kubernetes_validate import utils

utils.schema_contents = functools.cache(utils.schema_contents)  # or it reads a megabyte anew for every object

OLDEST, NEWEST = "1.31", "1.35"
_OBJECT: Final = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
_KEPT: Final = (
    *("type", "enum", "format", "required", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("multipleOf", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
)
_COMBINED: Final = ("allOf", "anyOf", "oneOf")


class Invalid(Exception):
    """An object does not have the form of its kind."""


def strict(schema: Mapping[str, Any], root: bool = False) -> dict[str, Any]:
    """Turns a structural openAPIV3Schema into a JSON Schema that refuses what the API server would prune.

    ``x-kubernetes-preserve-unknown-fields`` keeps a place open, ``x-kubernetes-embedded-resource`` makes it an object
    of its own. Rules in CEL (``x-kubernetes-validations``) and defaults are not looked at.
    """
    made = _values(schema)
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    embedded = root or schema.get("x-kubernetes-embedded-resource", False)
    properties = {name: strict(part) for name, part in schema.get("properties", {}).items()}
    if embedded:
        properties = {**_OBJECT, **{name: part for name, part in properties.items() if name != "metadata"}}
        properties["metadata"] = {"type": "object"}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if properties:
        made["properties"] = properties
    if made.get("type") == "object" or properties:
        additional = schema.get("additionalProperties")
        if isinstance(additional, Mapping):
            made["additionalProperties"] = strict(additional)
        elif not open_ended:
            made["additionalProperties"] = bool(additional)
    if "items" in schema:
        made["items"] = strict(schema["items"])
    if schema.get("nullable"):
        made["type"] = [*([made["type"]] if isinstance(made.get("type"), str) else made.get("type", [])), "null"]
    return made


def _values(schema: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema}
    if "pattern" in schema:  # Go's dialect takes flags after the anchor, Python's before
        made["pattern"] = re.sub(r"^\^\(\?([a-z]+)\)", r"(?\1)^", schema["pattern"])
    for key in _COMBINED:  # these constrain values only; fields are declared outside of them
        if key in schema:
            made[key] = [_loose(part) for part in schema[key]]
    if "not" in schema:
        made["not"] = _loose(schema["not"])
    return made


def _loose(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a part of an allOf, anyOf, oneOf or not: constraints on values, with no say about other fields."""
    made = _values(schema)
    if "properties" in schema:
        made["properties"] = {name: _loose(part) for name, part in schema["properties"].items()}
    if "items" in schema:
        made["items"] = _loose(schema["items"])
    return made


class Schemas:
    """The kinds that a cluster with our operators knows."""

    def __init__(self, crds: list[Path]) -> None:
        self._validators: dict[tuple[str, str], Draft202012Validator] = {}
        self.scopes: dict[tuple[str, str], str] = {}
        for crd in (yaml.load(path.read_text(), Loader=yaml.CSafeLoader) for path in crds):
            spec = crd["spec"]
            for version in spec["versions"]:
                if not version["served"]:
                    continue
                key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                schema = strict(version["schema"]["openAPIV3Schema"], root=True)
                Draft202012Validator.check_schema(schema)
                self._validators[key] = Draft202012Validator(schema)
                self.scopes[key] = spec["scope"]

    def is_custom(self, document: Mapping[str, Any]) -> bool:
        return (document["apiVersion"], document["kind"]) in self._validators

    def validate(self, document: Mapping[str, Any]) -> None:
        """Validates one object, a built-in one against the oldest and the newest Kubernetes that we name.

        Raises:
            Invalid: naming the field.
        """
        key = (document.get("apiVersion", ""), document.get("kind", ""))
        if key in self._validators:
            error = best_match(self._validators[key].iter_errors(document))
            if error is not None:
                raise Invalid(f"{key[1]} {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}")
            # CRDs leave metadata to Kubernetes.
            _validate_builtin({"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]})
            if "name" not in document["metadata"]:
                raise Invalid(f"{key[1]} metadata.name: is required")
        else:
            _validate_builtin(document)


def _validate_builtin(document: Mapping[str, Any]) -> None:
    for version in (OLDEST, NEWEST):
        try:
            kubernetes_validate.validate(dict(document), version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            raise Invalid(f"{document.get('apiVersion')} {document.get('kind')}: neither built in nor pinned") from None
        except kubernetes_validate.ValidationError as error:
            path = ".".join(map(str, error.path))
            raise Invalid(f"{document['kind']} {path}: {error.message[:300]} ({version})") from None


def fields(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yields every field of a document with its path, the outermost first."""
    children = document.items() if isinstance(document, Mapping) else enumerate(document)
    for name, value in children:
        yield (*path, name), value
        if isinstance(value, (Mapping, list)):
            yield from fields(value, (*path, name))
