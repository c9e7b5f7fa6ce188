"""The data gate: what was found becomes checks, each with a sentence that says what, where, how much and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tensorflow_metadata.proto.v0 import statistics_pb2

from tidemill.artifacts import ExamplesManifest
from tidemill.decisions import Check
from tidemill.gates import DataGate
from tidemill.problem import Problem
from tidemill.validate.anomalies import Anomaly
from tidemill.validate.distances import Distance, Kind
from tidemill.validate.schema import SERVING
from tidemill.validate.summary import class_counts

_MEASURES = {
    "l_infinity": "L-infinity distance",
    "jensen_shannon": "Jensen-Shannon divergence",
    "missing_share": "difference of the missing shares",
}


def is_allowed(gate: DataGate, column: str, kind: str) -> bool:
    """Tells whether ``gates.data.allow`` turns this into a warning."""
    return column in gate.allow or f"{column}:{kind}" in gate.allow


def row_checks(manifest: ExamplesManifest, gate: DataGate) -> list[Check]:
    """Checks how many rows there are, how many could not be read, and that no split is empty."""
    rows = sum(manifest.rows.values())
    seen = rows + manifest.quarantined
    share = manifest.quarantined / seen if seen else 0.0
    empty = [split for split, count in manifest.rows.items() if not count]
    return [
        Check(
            "min_rows",
            rows >= gate.min_rows,
            f">= {gate.min_rows}",
            str(rows),
            f"The data has {rows:,} rows; at least {gate.min_rows:,} are wanted (gates.data.min_rows).",
            rows,
            gate.min_rows,
        ),
        Check(
            "max_quarantined",
            share <= gate.max_quarantined,
            f"<= {gate.max_quarantined:g}",
            f"{share:.4g}",
            f"{manifest.quarantined:,} of {seen:,} rows ({share:.2%}) could not be read; at most "
            f"{gate.max_quarantined:.2%} may (gates.data.max_quarantined). "
            "The examples' quarantine/ has the reasons.",
            share,
            gate.max_quarantined,
        ),
        Check(
            "empty_split",
            not empty,
            "every split has rows",
            f"none in {', '.join(empty)}" if empty else "all have",
            f"No rows in {', '.join(empty)}: bring more data, or change `split`." if empty else "Every split has rows.",
        ),
    ]


def column_checks(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, manifest: ExamplesManifest, problem: Problem
) -> list[Check]:
    """Checks that the label can be learnt and that every column the model reads holds information.

    Args:
        statistics: of the training split.
    """
    features = {feature.path.step[0]: feature for feature in statistics.datasets[0].features}
    rows = int(statistics.datasets[0].num_examples)
    if not rows:
        return []
    gate = problem.gates.data
    checks = _label_checks(features, rows, manifest, problem)
    for column in problem.raw_columns:
        feature = features.get(column)
        present = _present(feature)
        if not present:
            checks.append(
                _failed(
                    gate, column, "ALL_NULL", "some values", "none",
                    f"`{column}` has no value in any of the {rows:,} training rows: a model can't read it. "
                    "Mend the source or take the feature out of problem.yaml",
                )
            )  # fmt: skip
        elif feature is not None and (only := _constant(feature)) is not None:
            checks.append(
                _failed(
                    gate, column, "CONSTANT", "more than one value", only,
                    f"`{column}` is {only} wherever it has a value in training: it tells the model nothing. "
                    "Take the feature out of problem.yaml",
                    blocking=False,
                )
            )  # fmt: skip
        if feature is not None and (nan := _nan(feature)):
            checks.append(
                _failed(
                    gate, column, "NAN", "no NaN", f"{nan} NaN",
                    f"`{column}` is NaN in {nan:,} of {rows:,} training rows; that is taken for missing",
                    blocking=False,
                )
            )  # fmt: skip
    if all(check.passed for check in checks):
        message = f"The label and the {len(problem.raw_columns)} columns that the model reads hold information."
        checks = [Check("columns", True, "values that vary", "all have", message)]
    return checks


def _label_checks(
    features: Mapping[str, statistics_pb2.FeatureNameStatistics],
    rows: int,
    manifest: ExamplesManifest,
    problem: Problem,
) -> list[Check]:
    gate, label = problem.gates.data, problem.label.output
    feature = features.get(label)
    unlabelled = rows - _present(feature)
    if unlabelled:
        return [
            _failed(
                gate, label, "LABEL_MISSING", "a label in every row", f"{unlabelled} without",
                f"{unlabelled:,} of {rows:,} training rows have no `{label}` to learn. Take them out of the source",
            )
        ]  # fmt: skip
    if feature is None or not manifest.classes or not feature.HasField("string_stats"):
        return []
    counts = class_counts(feature, manifest.classes)
    absent = [name for name, count in counts.items() if not count]
    if len(manifest.classes) - len(absent) < 2:
        only = ", ".join(name for name, count in counts.items() if count) or "none of the classes"
        return [
            _failed(
                gate, label, "SINGLE_CLASS", "at least two classes", only,
                f"The label `{label}` is {only} in every training row: there is nothing to learn. "
                "Check `label` in problem.yaml, the source's filter, or the split",
            )
        ]  # fmt: skip
    return [
        _failed(
            gate, label, "CLASS_WITHOUT_EXAMPLES", "examples of every class", f"none of {name}",
            f"No training row has the label {name!r}, which other splits have: the model can't predict it",
            blocking=False,
        )
        for name in absent
    ]  # fmt: skip


def schema_checks(anomalies: Iterable[Anomaly], gate: DataGate, curated: bool, columns: int) -> list[Check]:
    """Turns anomalies into checks, or says that there are none."""
    checks = []
    for anomaly in anomalies:
        blocking = anomaly.severity == "error" and not is_allowed(gate, anomaly.column, anomaly.type)
        where = "in the SERVING environment" if anomaly.environment == SERVING else f"in {anomaly.split}"
        checks.append(
            Check(
                f"schema.{anomaly.type.lower()}",
                False,
                f"as the {'curated' if curated else 'inferred'} schema says",
                anomaly.description,
                f"`{anomaly.column}` {where}: {anomaly.description.rstrip('.')}. {_remedy(anomaly, curated)}",
                blocking=blocking,
            )
        )
    if not checks:
        kind = "curated" if curated else "inferred"
        message = f"All splits agree with the {kind} schema of {columns} columns."
        checks.append(Check("schema", True, f"as the {kind} schema says", "no anomaly", message))
    return checks


def distance_checks(kind: Kind, distances: Sequence[Distance], gate: DataGate) -> list[Check]:
    """Turns distances that exceed their limit into checks, or says how large the largest is."""
    other = "eval" if kind == "skew" else "the last released run"
    checks = [
        _failed(
            gate, distance.column, kind.upper(),
            f"<= {distance.limit:g} + {distance.allowance:.2g}", f"{distance.value:.3g}",
            f"`{distance.column}` differs between training and {other}: {_MEASURES[distance.measure]} "
            f"{distance.value:.3g}{f', most in {distance.where!r}' if distance.where else ''}; allowed are "
            f"{distance.limit:g} (gates.data.max_{kind}) and {distance.allowance:.2g} for chance in "
            f"{distance.rows[0]:,} and {distance.rows[1]:,} rows",
            name=kind, value=distance.value, limit=distance.limit + distance.allowance,
        )
        for distance in distances
        if distance.exceeded
    ]  # fmt: skip
    measured = [distance for distance in distances if distance.value is not None]
    if checks or not measured:
        return checks
    largest = max(measured, key=lambda distance: (distance.value or 0.0) / (distance.limit + distance.allowance))
    message = (
        f"Training is close to {other} in {len({d.column for d in measured})} compared columns; nearest to its limit "
        f"is `{largest.column}` with a {_MEASURES[largest.measure]} of {largest.value:.3g}."
    )
    limit = largest.limit + largest.allowance
    return [Check(kind, True, f"<= {limit:.3g}", f"{largest.value:.3g}", message, largest.value, limit)]


def _failed(
    gate: DataGate,
    column: str,
    kind: str,
    expected: str,
    got: str,
    message: str,
    blocking: bool = True,
    name: str | None = None,
    value: float | None = None,
    limit: float | None = None,
) -> Check:
    if blocking:
        message += f", or let it pass with `gates.data.allow: [{column}:{kind}]`"
    blocking = blocking and not is_allowed(gate, column, kind)
    return Check(name or kind.lower(), False, expected, got, f"{message}.", value, limit, blocking=blocking)


def _remedy(anomaly: Anomaly, curated: bool) -> str:
    allow = f"`gates.data.allow: [{anomaly.column}:{anomaly.type}]` lets it pass."
    if anomaly.environment == SERVING:
        return f'Give it `not_in_environment: "{SERVING}"` in schema.pbtxt: no caller of the model knows it. Or {allow}'
    if anomaly.severity == "warning":
        return "It stops nothing."
    if curated:
        return (
            "If the data is right, `tidemill schema diff PROBLEM_DIR RUN` shows what to change and "
            f"`tidemill schema accept PROBLEM_DIR RUN` changes it; else mend the source. {allow}"
        )
    return f"Mend the source. {allow}"


def _present(feature: statistics_pb2.FeatureNameStatistics | None) -> int:
    if feature is None:
        return 0
    return int(getattr(feature, feature.WhichOneof("stats")).common_stats.num_non_missing)


def _constant(feature: statistics_pb2.FeatureNameStatistics) -> str | None:
    """Returns the only value of a column, or None if it has several."""
    if feature.HasField("string_stats"):
        values = feature.string_stats.top_values
        return repr(values[0].value) if feature.string_stats.unique == 1 and values else None
    numbers = feature.num_stats
    return f"{numbers.min:g}" if numbers.min == numbers.max else None


def _nan(feature: statistics_pb2.FeatureNameStatistics) -> int:
    return max((int(histogram.num_nan) for histogram in feature.num_stats.histograms), default=0)
