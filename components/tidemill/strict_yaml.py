"""YAML files that people write, held against a strict model: every fault at once, each with its path and line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tidemill.errors import UserError

ModelT = TypeVar("ModelT", bound=BaseModel)


def validated(
    model: type[ModelT],
    text: str,
    where: str,
    error: type[UserError],
    expected: str,
    overrides: Mapping[str, str] | None = None,
) -> ModelT:
    """Returns the text of a YAML file as a ``model``.

    Args:
        where: the file's name, for errors.
        error: the class of the errors.
        expected: what is said of a file that holds no mapping.
        overrides: YAML values by dotted path; they come from ``--set``.

    Raises:
        UserError: an ``error`` that names every fault.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as fault:
        raise error(where, "is not YAML", str(fault)) from fault
    if root is None or not isinstance(value, dict):
        raise error(where, expected, type(value).__name__)
    faults = _duplicate_keys(root)
    for dotted, override in (overrides or {}).items():
        _set(value, dotted, _override(dotted, override, error), error)
    try:
        result = model.model_validate(value)
    except ValidationError as invalid:
        found = invalid.errors(include_url=False)
        faults += [_describe(fault, model, root, set(overrides or ())) for fault in found]
    if faults:
        faults.sort(key=_line_of)
        raise error(where, f"{len(faults)} fault{'s' * (len(faults) > 1)}\n" + "\n".join(f"  {f}" for f in faults))
    return result


def _line_of(fault: str) -> int:
    """Returns the line that a fault names; 0 for one that is not in the file but in an override."""
    found = re.match(r"line (\d+):", fault)
    return int(found[1]) if found else 0


def _override(dotted: str, text: str, error: type[UserError]) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as fault:
        raise error(f"--set {dotted}", "the value is not YAML", repr(text)) from fault


def _set(value: dict[str, Any], dotted: str, new: Any, error: type[UserError]) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        value = value.setdefault(parent, {})
        if not isinstance(value, dict):
            raise error(f"--set {dotted}", f"{parent} is not a mapping")
    value[last] = new


def _describe(fault: Mapping[str, Any], model: type[BaseModel], root: yaml.Node, overridden: set[str]) -> str:
    keys = _keys(fault["loc"], root, overridden)
    dotted = ".".join(str(key) for key in keys) or model.__name__.lower()
    message = fault["msg"].removeprefix("Value error, ")
    got = fault.get("input")
    if fault["type"] == "extra_forbidden":
        message, got = f"unknown key{_suggestion(model, fault['loc'])}", None
    elif fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        message, got = f"kind must be one of {', '.join(_kinds(model, fault['loc']))}", fault.get("ctx", {}).get("tag")
    shown = f" (got {got!r})" if isinstance(got, (str, int, float, bool)) else ""
    place = "--set" if any(f"{dotted}.".startswith(f"{key}.") for key in overridden) else f"line {_line(root, keys)}:"
    return f"{place} {dotted}: {message}{shown}"


def _keys(location: Sequence[Any], root: yaml.Node, overridden: set[str]) -> list[Any]:
    """Returns a fault's path as the file has it: pydantic puts in the tag of the union's member that it tried."""
    keys: list[Any] = []
    node: yaml.Node | None = root
    for position, key in enumerate(location):
        child = _child(node, key)
        last = position == len(location) - 1
        told = any(f"{'.'.join(map(str, [*keys, key]))}.".startswith(f"{o}.") for o in overridden)
        if child is None and not last and not told and _child(node, location[position + 1]) is not None:
            continue
        keys.append(key)
        node = child
    return keys


def _child(node: yaml.Node | None, key: Any) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == str(key)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key]  # type: ignore[no-any-return]
    return None


def _suggestion(model: type[BaseModel], location: Sequence[Any]) -> str:
    """Returns `; did you mean …?` if a key of that model is spelt much like the one at ``location``."""
    inner = _models_at(model, location[:-1])
    if len(inner) != 1:
        return ""
    close = difflib.get_close_matches(str(location[-1]), inner[0].model_fields, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _kinds(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Returns the values of ``kind`` that the models at ``location`` have."""
    return [tag for each in _models_at(model, location) for tag in get_args(each.model_fields["kind"].annotation)]


def _models_at(model: type[BaseModel], location: Sequence[Any]) -> list[type[BaseModel]]:
    """Returns the models that may stand at ``location``; keys of mappings and positions of lists are passed over."""
    models = [model]
    for key in location:
        fields = [each.model_fields[str(key)] for each in models if str(key) in each.model_fields]
        if fields:
            models = [found for field in fields for found in _models(field.annotation)]
    return models


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _line(node: yaml.Node, keys: Sequence[Any]) -> int:
    """Returns the 1-based line of the deepest node on the path ``keys`` that the file has."""
    line = node.start_mark.line
    place: yaml.Node | None = node
    for key in keys:
        if isinstance(place, yaml.MappingNode):
            found = next(((k, v) for k, v in place.value if k.value == str(key)), None)
            if found is None:
                break
            line, place = found[0].start_mark.line, found[1]
        elif isinstance(place, yaml.SequenceNode) and isinstance(key, int) and key < len(place.value):
            place = place.value[key]
            line = place.start_mark.line
    return line + 1


def _duplicate_keys(node: yaml.Node | None, path: str = "") -> list[str]:
    """Names keys that stand twice in one mapping, of which YAML would silently keep the last."""
    faults, seen = [], set()
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value in seen:
                faults.append(f"line {key.start_mark.line + 1}: {path}{key.value}: stands twice")
            seen.add(key.value)
            faults += _duplicate_keys(value, f"{path}{key.value}.")
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            faults += _duplicate_keys(value, f"{path}{i}.")
    return faults
