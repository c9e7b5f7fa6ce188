"""Rehearses a model: the server answers what a client will ask, before any client depends on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tidemill.artifacts import ModelManifest
from tidemill.bundle import open_bundle
from tidemill.decisions import Check, Decision
from tidemill.errors import DataError
from tidemill.files import replaced_directory, write_json
from tidemill.gates import ServingGate
from tidemill.rehearse.latency import METHOD, Latencies, measure
from tidemill.rehearse.offline import Prediction, difference, read_predictions
from tidemill.rehearse.rows import Instance, Row, is_representable, select_rows
from tidemill.rehearse.server import NotServing, RehearsalServer, rehearsal_server
from tidemill.serving.client import Answer

EVIDENCE: Final = "rehearsal.json"
SAMPLE: Final = "sample.json"
_BATCH_ROWS: Final = 32
_UNSEEN: Final = "a category that no training row had"


@dataclass(frozen=True)
class RehearsalReport:
    """What the rehearsal saw.

    Attributes:
        rows: test rows that were replayed, singly and in batches.
        max_difference: largest difference from the offline predictions; None if nothing could be compared.
        startup_s: seconds until the server was ready.
    """

    passed: bool
    rows: int
    max_difference: float | None
    p50_ms: float | None
    p99_ms: float | None
    startup_s: float | None


@dataclass
class _Findings:
    """What is gathered on the way; a model that stops to answer leaves the rest out."""

    checks: list[Check] = field(default_factory=list)
    served: list[list[Any]] = field(default_factory=list)
    max_difference: float | None = None
    latencies: Latencies | None = None
    startup_s: float | None = None
    sample: dict[str, Any] | None = None


def run(
    bundle: str | Path, examples: str | Path, model: str | Path, predictions: str | Path, rehearsal: str | Path
) -> RehearsalReport:
    """Starts the server with the model, replays raw test rows, and holds answers and latencies against the limits.

    A model that can't answer, differs from its offline predictions or is too slow fails checks; it raises nothing.

    Raises:
        DataError: if the test split has no row that a client could send.
    """
    gate = open_bundle(Path(bundle)).problem.gates.serving
    manifest = ModelManifest.read(Path(model))
    selected = select_rows(Path(examples), manifest.inputs, gate.rows)
    rows = [row for row in selected if is_representable(row.instance)]
    if not rows:
        raise DataError("examples", "no row of the test split can be written as JSON: all hold infinite numbers")
    offline = read_predictions(Path(predictions), {row.position for row in rows})
    found = _Findings()
    if len(rows) < len(selected):
        found.checks.append(_left_out(len(selected) - len(rows)))
    try:
        with rehearsal_server(Path(model)) as server:
            found.startup_s = round(server.startup_s, 3)
            _rehearse(server, manifest, gate, rows, offline, found)
        found.checks.append(_check("serves", True, "a server that answers", "one", "The server started and answered."))
    except NotServing as error:
        found.checks.append(
            _check("serves", False, "a server that answers", "none", f"The model is not served: {error}")
        )
    decision = Decision("serving", tuple(found.checks))
    timed = found.latencies
    report = RehearsalReport(
        decision.passed,
        len(rows),
        found.max_difference,
        timed.p50_ms if timed else None,
        timed.p99_ms if timed else None,
        found.startup_s,
    )
    with replaced_directory(Path(rehearsal)) as directory:
        if found.sample is not None:
            write_json(directory / SAMPLE, found.sample)
        evidence = {
            **asdict(report),
            "decision": decision.to_json(),
            "challenger": manifest.digest,
            "tolerance": gate.tolerance,
            "budget": {"p50_ms": gate.p50_ms, "p99_ms": gate.p99_ms},
            "latencies": {**asdict(timed), "method": METHOD} if timed else None,
        }
        write_json(directory / EVIDENCE, evidence)
    return report


def _rehearse(
    server: RehearsalServer,
    manifest: ModelManifest,
    gate: ServingGate,
    rows: Sequence[Row],
    offline: dict[int, Prediction],
    found: _Findings,
) -> None:
    replay = _Replay(server, manifest)
    for name, batch_rows in (("single", 1), ("batched", _BATCH_ROWS)):
        served, refusal = replay.rows(rows, batch_rows)
        message = refusal or f"All {len(rows)} rows were answered, {batch_rows} per request."
        found.checks.append(_check(f"answers.{name}", refusal is None, "200", refusal or "200", message))
        if refusal is None:
            found.served.append(served)
    _compare(manifest, gate, rows, offline, found)
    found.checks += [*_unusual(replay, rows), *_malformed(replay, rows)]
    if len(found.served) == 2:
        _time(replay, gate, rows, found)
        fullest = min(range(len(rows)), key=lambda i: rows[i].missing)
        found.sample = {
            "instance": rows[fullest].instance,
            "prediction": found.served[0][fullest],
            "tolerance": gate.tolerance,
        }


class _Replay:
    """Sends instances to the model under rehearsal."""

    def __init__(self, server: RehearsalServer, manifest: ModelManifest) -> None:
        self._server, self.manifest = server, manifest
        self._path = f"/v1/models/{manifest.name}:predict"

    def ask(self, body: Any) -> Answer:
        try:
            return self._server.client.post(self._path, body)
        except OSError as error:
            reason = f"{type(error).__name__} instead of an answer"
            raise NotServing(f"{reason}: {self._server.last_words()}") from error

    def rows(self, rows: Sequence[Row], size: int) -> tuple[list[Any], str | None]:
        """Returns the predictions of all rows, sent ``size`` at a time, or why there are none."""
        served: list[Any] = []
        for start in range(0, len(rows), size):
            sent = [row.instance for row in rows[start : start + size]]
            answer = self.ask({"instances": sent})
            if answer.status != 200:
                return [], f"Test row {rows[start].position}: status {answer.status}, {answer.error}"
            predictions = answer.value.get("predictions")
            if not isinstance(predictions, list) or len(predictions) != len(sent):
                return [], f"Test row {rows[start].position}: expected {len(sent)} predictions"
            served += predictions
        return served, None


def _compare(
    manifest: ModelManifest,
    gate: ServingGate,
    rows: Sequence[Row],
    offline: dict[int, Prediction],
    found: _Findings,
) -> None:
    lacking = [row.position for row in rows if row.position not in offline]
    if lacking:
        message = f"{len(lacking)} of {len(rows)} rows have no offline prediction; the first is test row {lacking[0]}."
        found.checks.append(_check("offline", False, "a prediction per row", f"{len(lacking)} missing", message))
    differences = [
        (difference(prediction, offline[row.position], manifest.threshold, gate.tolerance), row.position)
        for served in found.served
        for row, prediction in zip(rows, served, strict=True)
        if row.position in offline
    ]
    if not differences:
        return
    largest, position = max(differences)
    found.max_difference = largest if math.isfinite(largest) else None
    agrees = largest <= gate.tolerance
    message = (
        f"Served and offline predictions agree within {largest:.2g} in {len(differences)} answers."
        if agrees
        else f"Served and offline predictions of test row {position} differ by {largest:.2g}."
    )
    found.checks.append(
        _check(
            "difference",
            agrees,
            f"<= {gate.tolerance:g}",
            f"{largest:.2g}",
            message,
            found.max_difference,
            gate.tolerance,
        )
    )


def _unusual(replay: _Replay, rows: Sequence[Row]) -> Iterator[Check]:
    """Rows that no offline prediction exists for, and that must be answered all the same."""
    first = rows[0].instance
    strings = {name: _UNSEEN for name, dtype in replay.manifest.inputs.items() if dtype == "string"}
    cases: list[tuple[str, Instance]] = [("all_null", dict.fromkeys(first)), ("all_left_out", {})]
    if strings:
        cases.append(("unseen_category", {**first, **strings}))
    for name, instance in cases:
        answer = replay.ask({"instances": [instance]})
        answered = answer.status == 200 and _has_numbers(answer.value["predictions"][0])
        got = "a prediction" if answered else f"status {answer.status}"
        message = f"A row with {name.replace('_', ' ')} gets {got}."
        yield _check(f"unusual.{name}", answered, "a prediction", got, message)


def _malformed(replay: _Replay, rows: Sequence[Row]) -> Iterator[Check]:
    """Requests that are wrong; the answer must be 400 and name the field."""
    first = rows[0].instance
    feature, dtype = next(iter(replay.manifest.inputs.items()))
    wrong: Any = 1.5 if dtype == "string" else "text"
    cases: list[tuple[str, Any, str]] = [
        ("wrong_type", {"instances": [{**first, feature: wrong}]}, feature),
        ("unknown_field", {"instances": [{**first, "no_such_feature": 1}]}, "no_such_feature"),
        ("not_a_list", {"instances": first}, "instances"),
        ("no_instances", {}, "instances"),
    ]
    for name, body, named in cases:
        answer = replay.ask(body)
        refused = answer.status == 400 and named in answer.error
        message = f"A request with {name.replace('_', ' ')} gets status {answer.status}."
        yield _check(f"malformed.{name}", refused, f"400 that names {named}", f"status {answer.status}", message)


def _time(replay: _Replay, gate: ServingGate, rows: Sequence[Row], found: _Findings) -> None:
    def ask(i: int) -> None:
        replay.ask({"instances": [rows[i].instance]})

    def within_budget(p50_ms: float, p99_ms: float) -> bool:
        return p99_ms <= gate.p99_ms and (gate.p50_ms is None or p50_ms <= gate.p50_ms)

    found.latencies = timed = measure(ask, len(rows), within_budget)
    for name, value, limit in (("p50_ms", timed.p50_ms, gate.p50_ms), ("p99_ms", timed.p99_ms, gate.p99_ms)):
        if limit is not None:
            message = (
                f"{name[:3]} of {timed.requests} single-row requests is {value:.2f} ms; the budget is {limit:g} ms."
            )
            found.checks.append(_check(name, value <= limit, f"<= {limit:g}", f"{value:.2f}", message, value, limit))


def _left_out(count: int) -> Check:
    message = f"{count} rows hold infinite numbers, which JSON has not: they were not replayed."
    return Check("representable", False, "numbers that JSON can hold", f"{count} rows", message, blocking=False)


def _check(
    name: str,
    passed: bool,
    expected: str,
    got: str,
    message: str,
    value: float | None = None,
    limit: float | None = None,
) -> Check:
    return Check(name, passed, expected, got, message, value, limit)


def _has_numbers(prediction: Any) -> bool:
    if isinstance(prediction, dict):
        return all(_has_numbers(value) for value in prediction.values())
    if isinstance(prediction, list):
        return all(_has_numbers(value) for value in prediction)
    return prediction is not None  # the server gives null for a number that isn't finite
