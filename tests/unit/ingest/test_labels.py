"""Labels: taken or derived, classes in order, and every way in which they can be unusable."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest

from tidemill.errors import DataError


def csv_of(labels, header="x,y"):
    return header + "\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels))


def test_binary_classes_are_negative_then_positive(ingest):
    result = ingest(csv_of(["yes", "no", "no"] * 40), label={"column": "y", "positive": "yes"})
    assert result.report.classes == result.manifest.classes == ("no", "yes")
    assert sum(part["yes"] for part in result.report.label.values()) == 40


def test_classes_of_a_multiclass_label_are_sorted_numbers_as_numbers(ingest):
    numbers = ingest(csv_of([2, 10, 1] * 30), task="multiclass_classification", label={"column": "y"})
    assert numbers.report.classes == ("1", "2", "10")
    words = ingest(csv_of(["b", "c", "a"] * 30), task="multiclass_classification", label={"column": "y"})
    assert words.report.classes == ("a", "b", "c")


def test_a_class_written_as_float_is_named_without_its_fraction(ingest):
    result = ingest(csv_of(["1.0", "0.0", "0"] * 30), label={"column": "y", "positive": "1"})
    assert result.report.classes == ("0", "1")
    assert result.report.columns["y"] == "string"


def test_an_expression_yields_the_label_where_its_columns_are_known(ingest):
    """A comparison with a missing value would be false in pandas; here the row has no label."""
    body = "tip,fare,n\n" + "".join(f"{i % 5},{10},{i}\n" for i in range(100)) + ",10,\n2,,\n"
    result = ingest(
        body,
        label={"expression": "tip > 0.2 * fare", "name": "generous", "uses": ["tip", "fare"], "leaks": ["tip"]},
        features={"fare": "numeric"},
        gates={"data": {"max_quarantined": 0.05}},
    )
    assert result.report.classes == ("0", "1")
    assert result.report.columns["generous"] == "int64"
    assert pc.sum(result.table["generous"]).as_py() == 40
    assert [(q["line"], q["kind"], q["text"]) for q in result.quarantine] == [
        (102, "no label", "fare=10"),
        (103, "no label", "tip=2"),
    ]


def test_an_expression_may_name_columns_with_odd_names_and_yield_numbers(ingest):
    result = ingest(
        csv_of(range(100), header="x,the size"),
        task="regression",
        label={"expression": "2 * `the size`", "uses": ["the size"]},
    )
    assert result.report.columns["label"] == "float64"
    assert result.report.classes == ()
    assert set(result.report.label["train"]) == {"mean", "std", "min", "max"}


def test_the_moments_of_a_regression_label_are_numpys(ingest):
    result = ingest(csv_of([i**2 for i in range(300)]), task="regression", label={"column": "y"})
    for split, shown in result.report.label.items():
        values = result.split(split)["y"].to_numpy()
        assert shown["mean"] == pytest.approx(values.mean())
        assert shown["std"] == pytest.approx(values.std())
        assert (shown["min"], shown["max"]) == (values.min(), values.max())


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        ([1] * 60, {}, "single class.*'1': 60"),
        ([0, 1, 2] * 20, {}, "needs two values.*'0': 20"),
        (["yes", "no"] * 30, {"label": {"column": "y", "positive": "Yes"}}, "'no': 30.*\n.*did you mean 'yes'"),
        (["a", "b"] * 30, {}, "positive '1' must be one of its values"),
        (["a", "b"] * 30, {"task": "regression", "label": {"column": "y"}}, "must be a number.*'a'"),
        (
            [f"c{i}" for i in range(1200)],
            {"task": "multiclass_classification", "label": {"column": "y"}},
            "at most 1,000",
        ),
        ([0, 1] * 30, {"label": {"column": "yy", "positive": "1"}}, "label column 'yy'.*\n.*did you mean 'y'"),
        ([0, 1] * 30, {"label": {"expression": "x >> 'a'", "uses": ["x"]}}, "cannot be evaluated"),
        ([0, 1] * 30, {"label": {"expression": "x.sum()", "uses": ["x"]}}, "one value per row"),
        ([0, 1] * 30, {"label": {"expression": "y > 0", "name": "x", "uses": ["y"]}}, "'x' is already a column"),
    ],
)
def test_an_unusable_label_stops_the_run_and_says_why(labels, changes, message, ingest):
    body = csv_of([f"{label},{i}" for i, label in enumerate(labels)], header="x,y,z")
    with pytest.raises(DataError, match=message) as failure:
        ingest(body, **{"features": {"z": "numeric"}, **changes})
    assert failure.value.exit_code == 4


def test_all_missing_columns_are_named_at_once_with_what_may_be_meant(ingest):
    with pytest.raises(DataError) as failure:
        ingest(
            "Age,income,y\n1,2,0\n",
            features={"age": "numeric", "incomes": "numeric", "height": "numeric"},
            sensitive=["sex"],
        )
    message = str(failure.value)
    assert "lacks 4 columns that the problem reads: age, incomes, height, sex" in message
    assert "did you mean 'Age' for 'age', 'income' for 'incomes'?" in message


def test_one_missing_column_is_told_in_the_singular(ingest):
    with pytest.raises(DataError, match="lacks 1 column that the problem reads: height"):
        ingest("x,y\n1,0\n", features={"height": "numeric"}, sensitive=["height"])
