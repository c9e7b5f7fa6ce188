"""The schema that data is held against: inferred from the training split, or curated and kept with the problem."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from tidemill.errors import DataError
from tidemill.problem import Problem
from tidemill.validate.columns import Role, known_only_in_training, roles

TRAINING = "TRAINING"
SERVING = "SERVING"
MAX_DOMAIN = 100
"""Columns with more distinct values than this get no closed set of them."""

TYPES = {"int64": schema_pb2.INT, "float64": schema_pb2.FLOAT, "string": schema_pb2.BYTES}


def infer(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, problem: Problem, columns: Mapping[str, str]
) -> schema_pb2.Schema:
    """Infers a schema from the statistics of a training split.

    TFDV infers types and presence (a column that was never missing must not be from then on). A closed set of
    values is kept only for what the problem calls categorical, and for the label; elsewhere a new value is no
    anomaly. Numbers that the model reads must be finite; bounds are not inferred, since the extremes of a sample
    say little about the next.

    Two environments: TRAINING has every column, SERVING only what the model reads.
    """
    schema = tfdv.infer_schema(statistics, infer_feature_shape=False, max_string_domain_size=MAX_DOMAIN)
    role = roles(problem, columns)
    names = [feature.name for feature in schema.feature]
    for name in [column for column in columns if column not in names]:
        schema.feature.add(name=name)
    for feature in schema.feature:
        # A column without any value has no type in the statistics; the manifest knows it.
        feature.type = TYPES[columns[feature.name]]
        if feature.WhichOneof("shape_type") is None:
            feature.value_count.min = feature.value_count.max = 1
        _infer_domain(schema, feature, role[feature.name])
    del schema.string_domain[:]
    ordered = sorted(schema.feature, key=lambda feature: list(columns).index(feature.name))
    del schema.feature[:]
    schema.feature.extend(ordered)
    set_environments(schema, problem)
    return schema


def _infer_domain(schema: schema_pb2.Schema, feature: schema_pb2.Feature, role: Role) -> None:
    # TFDV keeps sets of values beside the columns; a column that holds its own is easier to read and to edit.
    values = domain_values(schema, feature)
    if (domain := feature.WhichOneof("domain_info")) is not None:
        feature.ClearField(domain)
    if role == "category" and feature.type == schema_pb2.INT:
        feature.int_domain.is_categorical = True
    elif role == "category" and values is not None:
        feature.string_domain.value.extend(values)
    elif role == "quantity" and feature.type == schema_pb2.FLOAT:
        feature.float_domain.disallow_inf = True


def set_environments(schema: schema_pb2.Schema, problem: Problem) -> None:
    """Declares TRAINING and SERVING, and takes out of SERVING what the model doesn't read."""
    for environment in (TRAINING, SERVING):
        if environment not in schema.default_environment:
            schema.default_environment.append(environment)
    read = set(problem.raw_columns) - known_only_in_training(problem)
    for feature in schema.feature:
        if feature.name not in read and SERVING not in [*feature.not_in_environment, *feature.in_environment]:
            feature.not_in_environment.append(SERVING)


def read_curated(path: Path) -> schema_pb2.Schema:
    """Reads a curated schema.

    Raises:
        DataError: if it isn't the text form of TensorFlow Metadata's Schema.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise DataError(
            path.name,
            "is not a schema in text form",
            str(error),
            "correct it, or remove it and accept an inferred one with `tidemill schema accept`",
        ) from error


def to_text(schema: schema_pb2.Schema) -> str:
    """Returns the text form of a schema."""
    return str(text_format.MessageToString(schema, as_utf8=True))


def domain_values(schema: schema_pb2.Schema, feature: schema_pb2.Feature) -> list[str] | None:
    """Returns the closed set of values of a string column, or None if it has none."""
    if feature.HasField("string_domain"):
        return list(feature.string_domain.value)
    if feature.HasField("domain"):
        return next((list(domain.value) for domain in schema.string_domain if domain.name == feature.domain), None)
    return None
