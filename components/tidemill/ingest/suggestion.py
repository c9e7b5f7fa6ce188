"""From facts about a table to a first problem: what each column is probably for. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Facts = Mapping[str, Any]
"""The JSON of ``tidemill.ingest.profile.ColumnFacts``."""

_LEAK, _STRONG = 0.97, 0.85
_MOST_CLASSES = 20
_SHORT_VOCABULARY, _LONGEST_VOCABULARY = 1000, 20_000
_EPOCH_S, _EPOCH_MS = (3e8, 4e9), (3e11, 4e12)

_SENSITIVE = re.compile(
    "sex|gender|race|ethnicity|ethnic|age|nationality|national|religion|disability|disabled|marital|pregnant|"
    "pregnancy|orientation|veteran|citizenship|caste|native|birth|dob"
)
_FIRST_SENSITIVE = re.compile("sex|gender|race|ethnicity|ethnic")
_WEIGHT = re.compile(
    r"fnlwgt|(sampl\w*|survey|case|person|example|instance)_?(weight|wgt|wt)s?|perwt|wgt|pweight", re.I
)
_IDENTIFIER = re.compile("ids?|uuid|guid|key|ssn|email|phone|iban|hash|url|index|rowid|identifier")
_MOMENT = re.compile("time|timestamp|date|datetime|ts|at|day|created|updated|epoch")
_CODE = re.compile(
    "area|tract|zip|zipcode|postal|postcode|code|month|hour|weekday|day|dow|quarter|category|type|class|zone|region|"
    "district|state|branch|store|shop|product"
)
_COORDINATE = re.compile(r"(^|_|-|\b)(lat|lon|lng|long|latitude|longitude)($|_|-|\b)", re.I)
_POSITIVE = ("yes", "y", "true", "t", "1", "positive", "pos", "bad", "fraud", "spam", "churned", "default", "approved")


@dataclass(frozen=True)
class Suggestion:
    """What a problem.yaml could say.

    Attributes:
        task: the task that fits the label.
        positive: the positive class of a binary label, as the problem takes it.
        why: one sentence on task and positive class.
        features: settings by column, each as ``problem.yaml`` takes them, and a remark.
        left_out: the reason by column that is no feature.
        sensitive: columns whose names stand for protected attributes.
        weight, time, group: columns that look like an example weight, the event time, an entity.
    """

    task: str
    positive: str | None
    why: str
    features: Mapping[str, tuple[Mapping[str, Any], str]]
    left_out: Mapping[str, str]
    sensitive: tuple[str, ...]
    weight: str | None
    time: str | None
    group: str | None


def suggest(label: Facts, columns: Sequence[Facts]) -> Suggestion:
    """Returns what the facts suggest."""
    task, positive, why = _task(label)
    left_out = {c["name"]: reason for c in columns if (reason := _left_out(c, task))}
    features = {c["name"]: _feature(c) for c in columns if c["name"] not in left_out}
    moments = [c["name"] for c in columns if _moment(c)]
    groups = [c["name"] for c in columns if _is_entity(c) and c["distinct"] < 0.98 * c["values"]]
    weights = [c["name"] for c in columns if _is_weight(c)]
    return Suggestion(
        task=task,
        positive=positive,
        why=why,
        features=features,
        left_out=left_out,
        sensitive=tuple(c["name"] for c in sorted(columns, key=_rank) if _has_word(c, _SENSITIVE)),
        weight=weights[0] if weights else None,
        time=moments[0] if moments else None,
        group=groups[0] if groups else None,
    )


def _has_word(column: Facts, words: re.Pattern[str]) -> bool:
    """Whether one of the words of a column's name (camel case taken apart) is among ``words``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", column["name"])
    return any(words.fullmatch(word) for word in re.split(r"[^a-z0-9]+", spaced.casefold()))


def _rank(column: Facts) -> bool:
    """Sorts what is most often protected first."""
    return not _has_word(column, _FIRST_SENSITIVE)


def _task(label: Facts) -> tuple[str, str | None, str]:
    values = [value for value, _ in label["top"]]
    if label["distinct"] == 2:
        positive, why = _positive(values, [share for _, share in label["top"]])
        return "binary_classification", positive, why
    whole = label["type"] != "float64" or all(re.fullmatch(r"-?\d+", value) for value in values)
    if label["type"] == "string" or (whole and label["distinct"] <= _MOST_CLASSES):
        return "multiclass_classification", None, f"the label has {label['distinct']:,} values"
    span = f"{label['low']:g} to {label['high']:g}"
    return "regression", None, f"the label is a number with {label['distinct']:,} values, {span}"


def _positive(values: Sequence[str], shares: Sequence[float]) -> tuple[str, str]:
    for value, share in zip(values, shares, strict=True):
        if value.casefold() in _POSITIVE or value.startswith(">"):
            return value, f"two values; {value!r} ({share:.1%} of the rows) reads like the positive one"
    return values[1], f"two values; {values[1]!r} is the rarer ({shares[1]:.1%} of the rows)"


def _left_out(column: Facts, task: str) -> str | None:
    if column["values"] == 0:
        return "has no value at all"
    if column["distinct"] == 1:
        return f"has one value only: {column['top'][0][0]!r}"
    if column["alone"] >= _LEAK:
        measure = {"binary_classification": f"AUC {(1 + column['alone']) / 2:.3f}", "regression": "R²"}
        value = measure.get(task, "errors avoided")
        shown = value if task == "binary_classification" else f"{value} {column['alone']:.3f}"
        return f"predicts the label nearly perfectly on its own ({shown}): probably known only with it"
    if _is_weight(column):
        return "looks like a sampling weight, not a property of the row"
    if _is_entity(column):
        return f"looks like an identifier: {column['distinct']:,} values in {column['values']:,} rows"
    return None


def _is_weight(column: Facts) -> bool:
    return column["type"] in ("int64", "float64") and _WEIGHT.fullmatch(column["name"].replace("-", "_")) is not None


def _is_entity(column: Facts) -> bool:
    """Whether a column names rows or entities rather than describes them."""
    if column["type"] not in ("int64", "string") or _moment(column) or column["values"] < 20:
        return False
    unique = column["distinct"] / column["values"]
    named = _has_word(column, _IDENTIFIER)
    if column["type"] == "string":
        return (unique > 0.9 and column["words"] < 2) or (named and column["distinct"] > _SHORT_VOCABULARY)
    return (unique > 0.98 and (named or column["ascending"])) or (named and column["distinct"] > _SHORT_VOCABULARY)


def _moment(column: Facts) -> str | None:
    """Returns the format of a column of moments, or None."""
    if column["iso_dates"]:
        return "iso8601"
    if column["type"] not in ("int64", "float64") or column["low"] is None or not _has_word(column, _MOMENT):
        return None
    for name, (low, high) in (("epoch_s", _EPOCH_S), ("epoch_ms", _EPOCH_MS)):
        if low <= column["low"] and column["high"] <= high:
            return name
    return None


def _feature(column: Facts) -> tuple[Mapping[str, Any], str]:
    settings = _text_feature(column) if column["type"] == "string" else _number_feature(column)
    moment = _moment(column)
    if moment:
        settings = {"kind": "date", "format": moment}
    remarks = [_shown(column)]
    if column["missing"] >= 0.005:
        remarks.append(f"{column['missing']:.0%} missing")
    if column["alone"] >= _STRONG:
        remarks.append("tells much of the label on its own: is it known beforehand?")
    return settings, ", ".join(remarks)


def _text_feature(column: Facts) -> Mapping[str, Any]:
    if column["words"] >= 3 and column["distinct"] > max(100, 0.2 * column["values"]):
        return {"kind": "text"}
    if column["distinct"] <= _SHORT_VOCABULARY:
        return {"kind": "categorical"}
    size = min(_LONGEST_VOCABULARY, _rounded_up(column["distinct"]))
    return {"kind": "categorical", "max_vocabulary": size, "min_frequency": 2, "oov_buckets": 16}


def _number_feature(column: Facts) -> Mapping[str, Any]:
    if column["type"] == "int64" and _has_word(column, _CODE) and column["distinct"] <= _SHORT_VOCABULARY:
        return {"kind": "categorical", "max_vocabulary": max(10, _rounded_up(column["distinct"]))}
    if _COORDINATE.search(column["name"]) and column["low"] >= -180 and column["high"] <= 180:
        return {"kind": "bucketized", "buckets": 20}
    if column["low"] is not None and column["low"] >= 0 and column["high"] > 50 * max(column["middle"], 1):
        return {"kind": "numeric", "scale": "log_z_score"}
    return {"kind": "numeric"}


def _rounded_up(count: int) -> int:
    """Returns the next of 1, 2, 5, 10, 20, 50 …"""
    power = int(10 ** (len(str(count)) - 1))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= count)


def _shown(column: Facts) -> str:
    moment = _moment(column)
    if moment in ("epoch_s", "epoch_ms"):
        scale = 1000 if moment == "epoch_ms" else 1
        days = [datetime.fromtimestamp(column[end] / scale, UTC).date().isoformat() for end in ("low", "high")]
        return " to ".join(days)
    if column["type"] == "string":
        return f"{column['distinct']:,} values, such as {column['top'][0][0][:40]!r}"
    return f"{column['low']:g} to {column['high']:g}, {column['distinct']:,} values"
