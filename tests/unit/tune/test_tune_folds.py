"""The folds of a cross-validation: every row judged once, and none that the method would keep apart on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("tensorflow", reason="needs the tensorflow environment")

from tidemill.artifacts import ExamplesManifest, parts
from tidemill.bundle import open_bundle
from tidemill.errors import DataError, PlatformError, ProblemError
from tidemill.transform.features import LABEL
from tidemill.tune.folds import FoldsReport, chosen_method, run

SPACE = {"dropout": {"low": 0.0, "high": 0.5}}


def made(data: Any, directory: Path, method: str, folds: int = 4, tuning: Any = None, **problem: Any) -> FoldsReport:
    settings = {"space": SPACE, "cross_validation": {"folds": folds, "method": method}, **(tuning or {})}
    return run(data.pack(settings, **problem), data.examples, data.transformed, directory)


def column(directory: Path, split: str, name: str) -> np.ndarray:
    return np.concatenate(
        [pq.read_table(path)[name].to_numpy(zero_copy_only=False) for path in parts(directory, split)]
    )


def raw(data: Any) -> Mapping[float, Mapping[str, Any]]:
    """Returns the raw training rows by what identifies them in the transformed ones."""
    rows = [row for path in parts(data.examples, "train") for row in pq.read_table(path).to_pylist()]
    return {float(np.float32(row["x"] / 2)): row for row in rows}


@pytest.mark.parametrize(
    ("method", "problem"),
    [("k_fold", {}), ("stratified", {}), ("grouped", {"group": ["who"]})],
)
def test_every_row_is_judged_in_one_fold_and_trained_on_in_all_others(
    data: Any, tmp_path: Path, method: str, problem: Any
) -> None:
    report = made(data, tmp_path / "folds", method, **problem)
    whole = np.sort(column(data.transformed, "train", "x"))
    folds = sorted((tmp_path / "folds").iterdir())
    assert len(folds) == 4
    for fold, rows in zip(folds, report.rows, strict=True):
        train, judged = column(fold, "train", "x"), column(fold, "eval", "x")
        assert (len(train), len(judged)) == rows
        assert np.array_equal(np.sort(np.concatenate([train, judged])), whole)
        assert dict(ExamplesManifest.read(fold).rows) == {"train": rows[0], "eval": rows[1]}
    assert np.array_equal(np.sort(np.concatenate([column(fold, "eval", "x") for fold in folds])), whole)
    if method != "grouped":
        assert {judged for _, judged in report.rows} <= {59, 60, 61}


def test_stratified_folds_have_the_classes_in_equal_shares(data: Any, tmp_path: Path) -> None:
    made(data, tmp_path / "folds", "stratified")
    positives = [int(column(fold, "eval", LABEL).sum()) for fold in sorted((tmp_path / "folds").iterdir())]
    assert max(positives) - min(positives) <= 1


def test_a_group_is_never_on_both_sides_of_a_fold_and_folds_are_about_as_large(data: Any, tmp_path: Path) -> None:
    report = made(data, tmp_path / "folds", "grouped", group=["who"])
    rows = raw(data)
    for fold in sorted((tmp_path / "folds").iterdir()):
        train, judged = ({rows[float(x)]["who"] for x in column(fold, split, "x")} for split in ("train", "eval"))
        assert not train & judged
    sizes = [judged for _, judged in report.rows]
    assert max(sizes) - min(sizes) <= 4


def test_folds_in_time_are_judged_by_what_comes_after_what_they_were_trained_on(data: Any, tmp_path: Path) -> None:
    report = made(data, tmp_path / "folds", "time_series", time="when")
    rows = raw(data)
    before = 0
    for fold, (trained, _) in zip(sorted((tmp_path / "folds").iterdir()), report.rows, strict=True):
        train, judged = ([rows[float(x)]["when"] for x in column(fold, split, "x")] for split in ("train", "eval"))
        assert max(train) < min(judged)
        assert trained > before, "the past grows from fold to fold"
        before = trained


def with_ids(data: Any, directory: Path, who: Any) -> Path:
    """Writes the examples with other groups."""
    first = 0
    for path in parts(data.examples, "train"):
        (directory / "train").mkdir(parents=True, exist_ok=True)
        table = pq.read_table(path)
        ids = pa.array([who(i) for i in range(first, first + table.num_rows)], pa.string())
        place = table.column_names.index("who")
        pq.write_table(table.set_column(place, "who", ids), directory / "train" / path.name)
        first += table.num_rows
    ExamplesManifest.read(data.examples).write(directory)
    return directory


def test_folds_in_time_part_no_group_either(data: Any, tmp_path: Path) -> None:
    """A group goes by its latest row: groups of two rows have earlier ones on the side of their latest."""
    examples = with_ids(data, tmp_path / "examples", lambda i: f"pair {i // 2}")
    settings = {"space": SPACE, "cross_validation": {"folds": 3, "method": "time_series"}}
    bundle = data.pack(settings, group=["who"], time="when")
    run(bundle, examples, data.transformed, tmp_path / "folds")
    rows = [row for path in parts(examples, "train") for row in pq.read_table(path).to_pylist()]
    by_x = {float(np.float32(row["x"] / 2)): row for row in rows}
    for fold in sorted((tmp_path / "folds").iterdir()):
        train, judged = ([by_x[float(x)] for x in column(fold, split, "x")] for split in ("train", "eval"))
        assert not {row["who"] for row in train} & {row["who"] for row in judged}
        latest = {row["who"]: row["when"] for row in sorted(judged, key=lambda row: row["when"])}
        assert max(row["when"] for row in train) < min(latest.values())


def test_rows_without_a_group_are_none_together(data: Any, tmp_path: Path) -> None:
    examples = with_ids(data, tmp_path / "examples", lambda _: None)
    bundle = data.pack({"space": SPACE, "cross_validation": {"folds": 4, "method": "grouped"}}, group=["who"])
    assert {judged for _, judged in run(bundle, examples, data.transformed, tmp_path / "folds").rows} == {60}


def test_the_method_follows_what_the_problem_says_of_its_rows(data: Any, tmp_path: Path) -> None:
    assert made(data, tmp_path / "a", "auto").method == "stratified"
    assert made(data, tmp_path / "b", "auto", group=["who"]).method == "grouped"
    assert made(data, tmp_path / "c", "auto", time="when").method == "time_series"
    assert made(data, tmp_path / "e", "auto", group=["who"], time="when").method == "grouped"
    temporal = {"group": ["sex"], "time": "when", "split": {"method": "temporal"}}
    assert (
        chosen_method(open_bundle(data.pack({"space": SPACE, "cross_validation": {}}, **temporal)).problem)
        == "time_series"
    )
    label = {"task": "regression", "label": {"column": "y"}}
    assert made(data, tmp_path / "d", "auto", **label).method == "k_fold"


def test_the_division_is_a_function_of_the_seed(data: Any, tmp_path: Path) -> None:
    made(data, tmp_path / "a", "k_fold")
    made(data, tmp_path / "b", "k_fold")
    made(data, tmp_path / "c", "k_fold", tuning={"seed": 1})
    a, b, c = (column(tmp_path / name / "fold-00", "eval", "x") for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_the_raw_rows_to_judge_by_are_there_where_fairness_counts(data: Any, tmp_path: Path) -> None:
    made(data, tmp_path / "folds", "stratified", tuning={"fairness": {}})
    for fold in (tmp_path / "folds").iterdir():
        told = column(fold / "examples", "eval", "x").astype(np.float32) / 2
        assert np.array_equal(told, column(fold, "eval", "x"))
        assert "sex" in ExamplesManifest.read(fold / "examples").columns


def test_more_folds_than_groups_are_refused(data: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fold \d: has no rows to be judged by"):
        made(data, tmp_path / "folds", "grouped", group=["sex"])
    assert not (tmp_path / "folds").exists()


def test_rows_without_a_time_are_refused(data: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every row of the training split needs a time"):
        made(data, tmp_path / "folds", "time_series", time="who")


def test_examples_that_are_not_those_that_were_transformed_are_refused(data: Any, tmp_path: Path) -> None:
    other = tmp_path / "examples" / "train"
    other.mkdir(parents=True)
    for path in parts(data.examples, "train"):
        pq.write_table(pq.read_table(path).slice(1), other / path.name)
    bundle = data.pack({"space": SPACE, "cross_validation": {}})
    with pytest.raises(PlatformError, match="must have the rows of the examples"):
        run(bundle, tmp_path / "examples", data.transformed, tmp_path / "folds")


def test_a_problem_without_cross_validation_is_refused(data: Any, tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=r"needs `tuning\.cross_validation`"):
        run(data.pack({"space": SPACE}), data.examples, data.transformed, tmp_path / "folds")


def test_numbers_are_times_too(data: Any, tmp_path: Path) -> None:
    examples = tmp_path / "examples"
    for path in parts(data.examples, "train"):
        (examples / "train").mkdir(parents=True, exist_ok=True)
        table = pq.read_table(path)
        pq.write_table(table.append_column("at", pa.array(range(table.num_rows))), examples / "train" / path.name)
    manifest = ExamplesManifest.read(data.examples)
    manifest.write(examples)
    settings = {"space": SPACE, "cross_validation": {"folds": 2}}
    report = run(data.pack(settings, time="at"), examples, data.transformed, tmp_path / "folds")
    assert report.method == "time_series"
