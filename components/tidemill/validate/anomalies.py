"""TFDV's anomalies against the schema, and what each of them means for the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from tidemill.problem import Problem
from tidemill.validate.schema import SERVING, TRAINING

Type = anomalies_pb2.AnomalyInfo.Type
DATASET = "dataset"
"""Stands for the column of what concerns the dataset as a whole."""
_MISSING_COLUMN = {"SCHEMA_MISSING_COLUMN", "FEATURE_TYPE_NOT_PRESENT"}
# A schema that was inferred from this very training split is no promise of anybody: that a smaller split has a
# value or a gap that training had not is chance, and what is more than chance shows as skew.
_CHANCE = {
    "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
    "FEATURE_TYPE_LOW_FRACTION_PRESENT",
    "FEATURE_TYPE_LOW_NUMBER_PRESENT",
    "FEATURE_TYPE_NOT_PRESENT",
    "SCHEMA_MISSING_COLUMN",
}


@dataclass(frozen=True)
class Anomaly:
    """One departure of a split from the schema.

    Attributes:
        column: the column, or ``dataset`` when the whole is meant.
        type: TFDV's name for it, such as ``ENUM_TYPE_UNEXPECTED_STRING_VALUES``.
        split: train, eval or test.
        environment: TRAINING or SERVING.
        severity: ``error`` blocks, ``warning`` is shown.
        description: TFDV's sentence.
    """

    column: str
    type: str
    split: str
    environment: str
    severity: str
    description: str


def find(
    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList],
    schema: schema_pb2.Schema,
    problem: Problem,
    curated: bool,
) -> list[Anomaly]:
    """Holds every split that has rows against the schema, in both environments.

    In SERVING the training split is validated with only the columns that the model reads, so that a schema which
    demands more of a caller than that is found before anybody calls. There only missing columns count.

    Args:
        statistics: by split, one dataset each.
        schema: the curated or the inferred schema.
        problem: for what the model reads.
        curated: whether the schema is curated; then it is a contract, and departures of any split are errors.
    """
    anomalies = []
    for split, whole in statistics.items():
        if whole.datasets[0].num_examples:
            anomalies += _validate(whole, schema, split, TRAINING, problem, curated)
    train = statistics["train"]
    if train.datasets[0].num_examples:
        given = statistics_pb2.DatasetFeatureStatisticsList()
        given.CopyFrom(train)
        kept = [f for f in train.datasets[0].features if f.path.step[0] in problem.raw_columns]
        del given.datasets[0].features[:]
        given.datasets[0].features.extend(kept)
        known = {(anomaly.column, anomaly.type) for anomaly in anomalies}
        anomalies += [
            anomaly
            for anomaly in _validate(given, schema, "train", SERVING, problem, curated)
            if anomaly.type in _MISSING_COLUMN and (anomaly.column, anomaly.type) not in known
        ]
    return sorted(anomalies, key=lambda a: (a.severity, a.split != "train", a.split, a.column, a.type))


def _validate(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    schema: schema_pb2.Schema,
    split: str,
    environment: str,
    problem: Problem,
    curated: bool,
) -> list[Anomaly]:
    # Comparators would report that nothing was given to compare with; distances.py reads and applies them.
    plain = schema_pb2.Schema()
    plain.CopyFrom(schema)
    for feature in plain.feature:
        feature.ClearField("skew_comparator")
        feature.ClearField("drift_comparator")
    found = tfdv.validate_statistics(statistics, plain, environment)
    infos = [(".".join(info.path.step) or name, info) for name, info in found.anomaly_info.items()]
    if found.HasField("dataset_anomaly_info"):
        infos.append((DATASET, found.dataset_anomaly_info))
    return [
        Anomaly(
            column,
            Type.Name(reason.type),
            split,
            environment,
            _severity(column, Type.Name(reason.type), info, split, problem, curated),
            " ".join(reason.description.split()),
        )
        for column, info in infos
        for reason in info.reason
    ]


def _severity(
    column: str, kind: str, info: anomalies_pb2.AnomalyInfo, split: str, problem: Problem, curated: bool
) -> str:
    if info.severity == anomalies_pb2.AnomalyInfo.WARNING:
        return "warning"
    if kind == "SCHEMA_NEW_COLUMN" and column not in {*problem.raw_columns, problem.label.output}:
        return "warning"  # nothing reads it
    if not curated and split != "train" and kind in _CHANCE:
        return "warning"
    return "error"
