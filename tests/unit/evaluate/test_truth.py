"""With the shipped generator the truth is known: a model that answers it is found calibrated, groups included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.artifacts import ExamplesManifest
from tidemill.evaluate.run import run
from tidemill.synthetic.lending import LendingConfig, generate

BINARY = "binary_classification"
THRESHOLD = 0.7
_DEVIATIONS = 4  # one in 16,000 intervals of a sound evaluation would be left


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Applications with P(recorded as repaid), fed to the model of the other tests as its `score`."""
    chunks = list(generate(LendingConfig(rows=30_000, seed=11, base_rate_gap=0.1, label_bias=0.1)))
    table = pa.concat_tables([chunk.table for chunk in chunks]).select(["sex", "ethnicity", "repaid"]).to_pandas()
    truth = pa.concat_tables([chunk.truth for chunk in chunks])["recorded_probability"].to_numpy()
    # The model answers sigmoid(2 * score) where colour is not red.
    return table.assign(colour="green", score=np.log(truth / (1 - truth)) / 2, truth=truth)


@pytest.fixture(scope="module")
def document(
    rows: pd.DataFrame,
    bundle_of: Callable[..., Path],
    model_of: Callable[..., Path],
    problem_of: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """The metrics.json of the evaluation."""
    root = tmp_path_factory.mktemp("truth")
    table = pa.Table.from_pandas(rows.drop(columns="truth"), preserve_index=False)
    for split in ("train", "test"):
        (root / "examples" / split).mkdir(parents=True)
        pq.write_table(table, root / "examples" / split / "part-00000.parquet")
    columns = {name: "float64" if name == "score" else "string" for name in table.column_names}
    counts = dict.fromkeys(("train", "test"), len(rows))
    ExamplesManifest(counts, columns, ("no", "yes"), {}).write(root / "examples")
    problem = problem_of(
        BINARY, label={"column": "repaid", "positive": "yes"}, sensitive=["ethnicity", ["sex", "ethnicity"]]
    )
    model = model_of(BINARY, threshold=THRESHOLD)
    outputs = [root / name for name in ("none", "evaluation", "blessing", "predictions")]
    run(bundle_of(problem), root / "examples", model, *outputs)
    value: dict[str, Any] = json.loads((root / "evaluation" / "metrics.json").read_text())
    return value


def within(found: float, truth: float, variance: float) -> bool:
    return abs(found - truth) <= _DEVIATIONS * variance**0.5


def test_the_truth_is_found_calibrated_in_every_bin_and_slice(document: dict[str, Any], rows: pd.DataFrame) -> None:
    bins = np.minimum((rows["truth"] * 10).astype(int), 9)
    for number, bin_ in enumerate(document["calibration"]["bins"]):
        p = rows["truth"][bins == number]
        if len(p) > 50:
            assert bin_["mean_prediction"] == pytest.approx(p.mean(), abs=1e-3)  # float32 moves rows at a bin's edge
            assert within(bin_["mean_label"], p.mean(), (p * (1 - p)).sum() / len(p) ** 2)
            assert bin_["label_low"] < bin_["mean_label"] < bin_["label_high"]
    for shown in document["metrics"]:
        p = rows["truth"][in_slice(rows, shown["slice"])]
        values = shown["values"]
        assert values["mean_prediction"]["value"] == pytest.approx(p.mean(), abs=1e-5)
        assert within(values["calibration"]["value"], 1, (p * (1 - p)).sum() / p.sum() ** 2)
    assert document["metrics"][0]["values"]["expected_calibration_error"]["value"] < 0.01


def test_rates_of_groups_and_their_gap_are_the_true_ones(document: dict[str, Any], rows: pd.DataFrame) -> None:
    for over in document["fairness"]:
        true_rates = []
        for group in over["groups"]:
            p = rows["truth"][in_slice(rows, group["slice"])]
            chosen, rates = p >= THRESHOLD, group["rates"]
            true_rates.append((chosen.mean(), len(p)))
            assert group["count"] == len(p)
            assert rates["selection_rate"]["value"] == pytest.approx(chosen.mean(), abs=2e-3)
            for name, of in (("tpr", p), ("fpr", 1 - p)):
                truth, size = of[chosen].sum() / of.sum(), of.sum()
                assert within(rates[name]["value"], truth, truth * (1 - truth) / size)
            if chosen.any():
                truth = p[chosen].mean()
                assert within(rates["ppv"]["value"], truth, truth * (1 - truth) / chosen.sum())
        large = [rate for rate, size in true_rates if size >= over["min_examples"]]
        gap = over["metrics"]["demographic_parity_gap"]
        assert gap["value"] == pytest.approx(max(large) - min(large), abs=4e-3)
        assert gap["value"] > 0.05, "without a gap to find, this shows nothing"


def in_slice(rows: pd.DataFrame, slice_: dict[str, str]) -> np.ndarray:
    chosen = np.ones(len(rows), bool)
    for column, value in slice_.items():
        chosen &= (rows[column] == value).to_numpy()
    return chosen
