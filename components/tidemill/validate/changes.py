"""What would have to change in a schema for data to agree with it, and whether that breaks anybody's trust.

A change is *safe* when all data that agreed with the schema still does, and nobody is asked for more: a new value,
wider bounds, a new optional column. Otherwise it is *breaking*. Only changes that the data calls for are proposed: a
schema that allows more than the data uses is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from tidemill.problem import Problem
from tidemill.validate.columns import known_only_in_training
from tidemill.validate.schema import SERVING, TRAINING, TYPES, domain_values, infer

Feature: TypeAlias = schema_pb2.Feature
Stats: TypeAlias = statistics_pb2.FeatureNameStatistics
ChangeClass = Literal["safe", "breaking"]
_SHOWN = 5
_LEFT_ALONE = (schema_pb2.DEPRECATED, schema_pb2.DISABLED, schema_pb2.PLANNED, schema_pb2.DEBUG_ONLY)


@dataclass(frozen=True)
class Change:
    """One proposed change.

    Attributes:
        kind: ``column_new``, ``column_gone``, ``type``, ``values``, ``values_open``, ``bounds``, ``non_finite``,
            ``presence`` or ``environment``.
        message: what the schema says, what the data has.
        apply: makes the change in a schema.
    """

    column: str
    kind: str
    safety: ChangeClass
    message: str
    apply: Callable[[schema_pb2.Schema], None]


@dataclass(frozen=True)
class Evidence:
    """What a run knows of its data: statistics by split (those with rows), and the stored type by column."""

    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList]
    columns: Mapping[str, str]

    def features(self, column: str) -> list[Stats]:
        """Returns the column's statistics in every split that has it."""
        return [f for s in self.statistics.values() for f in s.datasets[0].features if f.path.step[0] == column]

    def least_present(self, column: str) -> float:
        """Returns the smallest share of rows with a value over the splits."""
        shares = []
        for statistics in self.statistics.values():
            feature = next((f for f in statistics.datasets[0].features if f.path.step[0] == column), None)
            present = _stats(feature).common_stats.num_non_missing if feature else 0
            shares.append(present / statistics.datasets[0].num_examples)
        return min(shares, default=0.0)


def propose(curated: schema_pb2.Schema | None, evidence: Evidence, problem: Problem) -> list[Change]:
    """Returns the changes that would make the data of all splits agree with the schema, by column.

    Args:
        curated: the schema as it is, or None; then every column is new, and that is safe.
    """
    inferred = infer(evidence.statistics["train"], problem, evidence.columns)
    known = {feature.name for feature in curated.feature} if curated else set()
    changes: list[Change] = []
    for feature in curated.feature if curated else ():
        changes += _feature_changes(curated, feature, evidence, problem)
    for feature in inferred.feature:
        if feature.name not in known:
            changes.append(_new_column(inferred, feature, evidence, problem, contract=curated is not None))
    return sorted(changes, key=lambda change: (change.column, change.kind))


def _new_column(
    inferred: schema_pb2.Schema, feature: Feature, evidence: Evidence, problem: Problem, contract: bool
) -> Change:
    """Proposes a column as it is inferred, made to fit the other splits too."""
    fitted = schema_pb2.Schema(feature=[feature])
    for change in _feature_changes(fitted, feature, evidence, problem):
        change.apply(fitted)
    new = fitted.feature[0]
    asked = new.presence.min_fraction > 0 and SERVING not in new.not_in_environment
    message = f"new {_type_name(new.type)} column, {'in every row' if new.presence.min_fraction else 'optional'}"
    if contract and asked:
        message += "; every caller of the model must give it from now on"
    values = domain_values(fitted, new)
    if values is not None:
        message += f", values {_listed(values)}"

    def apply(schema: schema_pb2.Schema) -> None:
        schema.feature.append(new)
        for environment in inferred.default_environment:
            if environment not in schema.default_environment:
                schema.default_environment.append(environment)

    return Change(feature.name, "column_new", "breaking" if contract and asked else "safe", message, apply)


def _feature_changes(
    schema: schema_pb2.Schema, feature: Feature, evidence: Evidence, problem: Problem
) -> Iterator[Change]:
    if TRAINING in feature.not_in_environment or feature.lifecycle_stage in _LEFT_ALONE:
        return
    column = feature.name
    if column not in evidence.columns:
        if feature.presence.min_count or feature.presence.min_fraction:
            yield Change(column, "column_gone", "breaking", "the data has no such column", _remove(column))
        return
    kind = TYPES[evidence.columns[column]]
    if feature.type != kind:
        message = f"{_type_name(feature.type)} in the schema, {_type_name(kind)} in the data"
        yield Change(column, "type", "breaking", message, _edit(column, lambda f: _retype(f, kind)))
        return  # domains and bounds of the old type say nothing about the new one
    yield from _value_changes(schema, feature, evidence)
    yield from _bound_changes(feature, evidence)
    share = evidence.least_present(column)
    if feature.presence.min_fraction > share:
        message = (
            f"in {feature.presence.min_fraction:.4g} of the rows or more by the schema, in {share:.4g} in the data"
        )
        least = int(share * 100) / 100  # rounded down, so that the same share passes again
        always = feature.presence.min_fraction >= 1
        edit = _edit(column, lambda f: _loosen_presence(f, 0.0 if always else least))
        yield Change(column, "presence", "breaking", message, edit)
    yield from _environment_changes(schema, feature, problem)


def _value_changes(schema: schema_pb2.Schema, feature: Feature, evidence: Evidence) -> Iterator[Change]:
    allowed = domain_values(schema, feature)
    if allowed is None:
        return
    found: dict[str, None] = {}
    listed = True
    for stats in evidence.features(feature.name):
        found |= dict.fromkeys(bucket.label for bucket in stats.string_stats.rank_histogram.buckets)
        listed &= stats.string_stats.unique <= len(stats.string_stats.rank_histogram.buckets)
    new = sorted(set(found) - set(allowed))
    if not listed:
        message = f"{len(allowed)} values in the schema, more in the data than can be listed: any value is allowed"
        yield Change(feature.name, "values_open", "breaking", message, _edit(feature.name, _open_domain))
    elif new:
        message = f"new {_listed(new)}"
        yield Change(feature.name, "values", "safe", message, lambda s: _add_values(s, feature.name, new))


def _bound_changes(feature: Feature, evidence: Evidence) -> Iterator[Change]:
    domain_kind = feature.WhichOneof("domain_info")
    numbers = [s.num_stats for s in evidence.features(feature.name) if s.num_stats.common_stats.num_non_missing]
    if domain_kind not in ("int_domain", "float_domain") or not numbers:
        return
    domain = getattr(feature, domain_kind)
    low, high = min(stats.min for stats in numbers), max(stats.max for stats in numbers)
    number = int if domain_kind == "int_domain" else float
    wider: dict[str, Any] = {}
    if domain.HasField("min") and low < domain.min:
        wider["min"] = number(low)
    if domain.HasField("max") and high > domain.max:
        wider["max"] = number(high)
    if wider:
        message = ", ".join(f"{name} {getattr(domain, name):g} → {value:g}" for name, value in wider.items())
        edit = _edit(feature.name, lambda f: _set_fields(getattr(f, domain_kind), wider))
        yield Change(feature.name, "bounds", "safe", message, edit)
    if domain_kind == "float_domain":
        yield from _non_finite_changes(feature, numbers)


def _non_finite_changes(feature: Feature, numbers: Sequence[statistics_pb2.NumericStatistics]) -> Iterator[Change]:
    has = {
        "disallow_inf": any(abs(bound) == float("inf") for stats in numbers for bound in (stats.min, stats.max)),
        "disallow_nan": any(histogram.num_nan for stats in numbers for histogram in stats.histograms),
    }
    allowed = {name: False for name, found in has.items() if found and getattr(feature.float_domain, name)}
    if allowed:
        message = f"the data has {' and '.join(name.removeprefix('disallow_') for name in allowed)}"
        edit = _edit(feature.name, lambda f: _set_fields(f.float_domain, allowed))
        yield Change(feature.name, "non_finite", "breaking", message, edit)


def _environment_changes(schema: schema_pb2.Schema, feature: Feature, problem: Problem) -> Iterator[Change]:
    if SERVING not in schema.default_environment:
        return
    served = SERVING not in feature.not_in_environment
    read = feature.name in set(problem.raw_columns) - known_only_in_training(problem)
    if served and not read:
        message = "the model doesn't read it: callers need not give it"
        edit = _edit(feature.name, lambda f: f.not_in_environment.append(SERVING))
        yield Change(feature.name, "environment", "safe", message, edit)
    elif read and not served:
        message = "the model reads it: callers must give it"
        edit = _edit(feature.name, lambda f: f.not_in_environment.remove(SERVING))
        yield Change(feature.name, "environment", "breaking", message, edit)


def _edit(column: str, change: Callable[[Feature], None]) -> Callable[[schema_pb2.Schema], None]:
    def apply(schema: schema_pb2.Schema) -> None:
        change(next(feature for feature in schema.feature if feature.name == column))

    return apply


def _remove(column: str) -> Callable[[schema_pb2.Schema], None]:
    def apply(schema: schema_pb2.Schema) -> None:
        place = next(i for i, feature in enumerate(schema.feature) if feature.name == column)
        del schema.feature[place]

    return apply


def _retype(feature: Feature, kind: int) -> None:
    feature.type = kind
    _open_domain(feature)


def _open_domain(feature: Feature) -> None:
    feature.ClearField(feature.WhichOneof("domain_info") or "domain")


def _add_values(schema: schema_pb2.Schema, column: str, values: Sequence[str]) -> None:
    feature = next(feature for feature in schema.feature if feature.name == column)
    if feature.HasField("domain"):  # a domain that columns share grows for all of them
        domain = next(domain for domain in schema.string_domain if domain.name == feature.domain)
    else:
        domain = feature.string_domain
    domain.value.extend(value for value in values if value not in domain.value)


def _loosen_presence(feature: Feature, min_fraction: float) -> None:
    feature.presence.ClearField("min_fraction")
    if min_fraction:
        feature.presence.min_fraction = min_fraction
    # A dense shape promises a value in every row, and TFDV refuses it without min_fraction 1.
    if feature.HasField("shape"):
        feature.ClearField("shape")
        feature.value_count.min = feature.value_count.max = 1


def _set_fields(message: Any, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        setattr(message, name, value)


def _stats(feature: Stats) -> Any:
    return getattr(feature, feature.WhichOneof("stats"))


def _type_name(kind: int) -> str:
    return {schema_pb2.INT: "int64", schema_pb2.FLOAT: "float64", schema_pb2.BYTES: "string"}.get(kind, "untyped")


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(repr(value) for value in values[:_SHOWN]) + more
