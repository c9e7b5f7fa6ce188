"""The section on a tuning, and how the runs of a loop are shown in the pipeline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tidemill.report import evidence, stages, tuning
from tidemill.report.coordinates import Axis, Line, coordinates
from tidemill.report.run import run


def trial(number: int, value: float | None, **more: Any) -> dict[str, Any]:
    rate = 0.003 if number == 0 else 0.001 * (number + 1)
    found = {} if number == 0 else {"learning_rate": rate, "hidden_units": [64, 32]}
    return {
        "number": number,
        "state": "complete" if value is not None else "failed",
        "reason": "" if value is not None else "training loss: must stay finite",
        "hyperparameters": found,
        "settings": {"learning_rate": rate, "hidden_units": [64, 32] if number % 2 else [16]},
        "rung": 0,
        "epochs": 12,
        "value": value,
        "gap": None,
        "seconds": 3.5,
        **more,
    }


def document(**more: Any) -> dict[str, Any]:
    values = (0.80, 0.83, 0.86, None, 0.84)
    return {
        "best": 2,
        "objective": "auc",
        "value": 0.86,
        "own_value": 0.80,
        "own_epochs": 12,
        "gap": None,
        "maximize": True,
        "sampler": "tpe",
        "seed": 0,
        "stopped": "all 5 trials have begun",
        "train_s": 17.5,
        "cost": None,
        "rungs": [12],
        "pruning": {"kind": "none", "factor": 3},
        "importance": {"learning_rate": 0.9, "hidden_units": 0.1},
        "log": ["learning_rate"],
        "all": [trial(number, value) for number, value in enumerate(values)],
        **more,
    }


@pytest.fixture
def page(builder: Any, tmp_path: Path) -> Any:
    """Returns the section's HTML for a document."""

    def shown(content: dict[str, Any]) -> str:
        builder.run("completed", pipeline="tuning")
        builder.task("conclude", {"tuning": {"tuning.json": content}})
        summary = run(builder.run_dir, tmp_path / "page.html")
        assert not summary.notes
        html = (tmp_path / "page.html").read_text()
        return html[html.index('<section id="tuning"') : html.index('<section id="lineage"')]

    return shown


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))


def test_the_trial_that_was_taken_is_told_with_what_it_gained(page: Any) -> None:
    told = text(page(document()))
    assert "Trial 2 was taken: AUC 0.860, 0.0600 better than the problem’s own settings (0.800 after 12 epochs)" in told
    assert "5 trials by TPE" in told
    assert "The search ended because all 5 trials have begun." in told
    assert "training loss: must stay finite" in told


def test_what_mattered_comes_first(page: Any) -> None:
    html = page(document())
    assert html.index("<code>learning_rate</code>") < html.index("<code>hidden_units</code>")
    assert "90" in text(html)


def test_lower_is_better_where_the_metric_says_so(page: Any) -> None:
    told = text(page(document(objective="loss", maximize=False, value=0.4, own_value=0.5)))
    assert "Loss 0.400, 0.100 better" in told


def test_halving_folds_fairness_and_cost_are_told(page: Any) -> None:
    trials = [
        trial(i, 0.8 + i / 100, gap=0.1 - i / 100, rung=i % 2, state="pruned" if i % 2 else "complete")
        for i in range(6)
    ]
    told = text(
        page(
            document(
                rungs=[2, 6, 12],
                pruning={"kind": "halving", "factor": 3},
                cross_validation={"folds": 5},
                fairness={"metric": "equal_opportunity_gap", "max": 0.1},
                gap=0.08,
                cost=1.25,
                front=[2, 4],
                all=trials,
            )
        )
    )
    assert "judged after 2, 6, 12 epochs, where one in 3 went on" in told
    assert "each the mean of 5 folds" in told
    assert "fairness gap 0.080" in told
    assert "1.25 in money" in told
    assert "Quality against fairness" in told
    assert "ended early" in told


def test_a_search_of_one_trial_has_no_charts_and_still_a_section(page: Any) -> None:
    html = page(document(all=[trial(2, 0.86)], own_value=None, importance={}))
    assert "<figure" not in html
    assert "better than" not in text(html)


def test_many_trials_are_folded(page: Any) -> None:
    html = page(document(all=[trial(i, 0.5 + i / 100) for i in range(40)]))
    assert "28 other trials" in text(html)


def test_what_a_trial_was_called_cannot_break_out_of_the_page(page: Any) -> None:
    evil = "</title><script>alert(1)</script>"
    html = page(
        document(all=[trial(2, 0.86, settings={evil: evil}), trial(1, 0.8, settings={evil: evil}, reason=evil)])
    )
    assert "<script" not in html


def test_a_run_that_tuned_nothing_has_no_section(builder: Any, tmp_path: Path) -> None:
    builder.run("completed").task("train")
    assert "tuning" not in run(builder.run_dir, tmp_path / "page.html").sections


def test_axes_place_numbers_by_size_or_logarithm_and_others_side_by_side() -> None:
    linear, log = Axis("a", [0.0, 0.5, 2.0], False), Axis("b", [0.001, 0.01, 0.1], True)
    assert [linear(v) for v in (0.0, 0.5, 2.0)] == [0.0, 0.25, 1.0]
    assert log(0.01) == pytest.approx(0.5)
    assert Axis("b", [0, 0.001, 0.1], True)(0) == 0.0 < Axis("b", [0, 0.001, 0.1], True)(0.001) < 0.3
    layers = Axis("c", [[128, 64], [32], [64, 32]], False)
    assert [label for _, label in layers.labels] == ["32", "64, 32", "128, 64"]
    names = Axis("c", ["adam", "sgd", [64, 32]], True)
    assert len({names(v) for v in ("adam", "sgd", [64, 32])}) == 3
    assert [label for _, label in names.labels] == ["adam", "sgd", "64, 32"]
    assert Axis("d", [3, 3], False)(3) == 0.5
    assert Axis("e", [True, False], False)(True) != Axis("e", [True, False], False)(False)


def test_the_chosen_line_is_drawn_last_and_a_missing_value_breaks_a_line() -> None:
    axes = [Axis(name, [0, 1], False) for name in "abc"]
    lines = [Line("taken", {"a": 0, "b": 0, "c": 1}, 0.0, True), Line("other", {"a": 1, "c": 0}, 1.0, dashed=True)]
    svg = str(coordinates("told", axes, lines))
    assert svg.index("other") < svg.index("taken")
    assert 'class="p-line s3 c-dashed" d=""' in svg
    assert 'aria-label="told"' in svg


def test_the_runs_of_a_loop_are_one_task_in_the_pipeline(builder: Any) -> None:
    builder.run("completed", pipeline="tuning", stages=("suggest-1", "round-1", "conclude"))
    builder.task("suggest-1")
    builder.task("round-1-trial-0", iteration_of="round-1")
    builder.task("round-1-trial-1", iteration_of="round-1", status="cached")
    builder.task("conclude")
    view = stages.view(evidence.read(builder.run_dir))
    assert view is not None
    assert [row.name for row in view.rows] == ["suggest-1", "round-1", "conclude"]
    loop = view.rows[1]
    assert (loop.state, loop.cache_reason) == ("succeeded", "2 runs of it, 1 of them reused")
    assert view.reused == 0
    assert not view.unreached


def test_a_loop_with_a_failed_run_has_failed(builder: Any) -> None:
    builder.run("bad_input", pipeline="tuning", stages=("round-1", "conclude"))
    builder.task("round-1-trial-0", iteration_of="round-1", status="failed", exit_code=4)
    builder.task("round-1-trial-1", iteration_of="round-1")
    view = stages.view(evidence.read(builder.run_dir))
    assert view is not None
    assert [row.state for row in view.rows] == ["failed"]
    assert list(view.unreached) == ["conclude"]
    assert tuning.view(evidence.read(builder.run_dir)) is None
