"""The stage as the component calls it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.artifacts import ModelManifest, parts
from tidemill.decisions import Check, Decision, read_decision
from tidemill.errors import DataError
from tidemill.evaluate import scoring
from tidemill.evaluate.run import EvaluationReport, run

BINARY = "binary_classification"


class Stage:
    """Runs the stage on the shared artefacts, each time into fresh directories."""

    def __init__(self, scratch: Path, bundle_of: Any, examples_of: Any, model_of: Any, problem_of: Any) -> None:
        self.scratch = scratch
        self._bundle_of, self._examples_of, self._model_of, self._problem_of = (
            bundle_of,
            examples_of,
            model_of,
            problem_of,
        )

    def __call__(
        self,
        task: str = BINARY,
        model: Path | None = None,
        champion: Path | None = None,
        examples: Path | None = None,
        **changes: Any,
    ) -> EvaluationReport:
        none = self.scratch / "no-champion"
        none.mkdir(exist_ok=True)
        return run(
            str(self._bundle_of(self._problem_of(task, **changes))),
            str(examples or self._examples_of(task)),
            str(model or self._model_of(task)),
            str(champion or none),
            str(self.scratch / "evaluation"),
            str(self.scratch / "blessing"),
            str(self.scratch / "predictions"),
        )

    @property
    def decision(self) -> Decision:
        return read_decision(self.scratch / "blessing")

    @property
    def document(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.scratch / "evaluation/metrics.json").read_text())
        return value

    def check(self, name: str, **slice_: str) -> Check:
        return next(check for check in self.decision.checks if check.name == name and check.slice == slice_)


@pytest.fixture
def stage(tmp_path: Path, bundle_of: Any, examples_of: Any, model_of: Any, problem_of: Any) -> Stage:
    return Stage(tmp_path, bundle_of, examples_of, model_of, problem_of)


def test_every_test_row_has_its_answer_in_its_place(stage: Stage, examples_of: Callable[[str], Path]) -> None:
    report = stage()
    files = sorted((stage.scratch / "predictions").glob("part-*.parquet"))
    answers = pa.concat_tables([pq.read_table(file) for file in files])
    assert answers.column("row").to_pylist() == list(range(2001))
    assert report.rows == 2001
    rows = pa.concat_tables([pq.read_table(p) for p in parts(examples_of(BINARY), "test")]).to_pandas()
    signal = rows["score"].fillna(0.0) + np.where(rows["colour"] == "red", 0.3, 0.0)
    expected = 1 / (1 + np.exp(-2 * signal))
    assert answers.column("probability").to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-5)
    assert [len(pq.read_table(file)) for file in files] == [1002, 999]


def test_the_size_of_batches_changes_neither_answers_nor_metrics(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 rows at a time leave a last, partial batch in each file; no row may be dropped or misplaced."""
    whole = stage(weight="weight").metrics
    answers = pq.read_table(stage.scratch / "predictions")
    monkeypatch.setattr(scoring, "BATCH_ROWS", 300)
    monkeypatch.setattr(scoring, "_PREDICT_ROWS", 128)
    assert stage(weight="weight").metrics == pytest.approx(whole, rel=1e-7)
    again = pq.read_table(stage.scratch / "predictions")
    assert again.column("row") == answers.column("row")
    assert again.column("label") == answers.column("label")
    assert again.column("probability").to_numpy() == pytest.approx(answers.column("probability").to_numpy(), abs=1e-6)


@pytest.mark.parametrize("task", [BINARY, "multiclass_classification", "regression"])
def test_a_model_without_limits_passes_and_the_report_is_json(stage: Stage, task: str) -> None:
    report = stage(task)
    assert report.passed
    json.dumps(asdict(report), allow_nan=False)
    assert (report.roc is not None) == (task == BINARY)
    assert (report.confusion is not None) == (task != "regression")
    if report.roc:
        fpr, tpr, thresholds = report.roc
        assert len(fpr) == len(tpr) == len(thresholds) <= 210
        assert fpr == sorted(fpr)
        assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_two_runs_write_the_same_bytes(stage: Stage) -> None:
    def contents() -> dict[str, bytes]:
        files = [p for name in ("evaluation", "blessing", "predictions") for p in (stage.scratch / name).rglob("*")]
        return {str(p.relative_to(stage.scratch)): p.read_bytes() for p in files if p.is_file()}

    stage(baseline="prior")
    first = contents()
    stage(baseline="prior")
    assert contents() == first
    assert not list(stage.scratch.glob(".*"))


def test_limits_block_and_say_why(stage: Stage) -> None:
    quality = [{"metric": "auc", "min": 0.99}, {"metric": "log_loss", "max": 5.0}]
    report = stage(gates={"quality": quality, "fairness": [{"metric": "demographic_parity_gap", "max": 0.9}]})
    assert not report.passed
    (refusal,) = stage.decision.refusals
    assert (refusal.name, refusal.limit, refusal.slice) == ("auc", 0.99, {})
    assert refusal.value == pytest.approx(report.metrics["auc"])
    assert refusal.message in report.refusals
    assert "at least 0.99 is required" in refusal.message


def test_limits_on_sensitive_slices_hold_for_each_of_them(stage: Stage) -> None:
    stage(gates={"quality": [{"metric": "accuracy", "min": 0.74, "slices": "sensitive", "min_examples": 150}]})
    checks = stage.decision.checks
    assert {} not in [check.slice for check in checks]
    assert {"colour": "(missing)"} in [check.slice for check in checks]
    small = [check for check in checks if not check.blocking]
    assert small
    assert all("fewer than 150 rows" in check.message for check in small)
    failed = [check for check in checks if not check.passed]
    assert failed
    assert list(stage.decision.refusals) == [check for check in failed if check.blocking]
    assert "for sex = Female" in stage.check("accuracy", sex="Female").message


def test_a_worse_challenger_is_refused_and_a_better_one_is_not(stage: Stage, model_of: Callable[..., Path]) -> None:
    better, worse = model_of(BINARY), model_of(BINARY, noise=0.5)
    quality = [
        {"metric": "auc", "max_worse_than_champion": 0.001},
        {"metric": "log_loss", "max_worse_than_champion": 0.001},
    ]
    assert stage(model=better, champion=worse, gates={"quality": quality}).passed
    report = stage(model=worse, champion=better, gates={"quality": quality})
    assert [check.name for check in stage.decision.refusals] == [
        "auc.worse_than_champion",
        "log_loss.worse_than_champion",
    ]
    assert [message.count("is required") for message in report.refusals] == [1, 1]
    blessing = json.loads((stage.scratch / "blessing/blessing.json").read_text())
    assert blessing["champion"] == ModelManifest.read(better).digest == report.champion
    assert blessing["challenger"] == ModelManifest.read(worse).digest
    overall = stage.document["champion"]["metrics"][0]["values"]["auc"]
    assert overall["difference"] == pytest.approx(report.metrics["auc"] - overall["value"])
    assert overall["low"] < overall["difference"] < overall["high"] < 0


def test_a_champion_is_beaten_or_not_on_sensitive_slices_too(stage: Stage, model_of: Callable[..., Path]) -> None:
    quality = [{"metric": "brier", "max_worse_than_champion": 0.0, "slices": "sensitive"}]
    stage(model=model_of(BINARY, noise=0.5), champion=model_of(BINARY), gates={"quality": quality})
    assert not stage.check("brier.worse_than_champion", sex="Female").passed


def test_without_a_champion_its_limits_hold(stage: Stage) -> None:
    assert stage(gates={"quality": [{"metric": "auc", "max_worse_than_champion": 0.0}]}).passed
    (check,) = stage.decision.checks
    assert "no champion yet" in check.message
    assert stage.document["champion"] is None


def test_the_champion_itself_is_as_good_as_the_champion(stage: Stage, model_of: Callable[..., Path]) -> None:
    model = model_of(BINARY)
    assert stage(
        model=model, champion=model, gates={"quality": [{"metric": "auc", "max_worse_than_champion": 0}]}
    ).passed
    assert stage.document["champion"]["metrics"][0]["values"]["auc"]["difference"] == 0


def test_a_champion_of_other_classes_cannot_be_compared_and_does_not_pass_silently(
    stage: Stage, model_of: Callable[..., Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(model_of(BINARY, noise=0.5), other)
    manifest = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**manifest, "classes": ["bad", "good"]}))
    report = stage(champion=other, gates={"quality": [{"metric": "auc", "max_worse_than_champion": 0.1}]})
    assert not report.passed
    assert "the champion knows the classes bad, good" in report.refusals[0]
    (other / "model.json").write_text(json.dumps({**manifest, "task": "regression"}))
    stage(champion=other)
    assert stage.document["champion"]["comparable"] is False
    assert "the champion does regression" in stage.document["champion"]["reason"]


@pytest.mark.parametrize(
    ("task", "rule", "name"),
    [
        (BINARY, "majority", "accuracy"),
        (BINARY, "prior", "log_loss"),
        ("multiclass_classification", "majority", "accuracy"),
        ("regression", "mean", "rmse"),
    ],
)
def test_a_baseline_must_be_beaten(stage: Stage, task: str, rule: str, name: str) -> None:
    assert stage(task, baseline=rule).passed
    (check,) = stage.decision.checks
    assert check.name == f"{name}.better_than_baseline"
    assert stage.document["baseline"]["rule"] == rule


def test_a_model_no_better_than_its_baseline_is_refused(stage: Stage, model_of: Callable[..., Path]) -> None:
    assert not stage(model=model_of(BINARY, noise=9.0), baseline="prior").passed
    quality = [{"metric": "accuracy", "min_better_than_baseline": 0.4}]
    assert not stage(baseline="majority", gates={"quality": quality}).passed
    assert len(stage.decision.checks) == 1  # the problem's own limit takes the place of the implied one
    assert "at least 0.4 better than the rule `majority`" in stage.decision.refusals[0].expected


def test_baselines_are_fitted_on_the_training_split(stage: Stage, examples_of: Callable[[str], Path]) -> None:
    stage(weight="weight", baseline="prior")
    train = pa.concat_tables([pq.read_table(p) for p in parts(examples_of(BINARY), "train")]).to_pandas()
    prior = np.average(train["label"] == "yes", weights=train["weight"])
    shown = stage.document["baseline"]["metrics"][0]["values"]["mean_prediction"]["value"]
    assert shown == pytest.approx(prior, abs=1e-9)


def test_answers_that_are_not_numbers_refuse_the_model(stage: Stage, model_of: Callable[..., Path]) -> None:
    quality = [{"metric": "auc", "min": 0.1}, {"metric": "auc", "min": 0.1, "slices": "sensitive"}]
    report = stage(model=model_of(BINARY, answer_nan=True), gates={"quality": quality})
    assert not report.passed
    assert "auc" not in report.metrics
    answers, refusal = stage.decision.refusals
    assert answers.name == "answers"
    assert "not defined" in refusal.message
    red = stage.check("auc", colour="red")
    assert not red.passed
    assert not red.blocking
    assert stage.document["metrics"][0]["values"]["auc"]["value"] is None


@pytest.mark.parametrize("task", [BINARY, "multiclass_classification", "regression"])
def test_answers_that_are_not_numbers_refuse_the_model_whatever_the_limits(
    stage: Stage, model_of: Callable[..., Path], task: str
) -> None:
    """Fairness counts answers from a threshold on, and must not take what is no answer for a no."""
    fairness = [{"metric": "demographic_parity_gap", "max": 1.0}] if task == BINARY else []
    assert not stage(task, model=model_of(task, answer_nan=True), gates={"fairness": fairness}).passed
    (refusal,) = stage.decision.refusals
    assert refusal.name == "answers"


def test_a_champion_that_reads_a_column_of_another_type_is_not_compared(
    stage: Stage, model_of: Callable[..., Path], examples_of: Callable[[str], Path], tmp_path: Path
) -> None:
    other, examples = tmp_path / "other", tmp_path / "examples"
    shutil.copytree(model_of(BINARY, noise=0.5), other)
    manifest = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**manifest, "inputs": {"score": "float32", "colour": "int64"}}))
    shutil.copytree(examples_of(BINARY), examples)
    report = stage(
        champion=other, examples=examples, gates={"quality": [{"metric": "auc", "max_worse_than_champion": 0.1}]}
    )
    assert not report.passed
    assert "the champion reads colour as int64 and it is string now" in report.refusals[0]


def test_intervals_of_calibration_bins_do_not_depend_on_the_unit_of_the_weights(
    stage: Stage, examples_of: Callable[[str], Path], tmp_path: Path
) -> None:
    def bins(factor: float) -> list[dict[str, float]]:
        examples = tmp_path / f"by{factor}"
        shutil.copytree(examples_of(BINARY), examples)
        for split in ("train", "test"):
            for path in parts(examples, split):
                rows = pq.read_table(path)
                weights = pa.compute.multiply(rows["weight"], factor)
                pq.write_table(rows.set_column(rows.column_names.index("weight"), "weight", weights), path)
        stage(examples=examples, weight="weight")
        return [{k: bin_[k] for k in ("label_low", "label_high")} for bin_ in stage.document["calibration"]["bins"]]

    for one, other in zip(bins(1.0), bins(64.0), strict=True):
        assert one == pytest.approx(other, rel=1e-9)


def test_a_slice_of_one_class_is_shown_as_not_decided(stage: Stage, tmp_path: Path, examples_of: Any) -> None:
    examples = tmp_path / "examples"
    shutil.copytree(examples_of(BINARY), examples)
    for path in parts(examples, "test"):
        rows = pq.read_table(path).to_pandas()
        rows.loc[rows["colour"] == "blue", "label"] = "yes"
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path)
    assert stage(examples=examples, gates={"quality": [{"metric": "auc", "min": 0.5, "slices": "sensitive"}]}).passed
    blue = stage.check("auc", colour="blue")
    assert (blue.passed, blue.blocking) == (False, False)
    assert "one class only" in blue.message


def test_fairness_limits_are_held_over_each_sensitive_key(stage: Stage) -> None:
    fairness = [
        {"metric": "equal_opportunity_gap", "max": 0.0001},
        {"metric": "demographic_parity_ratio", "min": 0.01, "over": ["sex"]},
    ]
    assert not stage(gates={"fairness": fairness}).passed
    names = [check.name for check in stage.decision.checks]
    assert names == [
        "equal_opportunity_gap[sex]",
        "equal_opportunity_gap[colour]",
        "equal_opportunity_gap[colour,sex]",
        "equal_opportunity_gap[age]",
        "demographic_parity_ratio[sex]",
    ]
    assert [check.passed for check in stage.decision.checks] == [False, False, False, False, True]
    assert "the true positive rate is lowest for sex = " in stage.decision.checks[0].message
    over_sex = stage.document["fairness"][0]
    assert over_sex["over"] == ["sex"]
    assert {group["slice"]["sex"] for group in over_sex["groups"]} == {"Female", "Male"}


def test_groups_too_small_to_compare_do_not_pass_silently(stage: Stage) -> None:
    fairness = [{"metric": "equal_opportunity_gap", "max": 0.5, "over": ["sex"], "min_examples": 5000}]
    assert stage(gates={"fairness": fairness}).passed
    (warning,) = stage.decision.warnings
    assert "fewer than two groups" in warning.message


def test_the_confusion_matrix_and_calibration_account_for_every_row(stage: Stage) -> None:
    report = stage()
    assert report.confusion is not None
    assert report.confusion[0] == ["no", "yes"]
    assert sum(map(sum, report.confusion[1])) == 2001
    assert sum(bin_["weight"] for bin_ in stage.document["calibration"]["bins"]) == 2001


def test_a_test_split_without_rows_is_an_error(stage: Stage, tmp_path: Path, examples_of: Any) -> None:
    examples = tmp_path / "examples"
    shutil.copytree(examples_of(BINARY), examples)
    shutil.rmtree(examples / "test")
    with pytest.raises(DataError, match="the test split has no row"):
        stage(examples=examples)
    assert not (stage.scratch / "blessing").exists()


def test_a_truncated_file_is_an_error_that_names_it(stage: Stage, tmp_path: Path, examples_of: Any) -> None:
    examples = tmp_path / "examples"
    shutil.copytree(examples_of(BINARY), examples)
    path = parts(examples, "test")[1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"part-00001.parquet: is not a whole Parquet file"):
        stage(examples=examples)


def test_a_model_of_other_classes_than_the_datas_is_an_error(
    stage: Stage, tmp_path: Path, model_of: Callable[..., Path]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(model_of(BINARY), other)
    manifest = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**manifest, "classes": ["yes", "no"]}))
    with pytest.raises(DataError, match="must know the classes"):
        stage(model=other)


def test_what_a_killed_run_left_is_cleared_and_a_failed_one_changes_nothing(
    stage: Stage, tmp_path: Path, model_of: Callable[..., Path]
) -> None:
    (tmp_path / ".predictions.0123abcd.partial").mkdir()
    (tmp_path / ".predictions.0123abcd.partial" / "part-00000.parquet").write_text("half")
    stage()
    assert not list(tmp_path.glob(".*"))
    before = (tmp_path / "blessing" / "blessing.json").read_bytes()
    broken = tmp_path / "broken"
    shutil.copytree(model_of(BINARY), broken)
    (broken / "saved_model" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(Exception, match=r"(?i)saved.?model"):
        stage(model=broken)
    assert (tmp_path / "blessing" / "blessing.json").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("value", [None, "perhaps"])
def test_a_label_that_is_no_class_is_an_error_that_names_it(
    stage: Stage, tmp_path: Path, examples_of: Any, value: str | None
) -> None:
    examples = tmp_path / "examples"
    shutil.copytree(examples_of(BINARY), examples)
    path = parts(examples, "test")[1]
    rows = pq.read_table(path).to_pandas()
    rows.loc[3, "label"] = value
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path)
    with pytest.raises(DataError, match=f"every row needs one of no, yes.*{value!r}"):
        stage(examples=examples)
    assert not (stage.scratch / "evaluation").exists()
