"""KFP's filters, in the JSON that its lists take."""

from __future__ import annotations

import json


def equals(key: str, value: str) -> str:
    """Returns the filter for a field's whole value."""
    return _one(key, "EQUALS", value)


def contains(key: str, value: str) -> str:
    """Returns the filter for a part of a field's value; SQL's LIKE reads ``%`` and ``_`` in it as patterns."""
    return _one(key, "IS_SUBSTRING", value)


def _one(key: str, operation: str, value: str) -> str:
    return json.dumps({"predicates": [{"key": key, "operation": operation, "string_value": value}]})
