"""``tidemill models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tidemill.artifacts import SAVED_MODEL, ModelManifest
from tidemill.decisions import Check, Decision
from tidemill.errors import UsageError
from tidemill.files import digest_tree, write_json
from tidemill.serving.registry import Registry
from tidemill_pipelines.commands.models import app


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def as_json(*arguments: str) -> Any:
    return json.loads(invoke(*arguments, "--json"))


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """Three versions of one model: 2 is the champion, 1 was, 3 is the challenger."""
    registry = Registry(tmp_path / "registry", "loans")
    check = Check("auc", True, ">= 0.8", "0.85", "auc is 0.85.", 0.85, 0.8, {"sex": "Female", "race": "Black"})
    for i in range(1, 4):
        model = tmp_path / f"model{i}"
        (model / SAVED_MODEL).mkdir(parents=True)
        (model / SAVED_MODEL / "saved_model.pb").write_text(f"model {i}")
        digest = digest_tree(model / SAVED_MODEL)
        ModelManifest("loans", "regression", (), 0.5, {}, {}, (), digest, {"tensorflow": "2.21.0"}).write(model)
        lineage = {
            "run_id": f"run-{i}",
            "registered": "2026-01-02T03:04:05+00:00",
            "bundle": "b" * 64,
            "environment": {"lock": "10cc" * 16, "commit": "c0ffee-dirty", "installed": "e" * 64},
            "examples": {
                "manifest": "a" * 64,
                "source": {"uri": "loans.csv", "fingerprint": "cafe"},
                "rows": {"train": 8, "test": 1},
            },
            "decisions": {"blessing": Decision("model", (check,)).to_json()},
        }
        version = registry.add(
            model, lambda extra, v, kept=lineage: write_json(extra / "lineage.json", kept), f"run-{i}"
        )
        if i < 3:
            registry.promote(version)
    return tmp_path


def test_list_shows_what_is_champion_and_challenger(runs_dir: Path) -> None:
    (model,) = as_json("list", "--runs-dir", str(runs_dir))
    assert (model["name"], model["champion"], model["challenger"], model["former"]) == ("loans", 2, 3, [1])
    assert [v["version"] for v in model["versions"]] == [3, 2, 1]
    assert model["versions"][1]["aliases"] == ["champion"]
    (_, row) = invoke("list", "--runs-dir", str(runs_dir)).splitlines()
    assert row.split() == ["loans", "2", "3", "3"]


def test_an_empty_registry_is_no_error(tmp_path: Path) -> None:
    assert as_json("list", "--runs-dir", str(tmp_path)) == []
    assert "no models" in invoke("list", "--runs-dir", str(tmp_path))


def test_show_tells_versions_and_history(runs_dir: Path) -> None:
    shown = as_json("show", "loans", "--runs-dir", str(runs_dir))
    assert [e["event"] for e in shown["events"]] == ["registered", "promoted", "registered", "promoted", "registered"]
    text = invoke("show", "loans", "--runs-dir", str(runs_dir))
    for part in ("champion", "challenger", "run-2", "2026-01-02 03:04:05", "promoted"):
        assert part in text
    digest = Registry(runs_dir / "registry", "loans").manifest(2).digest
    for part in ("version 2 comes from", digest, "cafe", "a" * 64, "b" * 64, "10cc" * 16, "c0ffee-dirty", "e" * 64):
        assert part in text


def test_show_of_a_version_tells_where_it_came_from_and_what_it_passed(runs_dir: Path) -> None:
    shown = as_json("show", "loans", "2", "--runs-dir", str(runs_dir))
    assert (shown["version"], shown["aliases"]) == (2, ["champion"])
    assert shown["lineage"]["examples"]["source"]["fingerprint"] == "cafe"
    assert shown["model"]["framework"] == {"tensorflow": "2.21.0"}
    assert Path(shown["path"]).is_dir()
    text = invoke("show", "loans", "2", "--runs-dir", str(runs_dir))
    for part in ("loans.csv", "cafe", "auc", "race=Black × sex=Female", "0.85", "✓"):
        assert part in text


def test_rollback_goes_back_one_champion_at_a_time(runs_dir: Path) -> None:
    done = as_json("rollback", "loans", "--runs-dir", str(runs_dir))
    assert done == {"name": "loans", "champion": 1, "before": 2, "endpoint": None}
    assert Registry(runs_dir / "registry", "loans").aliases().champion == 1
    with pytest.raises(UsageError, match="no former champion"):
        invoke("rollback", "loans", "--runs-dir", str(runs_dir))


def test_rollback_says_what_it_did(runs_dir: Path) -> None:
    text = invoke("rollback", "loans", "--runs-dir", str(runs_dir))
    assert "version 1 is the champion again, instead of 2" in text
    assert "no endpoint is running" in text


def test_what_is_not_there_is_named_with_what_is(runs_dir: Path) -> None:
    for command in ("show", "rollback"):
        with pytest.raises(UsageError, match=r"no such model in .*; there is loans"):
            invoke(command, "loan", "--runs-dir", str(runs_dir))
    with pytest.raises(UsageError, match="no version 9 is registered; there is 1, 2, 3"):
        invoke("show", "loans", "9", "--runs-dir", str(runs_dir))
