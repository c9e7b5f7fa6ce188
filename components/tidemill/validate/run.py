"""Validates examples: statistics, schema, anomalies, skew and drift, and the data gate's decision on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill.artifacts import ExamplesManifest
from tidemill.bundle import Bundle, open_bundle
from tidemill.decisions import Decision
from tidemill.files import replaced_directory, write_json, write_text
from tidemill.validate.anomalies import Anomaly, find
from tidemill.validate.cells import file_name
from tidemill.validate.checks import column_checks, distance_checks, row_checks, schema_checks
from tidemill.validate.columns import Role, images, roles
from tidemill.validate.distances import Distance, compare
from tidemill.validate.schema import infer, read_curated, set_environments, to_text
from tidemill.validate.statistics import Description, Statistics, describe, read_statistics
from tidemill.validate.summary import summarise

SUMMARY = "summary.json"
STATISTICS = "stats.pb"
SCHEMA = "schema.pbtxt"
ANOMALIES = "anomalies.json"


@dataclass(frozen=True)
class ValidationReport:
    """What validation came to.

    Attributes:
        passed: whether the data gate lets the run go on.
        rows: rows by split.
        columns: how many columns were described.
        slices: how many sensitive slices the training split has.
        schema: ``curated`` or ``inferred``.
        compared: whether there was a released run to measure drift from.
        refusals: sentences of the checks that stop the run.
        warnings: sentences of those that don't.
    """

    passed: bool
    rows: dict[str, int]
    columns: int
    slices: int
    schema: str
    compared: bool
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]


def run(
    bundle: str | Path,
    examples: str | Path,
    reference: str | Path,
    statistics: str | Path,
    schema: str | Path,
    anomalies: str | Path,
) -> ValidationReport:
    """Validates examples. What is found to be wrong is written, not raised: the gate after this stage refuses.

    Args:
        bundle: the packed problem.
        examples: the examples artefact.
        reference: statistics artefact of the last released run, or an empty directory.
        statistics: written: ``<split>/stats.pb``, ``<split>/slices/*.pb``, ``summary.json``.
        schema: written: ``schema.pbtxt``, the schema that was used.
        anomalies: written: ``anomalies.json`` with the decision, anomalies, skew and drift.

    Raises:
        DataError: if the curated schema can't be read.
        PlatformError: if the examples can't be read or don't agree with their manifest.
    """
    unpacked = open_bundle(Path(bundle))
    problem = unpacked.problem
    manifest = ExamplesManifest.read(Path(examples))
    role = roles(problem, manifest.columns)
    by_value = [c for c, kind in manifest.columns.items() if role[c] == "category" and kind == "int64"]
    description = describe(
        Path(examples), manifest.rows, manifest.columns, problem.sensitive, by_value, images(problem)
    )
    held = _schema(unpacked, description, manifest)
    curated = unpacked.schema is not None
    found = find({name: split.whole for name, split in description.splits.items()}, held, problem, curated)
    skew, drift = _distances(description, unpacked, role, held, Path(reference))
    gate = problem.gates.data
    checks = [
        *row_checks(manifest, gate),
        *column_checks(description.splits["train"].whole, manifest, problem),
        *schema_checks(found, gate, curated, len(held.feature)),
        *distance_checks("skew", skew, gate),
        *distance_checks("drift", drift, gate),
    ]
    decision = Decision("data", tuple(checks))
    source = "curated" if curated else "inferred"
    _write_statistics(
        Path(statistics),
        description,
        summarise(description, problem, manifest.columns, role, manifest.classes, source),
    )
    with replaced_directory(Path(schema)) as directory:
        write_text(directory / SCHEMA, to_text(held))
    _write_anomalies(Path(anomalies), decision, found, skew, drift)
    return ValidationReport(
        passed=decision.passed,
        rows=dict(manifest.rows),
        columns=len(manifest.columns),
        slices=len(description.splits["train"].slices),
        schema=source,
        compared=bool(drift),
        refusals=tuple(check.message for check in decision.refusals),
        warnings=tuple(check.message for check in decision.warnings),
    )


def _schema(bundle: Bundle, description: Description, manifest: ExamplesManifest) -> schema_pb2.Schema:
    if bundle.schema is None:
        return infer(description.splits["train"].whole, bundle.problem, manifest.columns)
    curated = read_curated(bundle.schema)
    if not curated.default_environment:  # written by hand: nothing says yet what callers give
        set_environments(curated, bundle.problem)
    return curated


def _distances(
    description: Description, bundle: Bundle, role: dict[str, Role], held: schema_pb2.Schema, reference: Path
) -> tuple[list[Distance], list[Distance]]:
    """Returns skew (training against eval) and drift (training against the last released run's training)."""
    problem = bundle.problem
    gate = problem.gates.data
    read = frozenset({*problem.raw_columns, problem.label.output})
    train, evaluation = (description.splits[split].whole for split in ("train", "eval"))
    skew: list[Distance] = []
    drift: list[Distance] = []
    if train.datasets[0].num_examples and evaluation.datasets[0].num_examples:
        skew = compare("skew", train, evaluation, role, read, gate.max_skew, held)
    released = reference / "train" / STATISTICS
    if train.datasets[0].num_examples and released.is_file():
        drift = compare("drift", train, read_statistics(released), role, read, gate.max_drift, held)
    return skew, drift


def _write_statistics(destination: Path, description: Description, summary: dict[str, object]) -> None:
    with replaced_directory(destination) as directory:
        for split, statistics in description.splits.items():
            (directory / split / "slices").mkdir(parents=True)
            (directory / split / STATISTICS).write_bytes(_bytes(statistics.whole))
            for key, sliced in statistics.slices.items():
                (directory / split / "slices" / f"{file_name(key)}.pb").write_bytes(_bytes(sliced))
        write_json(directory / SUMMARY, summary)


def _bytes(statistics: Statistics) -> bytes:
    return bytes(statistics.SerializeToString(deterministic=True))


def _write_anomalies(
    destination: Path,
    decision: Decision,
    found: Sequence[Anomaly],
    skew: Sequence[Distance],
    drift: Sequence[Distance],
) -> None:
    with replaced_directory(destination) as directory:
        write_json(
            directory / ANOMALIES,
            {
                "decision": decision.to_json(),
                "anomalies": [asdict(anomaly) for anomaly in found],
                "skew": [{**asdict(distance), "exceeded": distance.exceeded} for distance in skew],
                "drift": [{**asdict(distance), "exceeded": distance.exceeded} for distance in drift],
            },
        )
