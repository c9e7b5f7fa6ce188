"""Runs one stage on a few loans, inside the image that its component names: ``stages.py WORK STAGE``.

``WORK/problem`` is the problem; everything else below WORK is written here, by one stage for the next.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WORK = Path(sys.argv[1])
ROWS = 2000
# What the gates decide is not what an image is tried for.
QUICK = {"gates": "{data: {min_rows: 100}, serving: {rows: 16, p99_ms: 10000}}", "training.max_epochs": "1"}
QUICK["compression"] = "{variants: {mobile: {kind: litert, quantization: int8}, edge: {kind: onnx}}}"

QUICK |= {"tuning.budget": "{trials: 2}", "tuning.cross_validation": "{folds: 2}"}


def bundle(view: str) -> Path:
    return next((WORK / "bundles" / view).glob("*.zip"))


def prepare() -> Any:
    from tidemill.bundle import VIEWS, pack
    from tidemill.problem import load_problem
    from tidemill.synthetic.lending import main as invent

    problem = load_problem(WORK / "problem", QUICK)
    for view in VIEWS:
        pack(problem, WORK / "problem", WORK / "bundles" / view, view)
    return invent(["--rows", str(ROWS), "--output", str(WORK / "loans.csv")])


def find_champion() -> Any:
    from tidemill.register.run import find_champion

    return find_champion(bundle("whole"), WORK / "registry", WORK / "champion", WORK / "reference")


def locate() -> Any:
    from tidemill.ingest.location import run

    return run(str(WORK / "loans.csv"), "", "", WORK / "located", WORK / "fingerprint")


def ingest() -> Any:
    from tidemill.ingest.fingerprint import fingerprint
    from tidemill.ingest.run import run

    source = str(WORK / "loans.csv")
    return run(bundle("data"), source, fingerprint(source), WORK / "examples")


def validate() -> Any:
    from tidemill.validate.run import run

    paths = (WORK / name for name in ("reference", "statistics", "schema", "anomalies"))
    return run(bundle("data"), WORK / "examples", *paths)


def gate() -> Any:
    from tidemill.gate.run import run

    return [run(WORK / evidence) for evidence in ("anomalies", "blessing", "rehearsal", "compression")]


def transform() -> Any:
    from tidemill.transform.run import run

    paths = (WORK / name for name in ("schema", "transform_graph", "transformed"))
    return run(bundle("features"), WORK / "examples", *paths)


def train() -> Any:
    from tidemill.train.run import run

    paths = (WORK / name for name in ("transformed", "transform_graph", "model", "history", "checkpoints"))
    return run(bundle("model"), *paths)


def fold() -> Any:
    from tidemill.tune.folds import run

    return run(bundle("whole"), *(WORK / name for name in ("examples", "transformed", "folds")))


def suggest() -> Any:
    from tidemill.tune.run import suggest

    report = suggest(bundle("whole"), None, [], WORK / "study", WORK / "continued")
    (WORK / "items.json").write_text(json.dumps(report.items))
    return report


def trial() -> Any:
    from tidemill.tune.trial import run

    inputs = [WORK / name for name in ("transformed", "transform_graph")]
    places = {name: WORK / name for name in ("examples", "folds")}
    reports = []
    for i, item in enumerate(json.loads((WORK / "items.json").read_text())):
        outputs = (WORK / "results" / str(i), WORK / "trials" / str(i))
        reports.append(run(bundle("model"), *inputs, item, *outputs, **places))
    return reports


def conclude() -> Any:
    from tidemill.tune.run import conclude

    results = sorted((WORK / "results").iterdir())
    return conclude(bundle("whole"), WORK / "study", results, WORK / "hyperparameters", WORK / "tuning")


def compress() -> Any:
    from tidemill.compress.run import run

    inputs = ("examples", "transformed", "transform_graph", "model", "champion")
    outputs = ("compressed", "compression", "released", "compress_checkpoints")
    return run(bundle("whole"), *(WORK / name for name in (*inputs, *outputs)))


def evaluate() -> Any:
    from tidemill.evaluate.run import run

    paths = (WORK / name for name in ("examples", "model", "champion", "evaluation", "blessing", "predictions"))
    return run(bundle("whole"), *paths)


def rehearse() -> Any:
    from tidemill.rehearse.run import run

    paths = (WORK / name for name in ("examples", "model", "predictions", "rehearsal"))
    return run(bundle("whole"), *paths)


def register() -> Any:
    from tidemill.register.run import run
    from tidemill.stage import Origin

    names = ("examples", "statistics", "schema", "model", "blessing", "rehearsal", "evaluation", "registry")
    made = Origin(os.environ["TIDEMILL_LOCK_SHA256"], os.environ["TIDEMILL_GIT_COMMIT"])
    return run(bundle("whole"), *(WORK / name for name in names), "smoke", WORK / "registered", made)


def deploy() -> Any:
    from tidemill.deploy.run import run

    return run(WORK / "registered", WORK / "registry", WORK / "endpoints", WORK / "deployment")


def report() -> Any:
    from tidemill.report.run import run
    from tidemill.runs import RunRecord

    now = datetime.now(UTC).isoformat()
    run_dir = WORK / "runs" / "smoke"
    record = RunRecord(
        id="smoke",
        problem="lending",
        pipeline="training",
        verdict="completed",
        started=now,
        ended=now,
        source=str(WORK / "loans.csv"),
        source_fingerprint="",
        bundle=bundle("whole").stem,
        stages=(),
        environment={},
        parameters={},
    )
    record.write(run_dir)
    return run(run_dir, WORK / "page.html")


STAGES: tuple[Callable[[], Any], ...] = (
    *(prepare, find_champion, locate, ingest, validate, transform, fold, suggest, trial, conclude),
    *(train, compress, evaluate, rehearse, gate),
    *(register, deploy, report),
)

if __name__ == "__main__":
    done = next(stage for stage in STAGES if stage.__name__ == sys.argv[2])()
    print(json.dumps(dataclasses.asdict(done) if dataclasses.is_dataclass(done) else str(done), default=str))
    sys.stdout.flush()
    os._exit(0)  # the server that `deploy` left ends with its container
