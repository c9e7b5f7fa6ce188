"""What the page of training shows can be done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tidemill.train.run import run
from tidemill.training import Training

PAGE = (Path(__file__).parents[3] / "components" / "tidemill" / "train" / "README.md").read_text(encoding="utf-8")


def section(name: str) -> str:
    found = PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert found, name
    return found


@pytest.mark.parametrize("name", ["Optimizers", "Starting from another model"])
def test_settings_of_the_page_are_settings(name):
    (text,) = re.findall(r"```yaml\n(.*?)```", section(name), re.S)
    Training.model_validate(yaml.safe_load(text)["training"])


def test_settings_that_the_tables_name_are_there():
    for name in ("Models", "Imbalance"):
        named = re.findall(r"^\| `(\w+)", section(name), re.M)
        fields = set(Training.model_fields) | {*Training.model_json_schema()["properties"]["model"]["enum"]}
        assert set(named) - {"model"} <= fields


def test_the_model_of_the_page_is_trained(make_inputs):
    (code,) = re.findall(r"```python\n(.*?)```", section("Models"), re.S)
    settings = {"max_epochs": 6, "batch_size": 64, "learning_rate": 0.02}
    report = run(**make_inputs(model=code, training=settings).arguments("run"))
    assert report.eval_loss < 0.69
