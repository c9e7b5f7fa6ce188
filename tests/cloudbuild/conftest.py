"""Terraform's files as its own parser reads them, and a scratch clone in which steps run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# This directory's own modules and those of its neighbours; importlib's mode adds no directory.
sys.path += [str(Path(__file__).parent), *(str(Path(__file__).parents[1] / d) for d in ("manifests", "conformance"))]

from builds import ROOT
from go_programs import built
from tools import Missing
from workspace import Clone

TERRAFORM = ROOT / "manifests" / "cloudbuild"


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """What is committed; the environments are this checkout's."""
    root = tmp_path / "workspace"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", str(root)], check=True)
    for name in ("cloudbuild.yaml", ".ci/cloudbuild"):  # as they are here, committed or not
        subprocess.run(["cp", "-r", "--no-target-directory", str(ROOT / name), str(root / name)], check=True)
    (root / ".venv" / "bin").mkdir(parents=True)
    for program in ("python", "tidemill"):
        path = root / ".venv" / "bin" / program
        path.write_text(f'#!/bin/sh\nexec "{ROOT}/.venv/bin/{program}" "$@"\n')
        path.chmod(0o755)
    (tmp_path / "bin").mkdir()
    return Clone(root, tmp_path / "bin")


@pytest.fixture(scope="session")
def read_hcl() -> Callable[[list[Path]], list[dict[str, Any]]]:
    """Reads Terraform files with HashiCorp's parser."""
    try:
        binary = built(Path(__file__).parent / "hcl")
    except Missing as reason:
        if os.environ.get("TIDEMILL_REQUIRE_TOOLS") == "1":
            raise
        pytest.skip(str(reason))

    def read(files: list[Path]) -> list[dict[str, Any]]:
        done = subprocess.run([str(binary), *map(str, files)], capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise ValueError(done.stderr)
        blocks: list[dict[str, Any]] = json.loads(done.stdout)
        return blocks

    return read


@pytest.fixture(scope="session")
def terraform(read_hcl: Callable[[list[Path]], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return read_hcl(sorted(TERRAFORM.glob("*.tf")))
