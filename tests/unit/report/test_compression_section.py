"""The page's section on compression: sizes, times and what each variant costs, and why one was refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Pages = Callable[[Path], str]


def estimate(value: float, original: float | None = None) -> dict[str, Any]:
    change = None if original is None else {"difference": value - original, "low": -0.02, "high": 0.01}
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "original": original, "change": change}


def model(auc: float, original: float | None = None, **more: Any) -> dict[str, Any]:
    values = {"auc": estimate(auc, original), "accuracy": estimate(0.8, None if original is None else 0.8)}
    women = {"auc": estimate(auc - 0.05, original)}
    return {
        "file_bytes": 4000,
        "gzip_bytes": 2000,
        "latency": {"1": {"p50_ms": 0.5, "p99_ms": 0.9}, "256": {"p50_ms": 2.0, "p99_ms": 3.0}},
        "metrics": [
            {"slice": {}, "sensitive": False, "count": 5026, "values": values},
            {"slice": {"sex": "Female"}, "sensitive": True, "count": 2500, "values": women},
        ],
        **more,
    }


@pytest.fixture
def manifest() -> dict[str, Any]:
    rates = {"tpr": {"value": 0.5, "original": 0.6, "difference": -0.1, "low": -0.2, "high": 0.0}}
    groups = [
        {"slice": {"sex": "Male"}, "count": 2526, "rates": rates},
        {"slice": {"sex": "?"}, "count": 3, "rates": {}},
    ]
    fairness = [{"over": ["sex"], "min_examples": 50, "groups": groups}]
    mobile = {"kind": "litert", "settings": {"quantization": "int8"}, "gzip_bytes": 500, "fairness": fairness}
    return {
        "task": "binary_classification",
        "rows": 5026,
        "measured_on": "a processor",
        "release": "sparse",
        "models": {
            "original": model(0.9),
            "mobile": model(0.88, 0.9, **mobile, passed=False, required=True),
            "sparse": model(0.9, 0.9, kind="pruned", sparsity=0.8, passed=True),
            "small": model(0.7, 0.9, kind="distilled", teacher="champion", passed=False, required=False),
        },
    }


@pytest.fixture
def evidence() -> dict[str, Any]:
    check = {
        "name": "auc.mobile",
        "passed": False,
        "expected": "at most 0.005 worse than the original",
        "got": "0.88 (-0.02)",
        "message": "Variant mobile: area under the ROC curve is 0.88.",
        "value": -0.02,
        "limit": 0.005,
        "slice": {},
        "blocking": True,
    }
    return {"decision": {"gate": "compression", "passed": False, "checks": [check]}, "challenger": "0" * 64}


@pytest.fixture
def compressed(builder: Any, upto: Any, manifest: dict[str, Any], evidence: dict[str, Any]) -> Path:
    """A run that the compression gate refused."""
    upto(builder.run(), "serving-gate")
    outputs = {
        "compressed": {"manifest.json": manifest},
        "compression": {"compression.json": evidence},
        "released": {"model.json": {"name": "lending", "task": "", "digest": "f" * 64}},
    }
    builder.task("compress", outputs)
    error = {"type": "GateRefused", "exit_code": 3, "where": "gate", "expected": "no", "got": None}
    told = {**error, "remedy": None, "message": "no"}
    return Path(builder.task("compression-gate", status="failed", exit_code=3, error=told).run_dir)


def row(text: str, name: str) -> str:
    """Returns the table's row of a variant, without tags."""
    section = text.split('<section id="compression"')[1].split("</section>")[0]
    rows = [" ".join(re.sub(r"<[^>]+>", " ", part).split()) for part in section.split("<tr>")]
    return next(part for part in rows if part.startswith(name))


def test_each_variant_has_its_size_time_and_differences(compressed: Path, page: Pages) -> None:
    text = page(compressed)
    mobile = row(text, "mobile")
    assert mobile == (
        "mobile refused LiteRT, int8 0.500 kB 25 % 0.500 ms p99 0.900 ms 2 ms p99 3 ms "
        "0.8800 \u22120.020 \u22120.020 to 0.010 0.8000 0 \u22120.020 to 0.010 "
        "AUC \u22120.070 sex Female , 2 500 rows True positive rate \u22120.10 sex Male , 2 526 rows"
    )
    assert "pruned, 80% zeros" in row(text, "sparse")
    assert "distilled, taught by the champion; left out" in row(text, "small")
    assert "sparse</b> takes the original" in text


def test_a_refusal_by_the_compression_gate_is_the_verdict(compressed: Path, page: Pages) -> None:
    text = " ".join(page(compressed).split())
    assert "The compression gate refused lending: its one check failed." in text
    assert "AUC, mobile" in text
    assert "Compress less, or let a variant be left out" in text


def test_the_lineage_is_of_the_model_that_takes_the_trained_ones_place(compressed: Path, page: Pages) -> None:
    assert "f" * 64 in page(compressed)


def test_a_run_without_variants_has_no_such_section(released: Path, page: Pages) -> None:
    assert 'id="compression"' not in page(released)
