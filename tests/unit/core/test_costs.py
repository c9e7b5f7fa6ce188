"""What a run costs by the prices that a user gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tidemill.costs import Cost, Prices, PricesError, Tariff, estimate, load_prices, run_cost
from tidemill.errors import UsageError
from tidemill.runs import RunRecord, TaskRecord, TaskStatus


def task(name: str, status: TaskStatus = "succeeded", **told: float) -> TaskRecord:
    return TaskRecord(name, "tensorflow", status, "2026-03-01T12:00:00+00:00", **told)  # type: ignore[arg-type]


def test_on_this_machine_a_task_pays_for_what_it_used() -> None:
    used = task("train", wall_s=1800, cpu_s=3600, peak_rss_mb=2048)
    cost = estimate([used], Tariff("EUR", cpu_hour=0.04, gib_hour=0.01))
    assert cost == Cost("EUR", pytest.approx(0.04 + 2 * 0.5 * 0.01), {"train": pytest.approx(0.05)})


def test_on_a_backend_a_task_pays_for_its_machine_as_long_as_it_ran() -> None:
    ran = [task("train", wall_s=7200, cpu_s=1), task("gate", "failed", wall_s=36)]
    cost = estimate(ran, Tariff("USD", cpu_hour=9.0, hourly={"train": 2.5, "gate": 0.5}))
    assert cost.tasks == {"train": pytest.approx(5.0), "gate": pytest.approx(0.005)}
    assert cost.total == pytest.approx(5.005)


def test_a_trial_on_a_backend_pays_for_the_machine_of_its_round() -> None:
    trials = [replace(task(f"round-1-trial-{i}", wall_s=3600), iteration_of="round-1") for i in range(2)]
    cost = estimate(trials, Tariff("USD", hourly={"round-1": 2.5}))
    assert (cost.total, cost.unpriced) == (5.0, ())


def test_what_was_reused_costs_nothing() -> None:
    assert estimate([task("train", "cached", wall_s=50, cpu_s=50)], Tariff("USD", cpu_hour=1.0)).total == 0


def test_a_task_without_a_price_is_named_and_not_taken_for_free() -> None:
    cost = estimate([task("train", wall_s=3600)], Tariff("USD", hourly={"train": None}))
    assert (cost.total, cost.tasks, cost.unpriced) == (0, {}, ("train",))


def test_a_run_without_prices_has_no_cost() -> None:
    run = RunRecord("r", "p", "training", "completed", "2026-03-01T12:00:00+00:00")
    assert run_cost(run, [task("train", wall_s=3600)]) is None


def test_all_faults_of_a_table_are_told_with_their_lines(tmp_path: Path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text("cpu_hour: -1\ngib_hours: 0.1\nspot: 2\n")
    told = (
        r"3 faults\n  line 1: cpu_hour: .*\n  line 2: gib_hours: unknown key; did you mean gib_hour\?\n  line 3: spot: "
    )
    with pytest.raises(PricesError, match=told):
        load_prices(table)


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read as a table of prices"):
        load_prices(tmp_path / "none.yaml")


def test_the_table_of_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "pipelines" / "README.md").read_text()
    section = page.partition("## What a run costs")[2]
    (tmp_path / "prices.yaml").write_text(section.partition("```yaml\n")[2].partition("```")[0])
    prices = load_prices(tmp_path / "prices.yaml")
    assert (prices.currency, prices.spot, set(prices.machines)) == ("EUR", 0.4, {"a2-highgpu-1g"})


def test_a_table_may_name_machines(tmp_path: Path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text(
        "currency: EUR\nmachines: {n2-standard-8: 0.39}\naccelerators: {NVIDIA_TESLA_T4: 0.35}\nspot: 0.4\n"
    )
    expected = Prices(
        currency="EUR", machines={"n2-standard-8": 0.39}, accelerators={"NVIDIA_TESLA_T4": 0.35}, spot=0.4
    )
    assert load_prices(table) == expected
