"""The wheel puts exactly two names into the world."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_the_version_of_the_package_is_that_of_the_distribution():
    from tidemill import __version__

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert __version__ == declared == importlib.metadata.version("tidemill")


def test_the_wheel_holds_the_two_packages_and_their_data_and_nothing_else(tmp_path):
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    built = subprocess.run(
        [uv, "build", "--wheel", "--offline", "--out-dir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip("hatchling is not in uv's cache, and tests need no network")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"tidemill", "tidemill_pipelines"}
    assert "tidemill/ingest/component.py" in names
    for template in (ROOT / "components" / "tidemill" / "report" / "templates").iterdir():
        assert f"tidemill/report/templates/{template.name}" in names
