"""Which trial is better, who goes on, and what is asked next: pure functions of what is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="needs the tensorflow environment")

from tidemill.bundle import open_bundle  # noqa: E402
from tidemill.errors import UserCodeError  # noqa: E402
from tidemill.tune.conclusion import importance  # noqa: E402
from tidemill.tune.halving import judged, told  # noqa: E402
from tidemill.tune.objectives import Objectives, pareto_fronts  # noqa: E402
from tidemill.tune.sampling import ask  # noqa: E402
from tidemill.tune.space import space_of  # noqa: E402
from tidemill.tune.study import Result, Study, Trial  # noqa: E402
from tidemill.tuning import Pruning, Tuning  # noqa: E402

AUC = Objectives("auc", maximize=True)
FAIR = Objectives("auc", maximize=True, fair=True)
HALVING = Pruning(kind="halving", factor=3)


def result(number: int, auc: float | None = 0.5, rung: int = 0, **more: Any) -> Result:
    return Result(number, rung, epochs=rung + 1, metrics={"auc": auc, "loss": 0.7}, **more)


def trial(number: int, *values: float | None, state: Any = "running", gap: float | None = None, **more: Any) -> Trial:
    results = tuple(result(number, value, rung, gap=gap) for rung, value in enumerate(values))
    return Trial(number, 0, 0, {"x": number}, state=state, results=results, **more)


def test_a_study_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    study = Study((trial(0, 0.7, 0.8), trial(1, state="failed", reason="nan")), 3, "budget")
    study.write(tmp_path)
    assert Study.read(tmp_path) == study


def test_what_a_trial_cost_is_counted_once_however_often_it_went_on() -> None:
    both = (result(0, rung=0, seconds=10.0), result(0, rung=1, seconds=25.0))
    assert (
        Study((Trial(0, 0, 0, {}, results=both), Trial(1, 0, 0, {}, results=(result(1, seconds=5.0),)))).seconds == 30
    )


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Result(0, 0, error="training loss: must stay finite"), "training loss: must stay finite"),
        (result(0, None), "auc is undefined"),
        (result(0, float("nan")), "auc is undefined"),
        (Result(0, 0, metrics={"loss": 1.0}), "there is no eval metric auc; there is loss"),
    ],
)
def test_a_trial_without_a_value_has_failed_for_a_reason_that_is_kept(outcome: Result, reason: str) -> None:
    (failed,) = told([Trial(0, 0, 0, {})], [outcome], AUC)
    assert (failed.state, failed.reason) == ("failed", reason)


def test_a_trial_whose_groups_cannot_be_compared_has_failed_where_fairness_counts() -> None:
    (failed,) = told([Trial(0, 0, 0, {})], [result(0, 0.8)], FAIR)
    assert "fewer than two groups" in failed.reason


def test_a_result_that_was_told_before_is_not_counted_twice() -> None:
    once = told([Trial(0, 0, 0, {})], [result(0)], AUC)
    assert told(once, [result(0)], AUC) == once


def test_of_a_cohort_the_best_third_goes_on_and_the_others_are_told_why_not() -> None:
    cohort = [trial(i, value) for i, value in enumerate((0.5, 0.9, 0.6, 0.8, 0.7, 0.55))]
    after = judged(cohort, AUC, HALVING, (1, 3, 9))
    assert [t.number for t in after if t.state == "running"] == [1, 3]
    assert after[4].state == "pruned"
    expected = "after 1 epochs it was number 3 of 6 (auc 0.7000); the best 2 went on (auc 0.8000)"
    assert after[4].reason == expected


def test_of_a_small_cohort_one_goes_on_so_that_something_is_trained_to_the_end() -> None:
    after = judged([trial(0, 0.6), trial(1, 0.7)], AUC, HALVING, (1, 3))
    assert [t.state for t in after] == ["pruned", "running"]


def test_on_the_last_rung_all_are_complete() -> None:
    after = judged([trial(0, 0.6, 0.7), trial(1, 0.5, 0.6)], AUC, HALVING, (1, 3))
    assert {t.state for t in after} == {"complete"}


def test_cohorts_are_judged_apart() -> None:
    first, second = trial(0, 0.6, 0.9), Trial(1, 1, 0, {}, results=(result(1, 0.2),))
    after = judged([first, second], AUC, HALVING, (1, 3, 9))
    assert {t.state for t in after} == {"running"}, "each is the best of its own cohort"


def test_pareto_fronts_of_known_points() -> None:
    assert pareto_fronts([(1, 4), (2, 2), (4, 1), (3, 3), (4, 4)]) == [0, 0, 0, 1, 2]
    assert pareto_fronts([(1, 1), (1, 1)]) == [0, 0]


def test_the_best_is_the_best_of_those_that_were_trained_longest() -> None:
    trials = [trial(0, 0.95, state="pruned"), trial(1, 0.7, 0.8, state="complete"), trial(2, 0.7, 0.85)]
    assert AUC.best(trials).number == 2


def test_with_a_fairness_limit_the_best_within_it_is_chosen_or_the_fairest() -> None:
    trials = [trial(0, 0.9, gap=0.3), trial(1, 0.8, gap=0.08), trial(2, 0.7, gap=0.05)]
    assert Objectives("auc", True, True, 0.1).best(trials).number == 1
    assert Objectives("auc", True, True, 0.01).best(trials).number == 2


def test_without_a_limit_the_nearest_to_the_best_of_both_is_chosen() -> None:
    trials = [trial(0, 0.9, gap=0.3), trial(1, 0.88, gap=0.06), trial(2, 0.7, gap=0.05), trial(3, 0.6, gap=0.2)]
    assert FAIR.best(trials).number == 1
    assert [t.number for t in FAIR.front(trials)] == [0, 1, 2]


def searched(**more: Any) -> Tuning:
    space = {
        "learning_rate": {"low": 0.001, "high": 0.1, "log": True},
        "hidden_units": {"choices": [[8], [16, 8]]},
        "optimizer.kind": {"choices": ["adam", "sgd"]},
        "optimizer.momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer.kind": "sgd"}},
        "batch_size": {"low": 32, "high": 128, "step": 32},
    }
    return Tuning.model_validate({"space": space, "objective": "auc", "startup_trials": 4, **more})


def test_what_is_asked_is_a_function_of_the_seed_the_round_and_the_results(data: Any) -> None:
    tuning = searched()
    space = space_of(open_bundle(data.pack(tuning.model_dump(mode="json", exclude_unset=True))))
    first = ask(tuning, space, AUC, [], 0, 6)
    assert first == ask(tuning, space, AUC, [], 0, 6)
    assert first != ask(tuning, space, AUC, [], 1, 6)
    assert first != ask(searched(seed=1), space, AUC, [], 0, 6)
    for asked in first:
        values = asked.hyperparameters
        assert values["hidden_units"] in ([8], [16, 8])
        assert values["batch_size"] in (32, 64, 96, 128)
        assert ("optimizer.momentum" in values) == (values["optimizer.kind"] == "sgd")


@pytest.mark.parametrize("state", ["complete", "pruned", "running", "failed"])
def test_the_sampler_learns_from_trials_however_they_ended(data: Any, state: Any) -> None:
    """All good trials have large rates: what is asked next has larger ones than chance would give."""
    tuning = searched()
    space = space_of(open_bundle(data.pack(tuning.model_dump(mode="json", exclude_unset=True))))
    from dataclasses import replace

    known = [
        replace(t, state=state, results=() if state == "failed" else (result(t.number, t.parameters["learning_rate"]),))
        for t in ask(tuning, space, AUC, [], 0, 16)
    ]
    asked = ask(tuning, space, AUC, known, 1, 8)
    mean = sum(t.hyperparameters["learning_rate"] for t in asked) / len(asked)
    chance = 0.0215  # of the log-uniform distribution from 0.001 to 0.1
    assert (mean > 1.5 * chance) == (state != "failed")


def test_two_objectives_are_searched_too(data: Any) -> None:
    from dataclasses import replace

    tuning = searched()
    space = space_of(open_bundle(data.pack(tuning.model_dump(mode="json", exclude_unset=True))))
    asked = ask(tuning, space, FAIR, [], 0, 6)
    known = [replace(t, results=(result(t.number, 0.5 + t.number / 10, gap=0.1),)) for t in asked]
    assert len(ask(tuning, space, FAIR, known, 1, 3)) == 3


def test_no_configuration_is_tried_twice_and_an_exhausted_space_says_no_more(data: Any) -> None:
    tuning = Tuning.model_validate({"space": {"hidden_units": {"choices": [[4], [8], [16]]}}, "sampler": "random"})
    space = space_of(open_bundle(data.pack(tuning.model_dump(mode="json", exclude_unset=True))))
    asked = ask(tuning, space, AUC, [], 0, 8)
    assert sorted(t.hyperparameters["hidden_units"] for t in asked) == [[4], [8], [16]]


CODE = """
def space(trial):
    layers = trial.suggest_int("layers", 1, 3)
    return {"hidden_units": [16] * layers, "dropout": 0.1 * layers}

def number(trial):
    return 3

def raises(trial):
    raise KeyError("nothing here")

def unwritable(trial):
    return {"dropout": object()}
"""


def test_a_search_space_may_be_code(data: Any) -> None:
    bundle = data.pack({"objective": "auc"}, CODE, user_code={"search_space": "search:space"})
    tuning = open_bundle(bundle).problem.tuning
    assert tuning is not None
    for asked in ask(tuning, space_of(open_bundle(bundle)), AUC, [], 0, 3):
        layers = asked.parameters["layers"]
        assert asked.hyperparameters == {"hidden_units": [16] * layers, "dropout": 0.1 * layers}


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        ("number", "must return a dict from dotted paths"),
        ("raises", "raised while it drew a trial (got KeyError: 'nothing here')"),
        ("unwritable", "must return values that JSON can hold"),
        ("absent", "has no function absent"),
    ],
)
def test_faulty_code_is_the_users_fault(data: Any, function: str, fault: str) -> None:
    bundle = data.pack({"objective": "auc"}, CODE, user_code={"search_space": f"search:{function}"})
    with pytest.raises(UserCodeError) as refused:
        ask(Tuning(), space_of(open_bundle(bundle)), AUC, [], 0, 1)
    assert fault in str(refused.value)


def test_the_importance_is_that_of_what_made_trials_good(data: Any) -> None:
    from dataclasses import replace

    tuning = searched()
    space = space_of(open_bundle(data.pack(tuning.model_dump(mode="json", exclude_unset=True))))
    asked = [replace(t, parameters={**t.parameters}) for t in ask(tuning, space, AUC, [], 0, 40)]
    known = [replace(t, results=(result(t.number, t.parameters["learning_rate"]),)) for t in asked]
    shares = importance(known, AUC)
    assert next(iter(shares)) == "learning_rate"
    assert importance(known[:3], AUC) == {}, "three trials say nothing"
    assert importance([], AUC) == {}
