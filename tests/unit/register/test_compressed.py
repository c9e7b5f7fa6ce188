"""Smaller forms of a model are registered with it, those that passed, and never on their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tidemill.errors import GateRefused
from tidemill.files import write_json
from tidemill.register.run import find_champion, run
from tidemill.serving.registry import Registry


@pytest.fixture
def arguments(first: Any, tmp_path: Path) -> dict[str, Any]:
    """Of a run with two variants, of which `edge` broke a limit that it need not keep."""
    compressed = first.root / "compressed"
    for variant in ("mobile", "edge"):
        (compressed / variant).mkdir(parents=True)
        (compressed / variant / "model").write_text(variant)
    models = {"original": {}, "mobile": {"passed": True}, "edge": {"passed": False}}
    write_json(compressed / "manifest.json", {"models": models})
    first.judge("compression")
    given = {"compressed": str(compressed), "compression": str(first.root / "compression")}
    return {**first.arguments(tmp_path / "registry", "run-1"), **given}


def test_variants_that_passed_are_kept_with_the_version_and_the_figures_of_all(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    run(**arguments)
    registry = Registry(tmp_path / "registry", "toy")
    kept = registry.extra(1, "compressed")
    assert sorted(path.name for path in kept.iterdir()) == ["manifest.json", "mobile"]
    assert set(json.loads((kept / "manifest.json").read_text())["models"]) == {"original", "mobile", "edge"}
    lineage = json.loads(registry.extra(1, "lineage.json").read_text())
    assert lineage["decisions"]["compression"]["passed"]
    assert {"compressed", "compression"} <= set(lineage["artifacts"])


def test_the_champion_comes_without_its_variants(first: Any, arguments: dict[str, Any], tmp_path: Path) -> None:
    run(**arguments)
    Registry(tmp_path / "registry", "toy").promote(1)
    find_champion(first.bundle, tmp_path / "registry", tmp_path / "champion", tmp_path / "reference")
    found = sorted(path.name for path in (tmp_path / "champion").iterdir())
    assert found == ["model.json", "network", "saved_model"]


def test_a_model_whose_variants_were_refused_gets_no_version(
    first: Any, arguments: dict[str, Any], tmp_path: Path
) -> None:
    first.judge("compression", passed=False)
    with pytest.raises(GateRefused, match="the compression must have passed"):
        run(**arguments)
    first.judge("compression", digest="0" * 64)
    with pytest.raises(GateRefused, match="the compression must be of this model"):
        run(**arguments)
    assert not (tmp_path / "registry").exists()
