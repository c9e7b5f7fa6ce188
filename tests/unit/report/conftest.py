"""Builds run directories as the stages leave them: real layouts and plausible numbers, without running any stage."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tidemill.files import write_json
from tidemill.runs import Artifact, RunRecord, TaskRecord

STAGES = (
    "find-champion",
    "ingest",
    "validate",
    "data-gate",
    "transform",
    "train",
    "evaluate",
    "model-gate",
    "rehearse",
    "serving-gate",
    "register",
    "deploy",
    "report",
)
ENVIRONMENTS = {"validate": "validation", "rehearse": "serving", "deploy": "serving"}
_SECONDS = {
    "find-champion": (0.4, 0.3),
    "ingest": (6.1, 4.4),
    "validate": (8.9, 6.0),
    "data-gate": (0.3, 0.3),
    "transform": (11.2, 5.1),
    "train": (21.4, 5.3),
    "evaluate": (9.8, 5.6),
    "model-gate": (0.3, 0.3),
    "rehearse": (8.7, 4.8),
    "serving-gate": (0.3, 0.3),
    "register": (0.8, 0.4),
    "deploy": (6.9, 0.5),
}


def digest(seed: object) -> str:
    """Returns 64 hex digits that look like a sha256."""
    return f"{random.Random(str(seed)).getrandbits(256):064x}"


def check(name: str, passed: bool, expected: str, got: str, message: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "passed": passed,
        "expected": expected,
        "got": got,
        "message": message,
        "value": None,
        "limit": None,
        "slice": {},
        "blocking": True,
        **more,
    }


def decision(gate: str, checks: list[dict[str, Any]]) -> dict[str, Any]:
    passed = all(c["passed"] or not c["blocking"] for c in checks)
    return {"gate": gate, "passed": passed, "checks": checks}


class RunBuilder:
    """A run directory in the making; artefacts lie beside it, as they do below a runs directory."""

    def __init__(self, root: Path) -> None:
        self.run_dir = root / "runs" / "lending-20250301-101500"
        self.artifacts = root / "artifacts"
        self.clock = 0.0
        self.run_dir.mkdir(parents=True)

    def run(self, verdict: str = "running", **more: Any) -> RunBuilder:
        RunRecord(
            **{
                "id": self.run_dir.name,
                "problem": "lending",
                "pipeline": "training",
                "verdict": verdict,
                "started": "2025-03-01T10:15:00+00:00",
                "source": "data/lending.csv",
                "source_fingerprint": digest("source"),
                "bundle": digest("bundle"),
                "stages": STAGES,
                "environment": {
                    "git_commit": "3f9c2d1e8b7a60514233445566778899aabbccdd",
                    "lock": digest("lock"),
                    "tidemill": "0.1.0",
                    "machine": "Linux x86_64, 2 cores, 24 GiB",
                },
                "parameters": {"beam_runner": "direct", "training.max_epochs": 12},
                **more,
            }
        ).write(self.run_dir)
        return self

    def task(
        self,
        name: str,
        outputs: Mapping[str, Mapping[str, Any]] | None = None,
        status: str = "succeeded",
        exit_code: int | None = 0,
        **more: Any,
    ) -> RunBuilder:
        """Adds a task. ``outputs``: by artefact the JSON documents (or text) by file name."""
        stored = {}
        for artefact, files in (outputs or {}).items():
            directory = self.artifacts / name / artefact
            directory.mkdir(parents=True, exist_ok=True)
            for file, value in files.items():
                if isinstance(value, str):
                    (directory / file).write_text(value, encoding="utf-8")
                else:
                    write_json(directory / file, value)
            stored[artefact] = Artifact(str(directory), digest((name, artefact)))
        wall, imports = _SECONDS.get(name, (1.0, 0.5))
        if status == "cached":
            wall, imports = 0.05, 0.0
        record = {
            "name": name,
            "environment": ENVIRONMENTS.get(name, "control" if wall < 1 else "tensorflow"),
            "status": status,
            "started": f"2025-03-01T10:{15 + int(self.clock // 60):02d}:{self.clock % 60:06.3f}+00:00",
            "wall_s": wall,
            "import_s": imports,
            "cpu_s": wall * 1.3,
            "peak_rss_mb": 180 + wall * 60,
            "exit_code": exit_code,
            "cache_key": digest((name, "key")),
            "outputs": stored,
            **more,
        }
        TaskRecord(**record).write(self.run_dir)
        self.clock += wall
        return self

    def pipeline(self, text: str) -> RunBuilder:
        (self.run_dir / "pipeline.yaml").write_text(text, encoding="utf-8")
        return self


NUMERIC = ("age", "income", "loan_amount", "debt_ratio", "months_employed", "open_accounts")
CATEGORICAL = ("purpose", "region", "employer", "housing")
SPLITS = {"train": 40_013, "eval": 4_961, "test": 5_026}


def examples() -> dict[str, Any]:
    return {
        "rows": SPLITS,
        "columns": {**dict.fromkeys(NUMERIC, "float64"), **dict.fromkeys(CATEGORICAL, "string")},
        "classes": ["repaid", "defaulted"],
        "files": {
            f"{s}/part-00000.parquet": {"rows": n, "bytes": n * 61, "sha256": digest(s)} for s, n in SPLITS.items()
        },
        "source": {"uri": "data/lending.csv", "fingerprint": digest("source"), "rows": 50_012},
        "duplicates": 31,
        "quarantined": 12,
    }


def epochs(n: int = 12) -> list[dict[str, Any]]:
    return [
        {
            "epoch": i,
            "step": 157 * i,
            "learning_rate": 1e-3,
            "seconds": 1.2,
            "examples_per_second": 33_000.0,
            "train": {"loss": 0.31 + 0.30 * math.exp(-i / 2.5), "auc": 0.885 - 0.2 * math.exp(-i / 2)},
            "eval": {
                "loss": 0.335 + 0.25 * math.exp(-i / 2.2) + 0.0006 * i * i,
                "auc": 0.872 - 0.16 * math.exp(-i / 2),
            },
        }
        for i in range(1, n + 1)
    ]


def history() -> dict[str, Any]:
    return {
        "task": "binary_classification",
        "model": "wide_and_deep",
        "epochs": epochs(),
        "steps": 1884,
        "best_epoch": 9,
        "steps_per_epoch": 157,
        "stopped": "early_stopping",
    }


def _numeric(shift: float) -> dict[str, Any]:
    heights = [math.exp(-((i - 8 - shift) ** 2) / 18) for i in range(20)]
    total = sum(heights)
    return {
        "type": "float64",
        "count": 39_000,
        "missing": 0.0251 + shift / 100,
        "mean": 41.37 + shift,
        "std": 12.91,
        "min": 18.0,
        "median": 40.5,
        "max": 79.0,
        "histogram": [
            {"low": 18 + 3.05 * i, "high": 21.05 + 3.05 * i, "count": 39_000 * h / total} for i, h in enumerate(heights)
        ],
    }


def _categorical(shift: float) -> dict[str, Any]:
    values = ("debt consolidation", "home improvement", "car", "education", "wedding", "other")
    return {
        "type": "string",
        "count": 40_000,
        "missing": 0.0,
        "unique": 6,
        "top_values": [{"value": v, "count": 16_000 / (i + 1) * (1 + shift)} for i, v in enumerate(values)],
    }


def statistics(names: tuple[tuple[str, ...], tuple[str, ...]] = (NUMERIC, CATEGORICAL)) -> dict[str, Any]:
    return {
        "splits": {
            split: {
                "rows": rows,
                "features": {
                    **{n: _numeric(i * shift) for i, n in enumerate(names[0])},
                    **{n: _categorical(i * shift / 8) for i, n in enumerate(names[1])},
                },
            }
            for (split, rows), shift in zip(SPLITS.items(), (0.0, 0.5, 0.3), strict=True)
        },
        "slices": [
            {"slice": {"sex": "female"}, "rows": 19_877, "label_rate": 0.184},
            {"slice": {"sex": "male"}, "rows": 20_136, "label_rate": 0.143},
            {"slice": {"sex": "female", "origin": "C"}, "rows": 211, "label_rate": 0.262},
        ],
    }


def anomalies(refused: bool = False) -> dict[str, Any]:
    found = [
        {
            "column": "purpose",
            "type": "UNEXPECTED_CATEGORY",
            "blocking": refused,
            "message": "Values that the schema does not know: 'holiday' (0.4 % of rows).",
        },
    ]
    checks = [
        check("min_rows", True, ">= 100", "50000", "50,000 rows are enough", value=50000, limit=100),
        check("max_quarantined", True, "<= 0.01", "0.00024", "few rows were unreadable", value=0.00024, limit=0.01),
        check(
            "schema.unexpected_category",
            not refused,
            "values of the schema",
            "'holiday'",
            "purpose: values that the schema does not know: 'holiday' (0.4 % of rows).",
        ),
        check("skew.income", True, "<= 0.2", "0.031", "income is distributed alike", value=0.031, limit=0.2),
    ]
    return {
        "decision": decision("data", checks),
        "anomalies": found,
        "skew": [
            {"column": c, "value": 0.031 / (i + 1), "limit": 0.2, "measure": "jensen_shannon"}
            for i, c in enumerate((*NUMERIC, *CATEGORICAL))
        ],
        "drift": [{"column": "income", "value": 0.012, "limit": 0.3, "measure": "jensen_shannon"}],
    }


def estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def slices() -> list[dict[str, Any]]:
    dice = random.Random(7)
    keys: list[tuple[dict[str, str], int]] = [({"sex": s}, n) for s, n in (("female", 2491), ("male", 2535))]
    keys += [({"origin": o}, n) for o, n in (("A", 3310), ("B", 1622), ("C", 94))]
    keys += [
        ({"origin": o, "sex": s}, n // 2) for o, n in (("A", 3310), ("B", 1622), ("C", 94)) for s in ("female", "male")
    ]
    return [
        {
            "slice": key,
            "count": n,
            "values": {
                name: estimate(base - 0.02 + 0.05 * dice.random() - (0.06 if n < 100 else 0), 1.1 / math.sqrt(n))
                for name, base in (("auc", 0.86), ("accuracy", 0.87), ("recall", 0.55))
            },
        }
        for key, n in keys
    ]


def evaluation(refused: bool = False) -> dict[str, Any]:
    whole = {
        "auc": estimate(0.8712, 0.0113),
        "pr_auc": estimate(0.6133, 0.027),
        "accuracy": estimate(0.8801, 0.009),
        "precision": estimate(0.691, 0.031),
        "recall": estimate(0.5532, 0.033),
        "f1": estimate(0.6144, 0.03),
        "log_loss": estimate(0.2893, 0.0121),
        "calibration": estimate(1.0123, 0.031),
        "mean_label": estimate(0.1629, 0.01),
    }
    xs = [i / 60 for i in range(61)]
    return {
        "metrics": [{"slice": {}, "count": SPLITS["test"], "values": whole}, *slices()],
        "fairness": [
            {
                "metric": "equal_opportunity_gap",
                "over": ["sex"],
                "value": 0.0714 if not refused else 0.1533,
                "groups": [
                    {"slice": {"sex": "female"}, "count": 2491, **estimate(0.5911, 0.044)},
                    {"slice": {"sex": "male"}, "count": 2535, **estimate(0.5197, 0.048)},
                ],
            },
            {
                "metric": "demographic_parity_ratio",
                "over": ["sex"],
                "value": 0.871,
                "groups": [
                    {"slice": {"sex": "female"}, "count": 2491, **estimate(0.1391, 0.014)},
                    {"slice": {"sex": "male"}, "count": 2535, **estimate(0.1212, 0.013)},
                ],
            },
        ],
        "calibration": [
            {
                "low": i / 10,
                "high": (i + 1) / 10,
                "count": 2400 / (i + 1) ** 1.4,
                "mean_prediction": i / 10 + 0.05,
                "mean_label": min(max(i / 10 + 0.05 + 0.02 * math.sin(i), 0), 1),
            }
            for i in range(10)
        ],
        "roc": [[x, x**0.16 if x else 0.0] for x in xs],
        "pr": [[x, 1 - 0.84 * x**2.2] for x in xs],
        "confusion": {"labels": ["repaid", "defaulted"], "counts": [[4005, 203], [366, 452]]},
        "baseline": {"accuracy": 0.8371, "auc": 0.5, "log_loss": 0.4444},
        "champion": {"accuracy": 0.8766, "auc": 0.8655, "log_loss": 0.2951},
    }


def blessing(refused: bool = False) -> dict[str, Any]:
    checks = [
        check("auc", True, ">= 0.85", "0.871 [0.860, 0.882]", "auc is at least 0.85", value=0.8712, limit=0.85),
        check(
            "auc",
            True,
            ">= 0.75",
            "0.868",
            "auc is at least 0.75 for sex=female",
            value=0.868,
            limit=0.75,
            slice={"sex": "female"},
        ),
        check(
            "auc",
            not refused,
            ">= 0.75",
            "0.741 [0.62, 0.85]",
            "auc is below its limit for origin=C",
            value=0.741,
            limit=0.75,
            slice={"origin": "C"},
        ),
        check(
            "equal_opportunity_gap",
            not refused,
            "<= 0.1",
            "0.153" if refused else "0.0714",
            "the true positive rate differs between sexes by this much",
            value=0.1533 if refused else 0.0714,
            limit=0.1,
        ),
        check(
            "demographic_parity_ratio",
            True,
            ">= 0.8",
            "0.871",
            "rates of positive answers are alike",
            value=0.871,
            limit=0.8,
        ),
        check(
            "accuracy",
            False,
            ">= 0.89",
            "0.88",
            "accuracy for origin=C is low, on few rows",
            blocking=False,
            slice={"origin": "C", "sex": "male"},
        ),
    ]
    return {"decision": decision("model", checks)}


def rehearsal() -> dict[str, Any]:
    dice = random.Random(3)
    latencies = [3.1 + dice.expovariate(0.9) for _ in range(256)]
    return {
        "decision": decision(
            "serving",
            [
                check(
                    "max_difference",
                    True,
                    "<= 1e-05",
                    "2.4e-07",
                    "answers equal the offline predictions",
                    value=2.4e-7,
                    limit=1e-5,
                ),
                check(
                    "p99_ms",
                    True,
                    "<= 25",
                    "8.1",
                    "the 99th percentile of latency is within its budget",
                    value=8.1,
                    limit=25.0,
                ),
            ],
        ),
        "latencies_ms": latencies,
        "p50_ms": 3.9,
        "p99_ms": 8.1,
        "max_difference": 2.4e-7,
    }


MODEL = {
    "name": "lending",
    "task": "binary_classification",
    "classes": ["repaid", "defaulted"],
    "threshold": 0.5,
    "inputs": {},
    "outputs": {},
    "signatures": ["serving_default", "serving_examples", "transform_features"],
    "digest": digest("model"),
    "framework": {"tensorflow": "2.21.0", "keras": "3.15.0"},
    "lineage": {"bundle": digest("bundle"), "transformed": digest("t"), "transform_graph": digest("g")},
}
CURL = (
    "curl -s http://127.0.0.1:8501/v1/models/lending:predict -d "
    """'{"instances": [{"age": 41.0, "income": 52000.0, "purpose": "car"}]}'"""
)


def upto(builder: RunBuilder, last: str, refused: str = "") -> RunBuilder:
    """Adds the tasks of a plausible run up to and with ``last``. ``refused`` names a gate that says no."""
    documents: dict[str, dict[str, Any]] = {
        "ingest": {"examples": {"manifest.json": examples()}},
        "validate": {
            "statistics": {"summary.json": statistics()},
            "anomalies": {"anomalies.json": anomalies(refused == "data-gate")},
        },
        "transform": {"transform_graph": {"features.json": {}}},
        "train": {"model": {"model.json": MODEL}, "history": {"history.json": history()}},
        "evaluate": {
            "evaluation": {"metrics.json": evaluation(refused == "model-gate")},
            "blessing": {"blessing.json": blessing(refused == "model-gate")},
        },
        "rehearse": {"rehearsal": {"rehearsal.json": rehearsal()}},
        "register": {"registered": {"registered.json": {"name": "lending", "version": 3, "path": "models/lending/3"}}},
        "deploy": {"deployment": {"deployment.json": {"address": "http://127.0.0.1:8501", "version": 3, "curl": CURL}}},
    }
    for name in STAGES[: STAGES.index(last) + 1]:
        if name == refused:
            error = {"type": "GateRefused", "exit_code": 3, "where": "gate", "expected": "all checks pass", "got": None}
            return builder.task(name, status="failed", exit_code=3, error={**error, "remedy": None, "message": "no"})
        more: dict[str, Any] = {"status": "cached"} if name == "ingest" else {}
        if name == "ingest":
            more["summary"] = {"quarantine_reasons": {"expected 12 fields, got 11": 9, "not UTF-8": 3}}
        builder.task(name, documents.get(name), **more)
    return builder


@pytest.fixture
def builder(tmp_path: Path) -> RunBuilder:
    """An empty run."""
    return RunBuilder(tmp_path)


@pytest.fixture
def released(builder: RunBuilder) -> Path:
    """A run that ended well, seen from its report task: the run itself is still running."""
    upto(builder.run(), "deploy")
    builder.task("report", status="running", exit_code=None)
    return builder.run_dir


@pytest.fixture
def refused(builder: RunBuilder) -> Path:
    """A run that the model gate refused."""
    return upto(builder.run(), "model-gate", refused="model-gate").run_dir


@pytest.fixture
def bad_input(builder: RunBuilder) -> Path:
    """A run whose table lacks its label."""
    builder.run().task("find-champion")
    error = {
        "type": "DataError",
        "exit_code": 4,
        "where": "data/lending.csv",
        "expected": "needs the label column 'default'",
        "got": "columns age, income, purpose",
        "remedy": "name the label in problem.yaml under label.column",
        "message": "",
    }
    return builder.task("ingest", status="failed", exit_code=4, error=error).run_dir


Page = Callable[[Path], str]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    """Writes a run's page and returns its text."""
    from tidemill.report.run import run

    def write(run_dir: Path) -> str:
        run(run_dir, tmp_path / "page.html")
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    return write


def documents_of(run_dir: Path) -> list[Path]:
    """Returns every JSON document of a run and its artefacts."""
    return sorted(run_dir.parent.parent.glob("**/*.json"))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Rewrites a JSON document."""
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
