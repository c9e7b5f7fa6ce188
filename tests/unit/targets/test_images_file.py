"""What `make images` wrote is held to its form before it gets into a pipeline."""

import json
from pathlib import Path

import pytest

from tidemill.errors import UsageError
from tidemill_pipelines.targets.compilation import ImagesFile, image
from tidemill_pipelines.targets.config import parse_target

IMAGES = {"control": "registry.example.com/control@sha256:1"}
GOOD = {"version": "0.1.0", "lock": "ab", "commit": "cd", "images": IMAGES}


def test_a_good_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text(json.dumps(GOOD))
    assert ImagesFile.read(tmp_path / "images.json").images == IMAGES


@pytest.mark.parametrize(
    "change",
    [{"images": {"control": 5}}, {"images": {"control": ""}}, {"images": ["control"]}, {"lock": None}, {"commit": ""}],
)
def test_a_value_of_another_kind_is_told(tmp_path: Path, change: dict) -> None:
    (tmp_path / "images.json").write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(UsageError, match=r"expected the images\.json that `make images` writes"):
        ImagesFile.read(tmp_path / "images.json")


def test_an_image_that_is_missing_is_told_with_the_command_that_makes_it() -> None:
    target = parse_target("kind: vertex", "target.yaml")
    with pytest.raises(UsageError, match="needs the image of tensorflow-gpu") as told:
        image("tidemill/tensorflow-gpu:0.1.0", target, ImagesFile(**GOOD))
    assert 'make images IMAGES="control tensorflow-gpu"' in str(told.value)
