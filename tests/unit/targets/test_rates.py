"""The price of an hour of a stage's machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tidemill.costs import Prices
from tidemill_pipelines.targets.compilation import compile_package
from tidemill_pipelines.targets.config import Accelerator, StageSettings, parse_target
from tidemill_pipelines.targets.rates import hourly_rate

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
    assert hourly_rate(settings, PRICES) == (None if rate is None else pytest.approx(rate))


def test_without_a_price_of_processors_a_size_has_no_rate() -> None:
    assert hourly_rate(StageSettings(cpu="2", memory="4Gi"), Prices()) is None


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
