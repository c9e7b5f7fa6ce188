"""What every component keeps to, whoever adds one."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from kfp import compiler

from tidemill import images
from tidemill.images import environment_of
from tidemill_pipelines.catalogue import Entry, components, entries

COMPONENTS = {f"{stage}.{component.name}": (stage, component) for stage, component in components()}
ENTRIES = entries()
HEAVY = (
    "tensorflow",
    "keras",
    "apache_beam",
    "tensorflow_data_validation",
    "tensorflow_model_analysis",
    "pyarrow",
    "numpy",
)


@pytest.fixture(params=COMPONENTS)
def component(request: pytest.FixtureRequest) -> Any:
    return COMPONENTS[request.param][1]


@pytest.fixture(params=ENTRIES, ids=lambda entry: entry.title)
def entry(request: pytest.FixtureRequest) -> Entry:
    return request.param


def test_all_stages_are_found():
    assert {stage for stage, _ in COMPONENTS.values()} >= {
        "ingest", "validate", "transform", "train", "evaluate", "rehearse", "register", "deploy", "report", "gate",
    }  # fmt: skip


def test_authoring_imports_nothing_heavy():
    """Whether the interpreter has them or not: an attempt is already an error."""
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise AssertionError("authoring imported " + name)
sys.meta_path.insert(0, Refuse())
from tidemill_pipelines import training
from tidemill_pipelines.catalogue import entries
import tidemill.synthetic, tidemill.serving
entries()
assert not set({HEAVY!r}) & set(sys.modules), sorted(set({HEAVY!r}) & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_it_compiles_alone(component, tmp_path):
    compiler.Compiler().compile(component, str(tmp_path / "component.yaml"))
    specification = yaml.safe_load((tmp_path / "component.yaml").read_text())
    assert specification["pipelineInfo"]["name"] == component.name


def test_it_installs_nothing_when_it_runs(component):
    command = " ".join(component.component_spec.implementation.container.command)
    assert "pip install" not in command
    assert "kfp==" not in command


def test_its_body_is_the_stage_frame_around_run(component):
    source = inspect.getsource(component.python_func)
    assert "with Stage(" in source
    (line,) = re.findall(r"stage\.report\(\s*(\w+)", source)
    if line != "report":  # which has been made before, where the component returns a part of it
        assert re.search(rf"from tidemill\.\w+\.\w+ import (\w+ as )?{line}\b", source)


def test_its_stage_frame_carries_its_name(component):
    assert f'Stage("{component.python_func.__name__}")' in inspect.getsource(component.python_func)


def test_every_input_and_output_is_documented_and_nothing_else(entry):
    ports = (*entry.inputs, *entry.outputs)
    assert sorted(entry.documented) == sorted(port.name for port in ports)
    assert [port.name for port in ports if not port.description] == []
    assert entry.summary.endswith(".")


def test_its_image_belongs_to_a_known_environment(entry):
    known = {images.CONTROL, images.VALIDATION, images.TENSORFLOW, images.SERVING}
    assert entry.image in known
    assert environment_of(entry.image) in {"control", "validation", "tensorflow", "serving"}
