"""The price of an hour of a stage's machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tidemill.costs import Prices
from tidemill_pipelines.targets.compilation import compile_package
from tidemill_pipelines.targets.config import Accelerator, StageSettings, TargetConfig, parse_target
from tidemill_pipelines.targets.rates import stage_rate

PIPELINES = Path(__file__).parents[3] / "pipelines"
PRICES = Prices(
    cpu_hour=0.03, gib_hour=0.004, machines={"a2-highgpu-1g": 1.5}, accelerators={"NVIDIA_TESLA_T4": 0.35}, spot=0.4
)


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        (StageSettings(machine="a2-highgpu-1g"), 1.5),
        (StageSettings(machine="a2-highgpu-1g", spot=True), 0.6),
        (StageSettings(machine="n2-standard-8"), 8 * 0.03 + 32e9 / 2**30 * 0.004),
        (StageSettings(cpu="500m", memory="2Gi"), 0.5 * 0.03 + 2 * 0.004),
        (
            StageSettings(cpu="2", memory="4G", accelerator=Accelerator(type="NVIDIA_TESLA_T4", count=2)),
            2 * 0.03 + 4e9 / 2**30 * 0.004 + 2 * 0.35,
        ),
        (StageSettings(machine="mystery-4"), None),
        (StageSettings(cpu="2"), None),
        (StageSettings(machine="a2-highgpu-1g", accelerator=Accelerator(type="TPU")), None),
        (StageSettings(), None),
    ],
)
def test_a_rate_is_of_the_machine_or_of_its_parts(settings: StageSettings, rate: float | None) -> None:
    target = TargetConfig(kind="kubernetes", stages={"train": settings})
    assert stage_rate("train", target, PRICES) == (None if rate is None else pytest.approx(rate))


def test_without_a_price_of_processors_a_size_has_no_rate() -> None:
    target = TargetConfig(kind="kubernetes", defaults=StageSettings(cpu="2", memory="4Gi"))
    assert stage_rate("train", target, Prices()) is None


TASK = "stages: {train: {cpu: 1, memory: 1Gi}}\n"
JOBS = {
    "kubernetes": ("{kind: kubernetes, workers: 3, cpu: 4, memory: 8Gi, spot: true}", 3 * 0.4 * (4 * 0.03 + 8 * 0.004)),
    "vertex": (
        "{kind: vertex, workers: 2, machine: n1-standard-8, accelerator: {type: NVIDIA_TESLA_T4, count: 2}}",
        2 * (8 * 0.03 + 30e9 / 2**30 * 0.004 + 2 * 0.35),
    ),
}


@pytest.mark.parametrize("kind", JOBS)
def test_training_on_machines_of_its_own_costs_them_and_the_task_that_watches(kind: str) -> None:
    job, rate = JOBS[kind]
    target = parse_target(f"kind: {kind}\n{TASK}training: {job}\n", "target.yaml")
    assert stage_rate("train", target, PRICES) == pytest.approx(0.03 + 0.004 + rate)
    assert stage_rate("evaluate", target, PRICES) is None


def test_a_tuning_by_vertex_ai_has_no_rate_for_its_trials_time_is_not_known() -> None:
    text = "kind: vertex\nstages: {tune: {cpu: 1, memory: 1Gi}}\ntraining: {kind: vertex, managed_tuning: MANAGED}\n"
    own, managed = (parse_target(text.replace("MANAGED", told), "target.yaml") for told in ("false", "true"))
    assert stage_rate("tune", own, PRICES) == pytest.approx(0.03 + 0.004)
    assert stage_rate("tune", managed, PRICES) is None


def test_a_job_on_a_machine_without_a_price_has_no_rate() -> None:
    target = parse_target(f"kind: vertex\n{TASK}training: {{kind: vertex, machine: ct5lp-hightpu-4t}}\n", "target.yaml")
    assert stage_rate("train", target, PRICES) is None


def test_the_report_of_a_compiled_pipeline_is_told_the_rates() -> None:
    text = (PIPELINES / "targets" / "vertex.yaml").read_text() + "prices: {cpu_hour: 0.03, gib_hour: 0.004}\n"
    compiled = compile_package(
        PIPELINES / "problems" / "lending",
        "training",
        parse_target(text, "vertex.yaml"),
        source="gs://example-bucket/t.csv",
    )
    executors = next(yaml.safe_load_all(compiled.package.text))["deploymentSpec"]["executors"]
    environment = {e["name"]: e["value"] for e in executors["exec-report"]["container"]["env"]}
    tariff = json.loads(environment["TIDEMILL_PLAN"])["tariff"]
    assert tariff["currency"] == "USD"
    assert tariff["hourly"]["train"] == pytest.approx(16 * 0.03 + 60e9 / 2**30 * 0.004)
    assert set(tariff["hourly"]) == set(json.loads(environment["TIDEMILL_PLAN"])["stages"])
