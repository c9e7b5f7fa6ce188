"""One trial of a tuning that Vertex AI conducts: ``python3 -m tidemill.tune.managed … --<path>=<JSON>``.

Vertex AI appends what the trial tries to the arguments, says its number in CLOUD_ML_TRIAL_ID, and takes the objective
from the file that CLOUD_ML_HP_METRIC_FILE names: a line of JSON per measurement, as its library cloudml-hypertune
writes it. A trial that ends without one counts as infeasible, and the next is suggested.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tidemill.errors import PlatformError, UsageError
from tidemill.stage import Stage

TRIAL_VARIABLE: Final = "CLOUD_ML_TRIAL_ID"
METRIC_VARIABLE: Final = "CLOUD_ML_HP_METRIC_FILE"


def main(arguments: Sequence[str] | None = None) -> None:
    given, further = _parser().parse_known_args(arguments)
    number = os.environ.get(TRIAL_VARIABLE, "")
    with Stage("trial", given.trials / f"{number or 'unknown'}.json") as stage:
        from tidemill.tune.trial import run

        stage.begin()
        if not number.isdecimal() or not (metrics := os.environ.get(METRIC_VARIABLE)):
            expected = f"needs {TRIAL_VARIABLE} and {METRIC_VARIABLE}, which Vertex AI sets"
            raise PlatformError("trial", expected, repr({TRIAL_VARIABLE: number}))
        order = {
            "number": int(number),
            "rung": 0,
            "resumed": False,
            "epochs": None,
            "hyperparameters": hyperparameters(further),
        }
        report = run(
            given.bundle,
            given.transformed,
            given.transform_graph,
            json.dumps(order),
            given.trials / number,
            given.trials / f"{number}.scratch",
            folds=given.folds,
        )
        stage.report(report)
        value = report.result.metrics.get(given.objective) if report.result else None
        if value is not None and math.isfinite(value) and report.result is not None:
            _measured(Path(metrics), number, given.objective, value, report.result.epochs)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # tearing TensorFlow down takes a second and does nothing for anyone


def hyperparameters(words: Sequence[str]) -> Mapping[str, Any]:
    """Returns the values by path of ``--optimizer.kind="lion"`` and the like.

    Raises:
        UsageError: naming a word that isn't of that form.
    """
    found = {}
    for word in words:
        path, equals, value = word.removeprefix("--").partition("=")
        try:
            if not word.startswith("--") or not equals:
                raise ValueError("has no value")
            found[path] = json.loads(value)
        except ValueError as error:
            raise UsageError(word, "must be --<path>=<JSON>", str(error)) from error
    return found


def _measured(path: Path, trial: str, objective: str, value: float, epochs: int) -> None:
    line = {"timestamp": time.time(), "trial": trial, objective: str(value), "global_step": str(epochs)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(line, sort_keys=True) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tidemill.tune.managed", description=__doc__, allow_abbrev=False)
    for name, told in {
        "bundle": "the problem",
        "transformed": "as transform put out",
        "transform-graph": "as transform put out",
        "trials": "directory for what the trials come to",
    }.items():
        parser.add_argument(f"--{name}", required=True, type=Path, help=told)
    parser.add_argument("--objective", required=True, help="the metric of the eval split that counts")
    parser.add_argument("--folds", type=Path, help="as fold put out, where trials are cross-validated")
    return parser


if __name__ == "__main__":
    main()
