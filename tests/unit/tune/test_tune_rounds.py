"""Whole rounds as the pipeline runs them, with real trainings: suggest, trial, suggest, …, conclude."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="needs the tensorflow environment")

from tidemill.errors import UserError
from tidemill.hyperparameters import read_hyperparameters
from tidemill.tune import run as rounds
from tidemill.tune.conclusion import Conclusion
from tidemill.tune.folds import run as fold
from tidemill.tune.study import CHECKPOINTS, Result, Study
from tidemill.tune.trial import TrialReport
from tidemill.tune.trial import run as trial

SPACE = {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}, "hidden_units": {"choices": [[4], [8, 4]]}}


def invented(item: str, result: Path) -> TrialReport:
    """A trial that is not trained: better the larger its rate, and a second per epoch."""
    order = json.loads(item)
    result.mkdir(parents=True)
    if "number" not in order:
        return TrialReport("idle")
    (result / CHECKPOINTS).mkdir()
    (result / CHECKPOINTS / "of").write_text(str(order["number"]))
    auc, epochs = order["hyperparameters"].get("learning_rate", 0.05), order["epochs"] or 9
    error = "loss: must stay finite" if order["hyperparameters"].get("dropout") == 0.5 else None
    Result(order["number"], order["rung"], epochs, {"auc": auc}, ({"auc": auc},), 0.1, epochs, error).write(result)
    return TrialReport("trained", order["number"])


@dataclass
class Search:
    """A tuning in a directory, driven as the compiled pipeline drives it."""

    root: Path
    whole: Path
    try_one: Callable[[str, Path], Any] = invented
    items: list[list[dict[str, Any]]] = field(default_factory=list)
    before: Path | None = None
    results: list[Path] = field(default_factory=list)

    def suggest(self) -> rounds.SuggestReport:
        number = len(self.items)
        study, self.continued = self.root / f"study-{number}", self.root / f"continued-{number}"
        report = rounds.suggest(self.whole, self.before, self.results, study, self.continued)
        self.items.append([json.loads(item) for item in report.items])
        self.before = study
        self.results = [self.root / f"round-{number}-{i}" for i in range(len(report.items))]
        for item, result in zip(report.items, self.results, strict=True):
            self.try_one(item, result)
        return report

    def conclude(self) -> Conclusion:
        assert self.before is not None
        found, told = self.root / "hyperparameters", self.root / "tuning"
        return rounds.conclude(self.whole, self.before, self.results, found, told)

    @property
    def document(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.root / "tuning" / "tuning.json").read_text())
        return value


def tuning(**more: Any) -> dict[str, Any]:
    return {"space": SPACE, "objective": "auc", "trials_per_round": 3, "budget": {"trials": 6}, **more}


def test_the_first_trial_is_the_problems_own_and_the_best_feeds_training(
    data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = Search(tmp_path, data.pack(tuning()))
    first, second = search.suggest(), search.suggest()
    assert search.items[0][0]["hyperparameters"] == {}
    assert (first.new, second.new, second.stopped) == (3, 3, "")
    found = search.conclude()
    assert found.trials == {"complete": 6}
    assert found.value == max(0.05, *(i["hyperparameters"].get("learning_rate", 0) for r in search.items for i in r))
    assert found.own_value == 0.05
    assert read_hyperparameters(tmp_path / "hyperparameters") == dict(found.hyperparameters)
    assert [row["number"] for row in search.document["all"]] == [0, 1, 2, 3, 4, 5]
    assert search.document["all"][0]["settings"]["learning_rate"] == 0.003, "what the problem's own settings are"
    assert search.document["log"] == ["learning_rate"]
    assert "tune: trial 0: the problem's own settings" in capsys.readouterr().out


def test_halving_goes_on_from_the_checkpoints_of_those_that_are_kept_and_says_why_others_end(
    data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tuning(trials_per_round=6, pruning={"kind": "halving", "min_epochs": 3})
    search = Search(tmp_path, data.pack(settings, training={"max_epochs": 9}))
    search.suggest()
    assert {item["epochs"] for item in search.items[0]} == {3}
    report = search.suggest()
    assert (report.new, report.continued, report.pruned) == (0, 2, 4)
    assert [(item["rung"], item["epochs"], item["resumed"]) for item in search.items[1]] == [(1, None, True)] * 2
    kept = {f"trial-{item['number']}" for item in search.items[1]}
    assert {path.name for path in search.continued.iterdir()} == kept
    assert all((search.continued / name / "of").read_text() == name.removeprefix("trial-") for name in kept)
    assert "pruned: after 3 epochs it was number 3 of 6" in capsys.readouterr().out
    found = search.conclude()
    assert found.trials == {"complete": 2, "pruned": 4}


def test_a_round_without_anything_to_do_has_one_item_that_says_so(data: Any, tmp_path: Path) -> None:
    search = Search(tmp_path, data.pack(tuning(trials_per_round=2, budget={"trials": 2})))
    search.suggest()
    report = search.suggest()
    assert report.stopped == "all 2 trials have begun"
    assert search.items[1] == [{"key": "idle"}]
    assert search.conclude().trials == {"complete": 2}


@pytest.mark.parametrize("budget", [{"hours": 0.005}, {"cost": 0.01, "hourly_rate": 2}])
def test_a_budget_that_is_used_up_ends_the_search(data: Any, tmp_path: Path, budget: Any) -> None:
    """Each trial takes 9 s, the budget is 18 s."""
    search = Search(tmp_path, data.pack(tuning(budget={"trials": 6, **budget})))
    search.suggest()
    report = search.suggest()
    assert report.stopped == "budget: 27 of 18 s of training are used up"
    assert search.items[1] == [{"key": "idle"}]
    found = search.conclude()
    assert found.trials == {"complete": 3}
    assert found.stopped == report.stopped
    assert found.cost == (None if "cost" not in budget else pytest.approx(0.015))


def test_a_budget_that_is_used_up_ends_trials_that_would_go_on(data: Any, tmp_path: Path) -> None:
    settings = tuning(budget={"trials": 6, "hours": 0.002}, pruning={"kind": "halving", "min_epochs": 3})
    search = Search(tmp_path, data.pack(settings, training={"max_epochs": 9}))
    search.suggest()
    assert search.suggest().continued == 0
    assert search.conclude().trials == {"pruned": 3}
    assert "the budget was used up" in {row["reason"] for row in search.document["all"]}


def test_a_budget_also_ends_trials_that_would_go_on_when_all_have_begun(data: Any, tmp_path: Path) -> None:
    """18 trials of 1 s, 6 that go on to 3 s make 30 s; the budget of 28.8 s is used up before the 2 that are left."""
    budget = {"trials": 18, "hours": 0.008}
    settings = tuning(trials_per_round=18, budget=budget, pruning={"kind": "halving", "min_epochs": 1})
    search = Search(tmp_path, data.pack(settings, training={"max_epochs": 9}))
    assert search.suggest().new == 18
    second = search.suggest()
    assert (second.stopped, second.continued) == ("all 18 trials have begun", 6)
    third = search.suggest()
    assert third.stopped.startswith("budget: 30 of 29 s")
    assert search.items[2] == [{"key": "idle"}]
    reasons = [trial.reason for trial in Study.read(tmp_path / "study-2").trials]
    assert reasons.count("the budget was used up") == 2
    search.suggest()
    told = [trial.reason for trial in Study.read(tmp_path / "study-3").trials]
    assert told == reasons, "whom the budget ended is not judged again"


def test_failed_trials_are_told_and_do_not_end_the_search(data: Any, tmp_path: Path) -> None:
    space = {"dropout": {"choices": [0.5, 0.1]}, "learning_rate": {"low": 0.01, "high": 0.1}}
    search = Search(tmp_path, data.pack(tuning(space=space)))
    search.suggest()
    second = search.suggest()
    found = search.conclude()
    failed = [row for row in search.document["all"] if row["state"] == "failed"]
    assert failed
    assert {row["reason"] for row in failed} == {"loss: must stay finite"}
    assert found.trials["complete"] == 6 - len(failed)
    assert second.failed == sum(row["number"] < 3 for row in failed)


def test_a_search_in_which_every_trial_fails_is_the_users_fault(data: Any, tmp_path: Path) -> None:
    search = Search(tmp_path, data.pack(tuning(objective="profit", direction="maximize")))
    search.suggest()
    with pytest.raises(UserError, match=r"needs a trial that can be trained; all have failed .*no eval metric profit"):
        search.conclude()
    assert not (tmp_path / "hyperparameters").exists()


def test_the_same_results_give_the_same_study_and_suggestions(data: Any, tmp_path: Path) -> None:
    """So a run that is repeated, or goes on after a kill, reuses its trials."""
    whole = data.pack(tuning())
    searches = [Search(tmp_path / name, whole) for name in ("a", "b")]
    for search in searches:
        search.suggest()
        search.suggest()
    assert searches[0].items == searches[1].items
    assert Study.read(tmp_path / "a" / "study-1") == Study.read(tmp_path / "b" / "study-1")


def test_a_longer_search_begins_with_the_trials_of_the_shorter_one(data: Any, tmp_path: Path) -> None:
    """A trial is given nothing of the budget, so more of it makes no trial again."""
    searches = [Search(tmp_path / str(trials), data.pack(tuning(budget={"trials": trials}))) for trials in (6, 9)]
    for search in searches:
        search.suggest()
        search.suggest()
    assert searches[0].items == searches[1].items


def test_a_round_too_large_for_a_parameter_is_refused(data: Any, tmp_path: Path) -> None:
    space = {"hidden_units": {"choices": [[i] * 300 for i in range(1, 40)]}}
    search = Search(tmp_path, data.pack(tuning(space=space, trials_per_round=20, budget={"trials": 20})))
    with pytest.raises(UserError, match=r"round 1: is too large for a pipeline's parameter"):
        search.suggest()


def test_a_problem_without_a_tuning_is_refused(data: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs `tuning`"):
        Search(tmp_path, data.pack()).suggest()


@pytest.fixture(scope="module")
def shape(data: Any) -> Path:
    path: Path = data.pack(view="model", training={"max_epochs": 4, "batch_size": 64, "hidden_units": [4]})
    return path


def item(number: int = 1, **more: Any) -> str:
    order = {"key": f"trial-{number}", "number": number, "rung": 0, "resumed": False, "epochs": None}
    return json.dumps({**order, "hyperparameters": {"learning_rate": 0.05}, **more})


def test_a_trial_that_goes_on_ends_as_one_that_was_trained_in_one_go(data: Any, shape: Path, tmp_path: Path) -> None:
    given = (shape, data.transformed, data.graph)
    whole = trial(*given, item(), tmp_path / "whole", tmp_path / "scratch-a").result
    begun = trial(*given, item(epochs=1), tmp_path / "begun", tmp_path / "scratch-b").result
    assert begun is not None
    assert begun.epochs == 1
    continued = tmp_path / "continued"
    shutil.copytree(tmp_path / "begun" / CHECKPOINTS, continued / "trial-1")
    resumed = item(rung=1, resumed=True)
    ended = trial(*given, resumed, tmp_path / "ended", tmp_path / "scratch-c", continued=continued).result
    assert whole is not None
    assert ended is not None
    assert ended.metrics == whole.metrics
    assert ended.epochs == whole.epochs == 4
    assert ended.seconds > begun.seconds
    assert Result.read(tmp_path / "ended") == ended
    assert not (tmp_path / "whole" / CHECKPOINTS).exists(), "nothing goes on from the last rung"


def test_a_trial_hands_its_checkpoints_on_wherever_trainings_leave_theirs(data: Any, tmp_path: Path) -> None:
    training = {"max_epochs": 2, "batch_size": 64, "hidden_units": [4], "checkpoint_uri": f"file://{tmp_path}/far"}
    given = (data.pack(view="model", training=training), data.transformed, data.graph)
    trial(*given, item(epochs=1), tmp_path / "begun", tmp_path / "scratch-a")
    shutil.copytree(tmp_path / "begun" / CHECKPOINTS, tmp_path / "continued" / "trial-1")
    resumed = item(rung=1, resumed=True)
    trial(*given, resumed, tmp_path / "ended", tmp_path / "scratch-b", continued=tmp_path / "continued")
    ended = Result.read(tmp_path / "ended")
    assert ended is not None
    assert ended.epochs == 2
    assert not (tmp_path / "far").exists()
    trial(*given, item(), tmp_path / "whole", tmp_path / "scratch-c")
    assert list((tmp_path / "far").iterdir()) == [], "nothing goes on from a trial that is done"


def test_a_configuration_too_large_for_the_accelerator_is_a_result(
    data: Any, shape: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    def train(*_: Any, **__: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr("tidemill.tune.trial.train", train)
    report = trial(shape, data.transformed, data.graph, item(), tmp_path / "result", tmp_path / "scratch")
    assert report.state == "failed"
    assert "OOM" in str(report.result and report.result.error)


def test_a_configuration_that_cannot_be_trained_is_a_result(data: Any, shape: Path, tmp_path: Path) -> None:
    bad = item(hyperparameters={"optimizer.momentum": 0.9})
    report = trial(shape, data.transformed, data.graph, bad, tmp_path / "result", tmp_path / "scratch")
    assert report.state == "failed"
    assert report.result is not None
    assert "adam has no momentum" in str(report.result.error)
    assert Result.read(tmp_path / "result") == report.result


def test_a_place_without_a_trial_has_no_result(data: Any, shape: Path, tmp_path: Path) -> None:
    idle = json.dumps({"key": rounds.IDLE})
    assert trial(shape, data.transformed, data.graph, idle, tmp_path / "result", tmp_path / "scratch").state == "idle"
    assert Result.read(tmp_path / "result") is None


def test_folds_are_averaged_and_the_gap_is_counted_on_the_rows_that_judge(data: Any, tmp_path: Path) -> None:
    settings = tuning(cross_validation={"folds": 2}, fairness={"min_examples": 5})
    training = {"max_epochs": 1, "batch_size": 64, "hidden_units": [4]}
    fold(data.pack(settings, training=training), data.examples, data.transformed, tmp_path / "folds")
    asked = item(fairness={"metric": "equal_opportunity_gap", "over": ["sex"], "min_examples": 5})
    outputs = (tmp_path / "result", tmp_path / "scratch")
    bundle = data.pack(view="model", training=training)
    done = trial(bundle, data.transformed, data.graph, asked, *outputs, folds=tmp_path / "folds").result
    assert done is not None
    assert len(done.folds) == 2
    assert done.metrics["auc"] == pytest.approx(sum(f["auc"] or 0 for f in done.folds) / 2)
    assert done.gap is not None
    assert 0 <= done.gap <= 1


def test_the_gap_is_that_of_the_evaluation(data: Any, tmp_path: Path) -> None:
    """By hand from the exported model's answers, for two groups that both have positives."""
    import numpy as np
    import pyarrow.parquet as pq

    from tidemill.artifacts import parts
    from tidemill.bundle import open_bundle
    from tidemill.evaluate.scoring import Model
    from tidemill.train.run import run as train
    from tidemill.tune.fairness import gap

    bundle = data.pack(view="model", training={"max_epochs": 2, "batch_size": 32, "learning_rate": 0.05})
    train(bundle, data.transformed, data.graph, tmp_path / "model", tmp_path / "history", tmp_path / "checkpoints")
    asked = {"metric": "equal_opportunity_gap", "over": ["sex"], "min_examples": 1}
    value = gap(tmp_path / "model", data.examples, open_bundle(bundle).problem, asked)
    (path,) = parts(data.examples, "eval")
    (batch,) = pq.ParquetFile(path).iter_batches()
    selected = Model(str(tmp_path / "model")).predict(batch)["probability"] >= 0.5
    sex, positive = (np.array(batch.column(name).to_pylist()) for name in ("sex", "y"))
    rates = [selected[(sex == group) & (positive == "yes")].mean() for group in ("f", "m")]
    assert value == pytest.approx(abs(rates[0] - rates[1]))
    assert gap(tmp_path / "model", data.examples, open_bundle(bundle).problem, {**asked, "min_examples": 99}) is None
