"""``tuning:`` of problem.yaml: what is taken, what is refused and why, and the plan that it amounts to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tidemill.bundle import VIEWS, open_bundle, pack_views
from tidemill.errors import ProblemError
from tidemill.hyperparameters import overlaid, tuned, write_hyperparameters
from tidemill.problem import Problem, parse_problem
from tidemill.training import Training
from tidemill.tuning import Cohort, Parameter, Tuning, plain_space

RATE = {"low": 1e-4, "high": 0.1, "log": True}


def problem(tuning: Any = None, **more: Any) -> Problem:
    value = {
        "name": "toy",
        "task": "binary_classification",
        "label": {"column": "y", "positive": "yes"},
        "features": {"x": "numeric"},
        **({"tuning": tuning} if tuning is not None else {}),
        **more,
    }
    return parse_problem(yaml.safe_dump(value, sort_keys=False), "problem.yaml")


def tuning(**settings: Any) -> Tuning:
    found = problem({"space": {"learning_rate": RATE}, **settings}).tuning
    assert found is not None
    return found


def test_a_space_is_told_in_plain_terms() -> None:
    found = tuning(
        space={
            "learning_rate": RATE,
            "hidden_units": {"choices": [[64, 32], [16]]},
            "batch_size": {"low": 32, "high": 256, "step": 32},
            "optimizer.kind": {"choices": ["adam", "sgd"]},
            "optimizer.momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer.kind": "sgd"}},
        }
    )
    assert plain_space(found) == (
        Parameter("learning_rate", "float", 1e-4, 0.1, log=True),
        Parameter("hidden_units", "categorical", choices=([64, 32], [16])),
        Parameter("batch_size", "int", 32, 256, step=32),
        Parameter("optimizer.kind", "categorical", choices=("adam", "sgd")),
        Parameter("optimizer.momentum", "float", 0.0, 0.9, when=(("optimizer.kind", "sgd"),)),
    )


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"learning_rat": RATE}, "space.learning_rat is no field of `training`"),
        ({"optimizer.knd": {"choices": ["adam"]}}, "space.optimizer.knd is no field of `training`"),
        ({"dropout": {"low": 0.0, "high": 1.5}}, "space.dropout can't be 1.5: Input should be less than 1"),
        ({"hidden_units": {"choices": [[64], ["x"]]}}, "space.hidden_units can't be ['x']"),
        ({"hidden_units": {"low": 1, "high": 2}}, "space.hidden_units takes no numbers from a range: give `choices`"),
        ({"batch_size": {"low": 32, "high": 64.5}}, "space.batch_size takes whole numbers"),
        ({"seed": {"low": 0, "high": 9}}, "the seed is nothing to tune"),
        ({"dropout": {"low": 0.1}}, "needs either `low` and `high`, or `choices`"),
        ({"dropout": {"low": 0.1, "high": 0.3, "choices": [0.1]}}, "needs either `low` and `high`, or `choices`"),
        ({"dropout": {"low": 0.3, "high": 0.1}}, "`low` must be less than `high`"),
        ({"dropout": {"low": 0.0, "high": 0.3, "log": True}}, "`low` must be greater than 0 with `log`"),
        ({"dropout": {"low": 0.1, "high": 0.3, "log": True, "step": 0.1}}, "give `log` or `step`, not both"),
        ({"dropout": {"choices": [0.1], "step": 0.1}}, "`log` and `step` are for a range, not for `choices`"),
        (
            {"optimizer.momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer.kind": "sgd"}}},
            "when names optimizer.kind, which the space has not named before",
        ),
        ({"dropout": {"low": 0.1, "hihg": 0.2}}, "unknown key"),
    ],
)
def test_a_space_that_training_does_not_take_is_refused(space: Any, told: str) -> None:
    with pytest.raises(ProblemError) as refused:
        problem({"space": space})
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "more", "told"),
    [
        ({"objective": "profit"}, {}, "direction is needed for profit"),
        ({"budget": {"cost": 5}}, {}, "`cost` needs `hourly_rate`"),
        ({"space": {"l2": {"low": 1e-6, "high": 1e-2, "log": True}}}, {}, "space.l2: loss is made of it"),
        (
            {"space": {"class_weights": {"choices": [None, "balanced"]}}, "objective": "accuracy"},
            {},
            "space.class_weights: accuracy is made of it",
        ),
        (
            {"pruning": {"kind": "halving"}, "space": {"max_epochs": {"low": 1, "high": 9}}},
            {},
            "space must not have max_epochs with pruning",
        ),
        ({"space": {}}, {}, "tuning needs either `tuning.space` or `user_code.search_space`"),
        ({}, {"user_code": {"search_space": "code:space"}}, "tuning needs either `tuning.space` or"),
        ({"fairness": {}}, {}, "tuning.fairness needs `sensitive`"),
        ({"fairness": {"over": ["sex"]}}, {"sensitive": ["race"]}, "over ['sex'] is not an entry of `sensitive`"),
        (
            {"fairness": {}},
            {"sensitive": ["sex"], "task": "regression", "label": {"column": "y"}},
            "tuning.fairness needs binary_classification",
        ),
        ({"cross_validation": {"method": "grouped"}}, {}, "grouped needs `group`"),
        ({"cross_validation": {"method": "time_series"}}, {}, "time_series needs `time`"),
        ({"cross_validation": {"method": "k_fold"}}, {"group": ["who"]}, "would let groups straddle folds"),
        (
            {"cross_validation": {"method": "stratified"}},
            {"task": "regression", "label": {"column": "y"}},
            "stratified needs a classification task",
        ),
    ],
)
def test_a_tuning_that_does_not_fit_its_problem_is_refused(settings: Any, more: Any, told: str) -> None:
    with pytest.raises(ProblemError) as refused:
        problem({"space": {"learning_rate": RATE}, **settings}, **more)
    assert told in str(refused.value)


def test_what_a_hyperparameter_is_no_part_of_may_judge_it() -> None:
    space = {"l2": {"low": 1e-6, "high": 1e-2}, "class_weights": {"choices": [None, "balanced"]}}
    assert set(tuning(space=space, objective="auc").space) == set(space)


def test_a_search_space_in_code_needs_a_tuning() -> None:
    with pytest.raises(ProblemError, match="search_space needs `tuning`"):
        problem(user_code={"search_space": "code:space"})


def test_the_direction_of_known_metrics_is_known() -> None:
    assert tuning(objective="auc").better == "maximize"
    assert tuning().better == "minimize"
    assert tuning(objective="profit", direction="maximize").better == "maximize"


def test_without_pruning_every_round_is_a_cohort_and_the_last_may_be_smaller() -> None:
    found = tuning(budget={"trials": 10}, trials_per_round=4)
    assert found.cohorts(20) == (Cohort(4, 0), Cohort(4, 0), Cohort(2, 0))
    assert found.rounds(20) == 3


def test_halving_judges_at_growing_epochs_and_needs_a_round_more_for_each() -> None:
    found = tuning(budget={"trials": 6}, trials_per_round=3, pruning={"kind": "halving", "min_epochs": 2})
    assert found.pruning.rungs(20) == (2, 6, 18, 20)
    assert found.rounds(20) == 2 + 3
    assert found.rounds(2) == 2, "a training as short as the first rung is judged once"


def test_hyperband_begins_cohorts_in_turn_on_each_rung_with_fewer_trials_the_longer_they_train() -> None:
    found = tuning(budget={"trials": 16}, trials_per_round=9, pruning={"kind": "hyperband"})
    assert found.pruning.rungs(9) == (1, 3, 9)
    assert found.cohorts(9) == (Cohort(9, 0), Cohort(5, 1), Cohort(2, 2))
    assert found.rounds(9) == 3


def test_the_budget_in_time_is_the_tighter_of_hours_and_cost() -> None:
    assert tuning(budget={"hours": 2, "cost": 1, "hourly_rate": 4}).budget.seconds == 900
    assert tuning(budget={"hours": 0.1, "cost": 1, "hourly_rate": 4}).budget.seconds == 360
    assert tuning().budget.seconds == float("inf")


def test_a_changed_tuning_changes_nothing_for_the_stages_that_do_not_search(tmp_path: Path) -> None:
    plain = pack_views(problem(), tmp_path, tmp_path / "bundles")
    searched = pack_views(problem({"space": {"learning_rate": RATE}}), tmp_path, tmp_path / "bundles")
    assert {view for view in VIEWS if plain[view] != searched[view]} == {"whole"}


def test_changed_code_of_the_search_changes_nothing_for_the_stages_that_do_not_search(tmp_path: Path) -> None:
    searched = problem({}, user_code={"search_space": "search:space"})
    before, after = ({}, {})
    for found, code in ((before, "space = 1"), (after, "space = 2")):
        (tmp_path / "search.py").write_text(code)
        found |= pack_views(searched, tmp_path, tmp_path / "bundles")
    assert {view for view in VIEWS if before[view] != after[view]} == {"whole"}


def test_hyperparameters_take_the_place_of_the_problems_own_and_keep_the_others() -> None:
    own = Training.model_validate({"dropout": 0.3, "optimizer": {"kind": "sgd", "momentum": 0.5}})
    found = overlaid(own, {"learning_rate": 0.01, "optimizer.momentum": 0.9, "hidden_units": [8]})
    assert (found.learning_rate, found.dropout, found.hidden_units) == (0.01, 0.3, (8,))
    assert (found.optimizer.kind, found.optimizer.momentum) == ("sgd", 0.9)


def test_hyperparameters_that_training_does_not_take_are_the_users_fault() -> None:
    with pytest.raises(ProblemError, match=r"dropout: Input should be less than 1"):
        overlaid(Training(), {"dropout": 2})
    with pytest.raises(ProblemError, match=r"adam has no momentum"):
        overlaid(Training(), {"optimizer.momentum": 0.9})
    with pytest.raises(ProblemError, match=r"class_weights.yes must lie in settings .*'balanced'"):
        overlaid(Training(class_weights="balanced"), {"class_weights.yes": 2})


def test_a_bundle_without_hyperparameters_stays_as_it_is(tmp_path: Path) -> None:
    bundle = open_bundle(pack_views(problem(), tmp_path, tmp_path / "bundles")["model"])
    assert tuned(bundle, None) is bundle
    write_hyperparameters(tmp_path / "found", {"dropout": 0.25})
    assert tuned(bundle, tmp_path / "found").problem.training.dropout == 0.25


def test_the_example_of_the_page_is_a_tuning() -> None:
    page = Path(__file__).parents[3] / "components" / "tidemill" / "tune" / "README.md"
    block = page.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    found = problem(yaml.safe_load(block)["tuning"], sensitive=["sex"]).tuning
    assert found is not None
    assert [parameter.path for parameter in plain_space(found)][-1] == "optimizer.momentum"
    assert found.rounds(20) == 4 + 3
