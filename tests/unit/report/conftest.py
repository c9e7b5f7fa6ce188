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
                "parameters": {
                    "beam_runner": "direct",
                    "problem_dir": "problems/lending",
                    "overrides": {"training.max_epochs": "12"},
                },
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
        "kept_epoch": 9,
        "steps_per_epoch": 157,
        "stopped": "early_stopping",
    }


def _numeric(shift: float) -> dict[str, Any]:
    heights = [math.exp(-((i - 8 - shift) ** 2) / 18) for i in range(20)]
    total = sum(heights)
    return {
        "count": 39_000,
        "missing": 1_013,
        "missing_share": 0.0251 + shift / 100,
        "mean": 41.37 + shift,
        "std": 12.91,
        "min": 18.0,
        "median": 40.5,
        "max": 79.0,
        "zeros": 0,
        "nan": 0,
        "histogram": {
            "edges": [18 + shift + 3.05 * i for i in range(21)],
            "counts": [39_000 * height / total for height in heights],
        },
    }


def _categorical(shift: float) -> dict[str, Any]:
    values = ("debt consolidation", "home improvement", "car", "education", "wedding", "other")
    top = [[value, round(16_000 / (i + 1) * (1 + shift))] for i, value in enumerate(values)]
    return {"count": 40_000, "missing": 0, "missing_share": 0.0, "unique": 6, "top": top}


def statistics(numeric: tuple[str, ...] = NUMERIC, categorical: tuple[str, ...] = CATEGORICAL) -> dict[str, Any]:
    """``summary.json``, as ``tidemill.validate.summary`` documents it."""
    slices = [
        {"slice": {"sex": "female"}, "rows": 19_877, "label": {"shares": {}, "positive_rate": 0.184}, "file": "x"},
        {"slice": {"sex": "male"}, "rows": 20_136, "label": {"shares": {}, "positive_rate": 0.143}, "file": "x"},
        {"slice": {"origin": "C", "sex": "female"}, "rows": 211, "label": {"shares": {}, "positive_rate": 0.262}},
    ]
    return {
        "schema": "curated",
        "label": {"column": "default", "classes": ["repaid", "defaulted"]},
        "columns": {
            **{name: {"type": "float64", "role": "quantity", "read": True} for name in numeric},
            **{name: {"type": "string", "role": "category", "read": name != "employer"} for name in categorical},
        },
        "omitted": {},
        "splits": {
            split: {
                "rows": rows,
                "label": {"shares": {"repaid": 0.837 - shift / 50, "defaulted": 0.163 + shift / 50}},
                "features": {
                    **{name: _numeric(i * shift) for i, name in enumerate(numeric)},
                    **{name: _categorical(i * shift / 8) for i, name in enumerate(categorical)},
                },
                "slices": slices if split == "train" else [],
            }
            for (split, rows), shift in zip(SPLITS.items(), (0.0, 0.5, 0.3), strict=True)
        },
    }


def _distance(column: str, value: float | None, limit: float, **more: Any) -> dict[str, Any]:
    return {
        "column": column,
        "measure": "jensen_shannon" if column in NUMERIC else "l_infinity",
        "value": value,
        "limit": limit,
        "allowance": 0.011,
        "rows": [40_013, 4_961],
        "where": "",
        "reason": "",
        "exceeded": False,
        **more,
    }


def anomalies(refused: bool = False) -> dict[str, Any]:
    """``anomalies.json``, as ``tidemill.validate.run`` writes it."""
    found = {
        "column": "purpose",
        "type": "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
        "split": "train" if refused else "eval",
        "environment": "TRAINING",
        "severity": "error" if refused else "warning",
        "description": "Examples contain values missing from the schema: holiday (~0.4%).",
    }
    checks = [
        check("min_rows", True, ">= 100", "50000", "The data has 50,000 rows.", value=50000, limit=100),
        check("max_quarantined", True, "<= 0.01", "0.00024", "Few rows were unreadable.", value=0.00024, limit=0.01),
        check(
            "schema.enum_type_unexpected_string_values",
            False,
            "as the curated schema says",
            found["description"],
            "`purpose` in train: Examples contain values missing from the schema: holiday (~0.4%). "
            "`gates.data.allow: [purpose:ENUM_TYPE_UNEXPECTED_STRING_VALUES]` lets it pass.",
            blocking=refused,
        ),
        check("skew", True, "<= 0.211", "0.031", "Training is close to eval in 10 columns.", value=0.031, limit=0.211),
    ]
    columns = (*NUMERIC, *CATEGORICAL)
    return {
        "decision": decision("data", checks),
        "anomalies": [found],
        "skew": [_distance(name, 0.031 / (i + 1), 0.2) for i, name in enumerate(columns)],
        "drift": [
            _distance("income", 0.412, 0.3, exceeded=True),
            _distance("age", 0.012, 0.3),
            _distance("region", None, 0.3, reason="too many values"),
        ],
    }


def estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def slices() -> list[dict[str, Any]]:
    dice = random.Random(7)
    keys: list[tuple[dict[str, str], int]] = [({"sex": s}, n) for s, n in (("female", 2491), ("male", 2535))]
    origins = (("A", 3310), ("B", 1622), ("C", 94))
    keys += [({"origin": o}, n) for o, n in origins]
    keys += [({"origin": o, "sex": s}, n // 2) for o, n in origins for s in ("female", "male")]
    return [
        {
            "slice": key,
            "over": list(key),
            "sensitive": True,
            "count": n,
            "weight": float(n),
            "values": {
                name: estimate(base - 0.02 + 0.05 * dice.random() - (0.06 if n < 100 else 0), 1.1 / math.sqrt(n))
                for name, base in (("auc", 0.86), ("accuracy", 0.87), ("recall", 0.55))
            },
        }
        for key, n in keys
    ]


def _group(sex: str, count: int, selection: float, tpr: float, fpr: float, ppv: float) -> dict[str, Any]:
    values = {"selection_rate": selection, "tpr": tpr, "fpr": fpr, "fnr": 1 - tpr, "ppv": ppv}
    rates = {name: {**estimate(value, 0.9 / math.sqrt(count)), "size": count} for name, value in values.items()}
    return {"slice": {"sex": sex}, "count": count, "weight": float(count), "small": count < 50, "rates": rates}


def _rival(**values: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {
            "slice": {},
            "values": {
                name: {"value": value, "difference": gain, "low": gain - 0.004, "high": gain + 0.004}
                for name, (value, gain) in values.items()
            },
        }
    ]


def evaluation(refused: bool = False) -> dict[str, Any]:
    """``metrics.json``, as ``tidemill.evaluate.outputs`` documents it."""
    whole = {
        "auc": estimate(0.8712, 0.0113),
        "pr_auc": estimate(0.6133, 0.027),
        "accuracy": estimate(0.8801, 0.009),
        "precision": estimate(0.691, 0.031),
        "recall": estimate(0.5532, 0.033),
        "f1": estimate(0.6144, 0.03),
        "log_loss": estimate(0.2893, 0.0121),
        "brier": estimate(0.0893, 0.0021),
        "calibration": estimate(1.0123, 0.031),
        "mean_label": estimate(0.1629, 0.01),
        "mean_prediction": estimate(0.1649, 0.004),
        "example_count": {"value": 5026.0, "low": 5026.0, "high": 5026.0},
    }
    xs = [i / 60 for i in range(61)]
    gap = 0.1533 if refused else 0.0714
    female, male = {"sex": "female"}, {"sex": "male"}
    return {
        "task": "binary_classification",
        "threshold": 0.5,
        "digest": digest("model"),
        "rows": SPLITS["test"],
        "weighted": False,
        "classes": ["repaid", "defaulted"],
        "confidence": 0.95,
        "metrics": [{"slice": {}, "count": SPLITS["test"], "values": whole}, *slices()],
        "fairness": [
            {
                "over": ["sex"],
                "min_examples": 50,
                "groups": [
                    _group("female", 2491, 0.139, 0.591, 0.051, 0.71),
                    _group("male", 2535, 0.121, 0.52, 0.044, 0.675),
                    _group("(missing)", 12, 0.25, 0.5, 0.1, 0.5),
                ],
                "metrics": {
                    name: {**estimate(value, 0.05), "rate": rate, "lowest": male, "highest": female}
                    for name, value, rate in (
                        ("demographic_parity_gap", 0.018, "selection_rate"),
                        ("demographic_parity_ratio", 0.871, "selection_rate"),
                        ("equal_opportunity_gap", gap, "tpr"),
                        ("equal_opportunity_ratio", 0.88, "tpr"),
                        ("equalized_odds_gap", gap, "tpr"),
                        ("predictive_parity_gap", 0.035, "ppv"),
                        ("predictive_parity_ratio", 0.951, "ppv"),
                    )
                },
            }
        ],
        "calibration": {
            "bins": [
                {
                    "low": i / 10,
                    "high": (i + 1) / 10,
                    "weight": 2400 / (i + 1) ** 1.4,
                    "mean_prediction": i / 10 + 0.05,
                    "mean_label": (y := min(max(i / 10 + 0.05 + 0.02 * math.sin(i), 0), 1)),
                    "label_low": max(y - 0.012 * (i + 1) ** 0.7, 0),
                    "label_high": min(y + 0.012 * (i + 1) ** 0.7, 1),
                }
                for i in range(10)
            ]
        },
        "roc": {"fpr": xs, "tpr": [x**0.16 if x else 0.0 for x in xs], "thresholds": xs, "auc_resolution": 1e-5},
        "pr": {"recall": xs, "precision": [1 - 0.84 * x**2.2 for x in xs], "thresholds": xs},
        "confusion": {"classes": ["repaid", "defaulted"], "matrix": [[4005.0, 203.0], [366.0, 452.0]]},
        "baseline": {
            "rule": "majority",
            "comparable": True,
            "reason": "",
            "metrics": _rival(accuracy=(0.8371, 0.043), log_loss=(0.4444, -0.1551)),
        },
        "champion": {
            "digest": digest("champion"),
            "comparable": True,
            "reason": "",
            "metrics": _rival(accuracy=(0.8766, 0.0035), auc=(0.8655, 0.0057), log_loss=(0.2951, -0.0058)),
        },
        "decision": blessing(refused)["decision"],
    }


def blessing(refused: bool = False) -> dict[str, Any]:
    gap = 0.1533 if refused else 0.0714
    small = {"origin": "C", "sex": "male"}
    checks = [
        check("auc", True, ">= 0.85", "0.8712 [0.8599, 0.8825]", "AUC is high enough.", value=0.8712, limit=0.85),
        check("auc", True, ">= 0.75", "0.856", "AUC is high enough.", value=0.856, limit=0.75, slice={"sex": "female"}),
        check(
            "auc",
            not refused,
            ">= 0.75",
            "0.741 [0.62, 0.85]" if refused else "0.801 [0.69, 0.91]",
            "Area under the ROC curve for origin = C is 0.741 on 94 rows; at least 0.75 is required.",
            value=0.741 if refused else 0.801,
            limit=0.75,
            slice={"origin": "C"},
        ),
        check(
            "equal_opportunity_gap[sex]",
            not refused,
            "<= 0.1",
            f"{gap} [0.09, 0.21]",
            "Equal opportunity gap over sex: the true positive rate is lowest for sex = male.",
            value=gap,
            limit=0.1,
        ),
        check("demographic_parity_ratio[sex]", True, ">= 0.8", "0.871", "Answers are alike.", value=0.871, limit=0.8),
        check("accuracy.better_than_baseline", True, "better than the rule `majority`", "0.88", "It is.", value=0.88),
        check(
            "auc",
            False,
            ">= 0.75",
            "0.72",
            "AUC for origin = C, sex = male is low. Not decided: fewer than 50 rows.",
            value=0.72,
            limit=0.75,
            blocking=False,
            slice=small,
        ),
    ]
    return {
        "decision": decision("model", checks),
        "challenger": digest("model"),
        "champion": digest("champion"),
        "model_digest": digest("model"),
    }


def rehearsal() -> dict[str, Any]:
    """``rehearsal.json``, as ``tidemill.rehearse.run`` writes it."""
    edges = (0, 1, 2, 3, 5, 7.5, 10, 15, 25, 50, 100, 250, 500, 1000)
    counts = (0, 0, 12, 171, 58, 11, 3, 1, 0, 0, 0, 0, 0, 0)
    checks = [
        check("serves", True, "a server that answers", "one", "The server started with the model."),
        check("answers.single", True, "200", "200", "All 256 rows were answered, 1 per request."),
        check("difference", True, "<= 1e-05", "2.4e-07", "Predictions agree within 2.4e-07.", value=2.4e-7, limit=1e-5),
        check("unusual.all_null", True, "a prediction", "a prediction", "A row with all null gets a prediction."),
        check("malformed.wrong_type", True, "400 that names age", "status 400", "Wrong type gets status 400."),
        check("p99_ms", True, "<= 25", "9.81", "p99 is 9.81 ms; the budget is 25 ms.", value=9.81, limit=25.0),
    ]
    return {
        "decision": decision("serving", checks),
        "passed": True,
        "rows": 256,
        "p50_ms": 3.94,
        "p99_ms": 9.81,
        "max_difference": 2.4e-7,
        "startup_s": 6.214,
        "tolerance": 1e-5,
        "budget": {"p50_ms": None, "p99_ms": 25.0},
        "model_digest": digest("model"),
        "latencies": {
            "p50_ms": 3.94,
            "p99_ms": 9.81,
            "requests": 256,
            "rounds": 1,
            "method": "one client, one request after the other",
            "histogram": [
                {"from_ms": a, "to_ms": b, "requests": n}
                for a, b, n in zip(edges, (*edges[1:], None), counts, strict=True)
            ],
        },
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


DEPLOYMENT = {
    "model": "lending",
    "version": 3,
    "address": "http://127.0.0.1:8501",
    "former": 2,
    "started": False,
    "curl": CURL,
    "answer": {"predictions": [{"label": "repaid", "probability": 0.0713}]},
}


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
        "deploy": {"deployment": {"deployment.json": DEPLOYMENT}},
    }
    for name in STAGES[: STAGES.index(last) + 1]:
        if name == refused:
            error = {"type": "GateRefused", "exit_code": 3, "where": "gate", "expected": "all checks pass", "got": None}
            return builder.task(name, status="failed", exit_code=3, error={**error, "remedy": None, "message": "no"})
        more: dict[str, Any] = {"status": "cached"} if name == "ingest" else {}
        if name == "ingest":
            more["summary"] = {"reasons": {"wrong number of fields": 9, "undecodable bytes": 3}}
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


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Rewrites a JSON document."""
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")


@pytest.fixture(name="edit")
def edit_fixture() -> Callable[..., None]:
    return edit


@pytest.fixture(name="upto")
def upto_fixture() -> Callable[..., RunBuilder]:
    return upto


@pytest.fixture(name="statistics")
def statistics_fixture() -> Callable[..., dict[str, Any]]:
    return statistics
