"""Metrics in the corners: one class, no positives, labels that are all equal."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.errors import ProblemError
from tidemill.evaluate.binary import BinaryCells, binary_metrics
from tidemill.evaluate.counts import CellsOf, CountRows, Counts, Scored
from tidemill.evaluate.metrics import estimate
from tidemill.evaluate.multiclass import MulticlassCells, multiclass_metrics
from tidemill.evaluate.regression import RegressionCells, regression_metrics
from tidemill.metrics import METRICS, find_metric


def counts_of(cells: CellsOf, labels: list[float], outputs: np.ndarray) -> Counts:
    rows = len(labels)
    combiner = CountRows({"m": cells}, [1])
    scored = Scored(0, np.asarray(labels, float), np.ones(rows), [np.zeros(rows, np.int64)], {"m": outputs})
    return combiner.extract_output(combiner.add_input(combiner.create_accumulator(), scored))


def binary(labels: list[float], outputs: list[float], threshold: float = 0.5) -> dict[str, float]:
    counts = counts_of(BinaryCells(threshold), labels, np.asarray(outputs, np.float32))
    return {name: float(v[0]) for name, v in binary_metrics(counts, "m")[0].values.items()}


def test_one_class_leaves_auc_undefined_and_accuracy_defined() -> None:
    values = binary([1, 1, 1], [0.2, 0.6, 0.7])
    assert np.isnan(values["auc"])
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert values["recall"] == pytest.approx(2 / 3)


def test_a_model_that_selects_nobody_has_no_precision() -> None:
    values = binary([0, 1], [0.1, 0.2])
    assert np.isnan(values["precision"])
    assert values["recall"] == 0
    assert values["f1"] == 0


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.1])
def test_a_probability_at_the_threshold_is_positive_as_the_model_answers_in_float32(threshold: float) -> None:
    assert binary([1, 0], [np.float32(threshold), 0.0], threshold)["recall"] == 1


def test_one_row_has_no_interval_by_resampling() -> None:
    found = estimate("binary_classification", *binary_metrics(counts_of(BinaryCells(0.5), [1], np.asarray([0.7])), "m"))
    assert np.isnan([found.low["log_loss"][0], found.high["log_loss"][0], found.low["calibration"][0]]).all()
    assert found.low["recall"][0] < found.high["recall"][0] == 1  # Wilson's interval knows of one row


def test_certainty_that_is_wrong_costs_a_finite_log_loss() -> None:
    assert binary([1, 0], [0.0, 1.0])["log_loss"] == pytest.approx(-np.log(1e-7))


def test_calibration_error_of_two_bins() -> None:
    values = binary([1, 0, 1, 1], [0.25, 0.25, 0.85, 0.85])
    assert values["expected_calibration_error"] == pytest.approx(0.5 * 0.25 + 0.5 * 0.15, abs=1e-6)
    assert values["calibration"] == pytest.approx(2.2 / 3, abs=1e-6)


def test_macro_averages_are_over_the_classes_that_occur() -> None:
    outputs = np.asarray([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]], np.float32)
    counts = counts_of(MulticlassCells(3), [0, 1, 1], outputs)
    values = {n: float(v[0]) for n, v in multiclass_metrics(counts, "m", ("a", "b", "c"))[0].values.items()}
    assert values["precision"] == pytest.approx((1 / 2 + 1) / 2)
    assert values["recall"] == pytest.approx((1 + 1 / 2) / 2)
    assert np.isnan(values["recall[c]"])
    assert np.isnan(values["precision[c]"])


def test_an_answer_of_nan_undefines_a_multiclass_and_a_regression_slice() -> None:
    outputs = np.asarray([[0.5, 0.5], [np.nan, 0.5]], np.float32)
    values = multiclass_metrics(counts_of(MulticlassCells(2), [0, 1], outputs), "m", ("a", "b"))[0].values
    assert np.isnan(values["accuracy"][0])
    answers = np.asarray([1.0, np.inf], np.float32)
    values = regression_metrics(counts_of(RegressionCells(0.0, ()), [1, 2], answers), "m", 0.0)[0].values
    assert np.isnan(values["mae"][0])
    assert values["example_count"][0] == 2


def test_r2_keeps_its_digits_far_from_zero_and_is_undefined_for_equal_labels() -> None:
    generator = np.random.default_rng(0)
    labels = 1e6 + generator.normal(size=500)
    answers = labels + generator.normal(size=500) * 0.5
    counts = counts_of(RegressionCells(1e6, ()), labels.tolist(), answers)
    expected = 1 - ((labels - answers) ** 2).sum() / ((labels - labels.mean()) ** 2).sum()
    assert float(regression_metrics(counts, "m", 1e6)[0].values["r2"][0]) == pytest.approx(expected, abs=1e-9)
    equal = counts_of(RegressionCells(4.9, ()), [5.1] * 7, np.full(7, 5.0))
    assert np.isnan(regression_metrics(equal, "m", 4.9)[0].values["r2"][0])


def test_badness_grows_as_a_metric_gets_worse() -> None:
    assert METRICS["binary_classification"]["auc"].badness(0.8) > METRICS["binary_classification"]["auc"].badness(0.9)
    assert METRICS["regression"]["rmse"].badness(2) > METRICS["regression"]["rmse"].badness(1)
    calibration = METRICS["regression"]["calibration"]
    assert calibration.badness(0.8) == pytest.approx(calibration.badness(1.2))


def test_a_metric_that_the_task_does_not_have_is_answered_with_those_that_it_has() -> None:
    with pytest.raises(ProblemError, match=r"regression has the metrics mae, mse, rmse, r2.*got auc"):
        find_metric("regression", "auc")
