"""What is fetched is what was pinned, and what cannot be had is told."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import tools


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go")
def test_a_module_with_another_hash_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (jobset,) = (module for module in tools.CRDS if module.path.endswith("jobset"))
    monkeypatch.setattr(tools, "DIRECTORY", tmp_path)
    monkeypatch.setattr(tools, "CRDS", (dataclasses.replace(jobset, sum="h1:AAAA"),))
    try:
        with pytest.raises(AssertionError, match="expected h1:AAAA"):
            tools.crds()
    except tools.Missing as reason:
        pytest.skip(str(reason))
    assert not list(tmp_path.rglob("*.yaml"))


@pytest.mark.parametrize("tool", ["kustomize", "crds", "promtool"])
def test_without_go_or_apt_the_reason_is_told(tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "DIRECTORY", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tools.Missing, match=r"^no "):
        getattr(tools, tool)()


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go")
def test_a_version_that_does_not_exist_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "DIRECTORY", tmp_path)
    monkeypatch.setattr(tools, "CRDS", (tools.Module("sigs.k8s.io/jobset", "v0.0.99", "h1:AAAA", ("a.yaml",)),))
    with pytest.raises(tools.Missing, match="go mod download"):
        tools.crds()


def test_where_tools_are_required_a_missing_one_is_no_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise tools.Missing("no Go")

    monkeypatch.delenv("TIDEMILL_REQUIRE_TOOLS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Go"):
        tools.available(missing)
    monkeypatch.setenv("TIDEMILL_REQUIRE_TOOLS", "1")
    with pytest.raises(tools.Missing):
        tools.available(missing)
