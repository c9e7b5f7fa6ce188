"""summary.json says of every split, column and slice what numpy says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def summarised(make_loans: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summary, and the training split's columns."""
    loans = make_loans(problem={"sensitive": ["sex", ["sex", "race"]]})
    loans.validate()
    return loans.summary, pq.read_table(loans.examples / "train", partitioning=None).to_pydict()


def test_numbers_are_numpys(summarised: Any) -> None:
    summary, columns = summarised
    income = summary["splits"]["train"]["features"]["income"]
    values = np.array([v for v in columns["income"] if v is not None])
    assert (income["count"], income["missing"]) == (len(values), 800 - len(values))
    assert income["missing_share"] == pytest.approx(1 - len(values) / 800, rel=1e-5)
    assert income["mean"] == pytest.approx(values.mean(), rel=1e-5)
    assert income["std"] == pytest.approx(values.std(), rel=1e-5)
    assert (income["min"], income["max"]) == pytest.approx((values.min(), values.max()), rel=1e-5)
    counts, edges = np.histogram(values, 20)
    assert income["histogram"]["edges"] == pytest.approx(edges, rel=1e-4, abs=1)
    assert sum(income["histogram"]["counts"]) == pytest.approx(len(values), rel=1e-3)
    assert np.abs(np.array(income["histogram"]["counts"]) - counts).max() < 0.02 * len(values)


def test_categories_are_counted(summarised: Any) -> None:
    summary, columns = summarised
    for name in ("city", "term"):
        feature = summary["splits"]["train"]["features"][name]
        assert feature["unique"] == 3
        assert dict(feature["top"]) == {str(v): columns[name].count(v) for v in {*columns[name]} - {None}}
        assert [n for _, n in feature["top"]] == sorted((n for _, n in feature["top"]), reverse=True)


def test_label_rates_are_given_for_the_whole_and_for_slices(summarised: Any) -> None:
    summary, columns = summarised
    train = summary["splits"]["train"]
    assert train["label"]["positive_rate"] == pytest.approx(columns["repaid"].count("yes") / 800, rel=1e-5)
    (entry,) = [e for e in train["slices"] if e["slice"] == {"sex": "F", "race": "b"}]
    labels = [
        label
        for label, sex, race in zip(columns["repaid"], columns["sex"], columns["race"], strict=True)
        if (sex, race) == ("F", "b")
    ]
    assert entry["rows"] == len(labels)
    assert entry["label"]["shares"]["yes"] == pytest.approx(labels.count("yes") / len(labels), rel=1e-5)
    assert entry["file"] == "train/slices/sex=F,race=b.pb"


def test_columns_say_what_they_are_for(summarised: Any) -> None:
    columns = summarised[0]["columns"]
    assert columns["income"] == {"type": "float64", "role": "quantity", "read": True}
    assert columns["term"] == {"type": "int64", "role": "category", "read": True}
    assert columns["loan_id"] == {"type": "string", "role": "other", "read": False}
    assert summarised[0]["label"] == {"column": "repaid", "classes": ["no", "yes"]}
