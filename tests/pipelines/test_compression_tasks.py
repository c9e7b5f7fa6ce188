"""The tasks of compression are in a pipeline only for a problem that asks for it, and where its answer is needed."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill.problem import parse_problem
from tidemill_pipelines.choices import Choices
from tidemill_pipelines.pipelines import load_pipeline

PROBLEM = """
name: toy
task: regression
label: {column: y}
features: {age: numeric}
"""
VARIANTS = """
compression:
  variants: {thin: {kind: pruned}}
"""


def tasks(pipeline: str, compression: str) -> dict[str, Any]:
    """Returns the tasks of a pipeline by name."""
    choices = Choices.of(parse_problem(PROBLEM + compression, "problem.yaml"))
    components = load_pipeline(pipeline, choices=choices).pipeline_spec.components.values()
    return {t.task_info.name: t for c in components if c.HasField("dag") for t in c.dag.tasks.values()}


def source(task: Any, name: str) -> tuple[str, str]:
    """Returns the task and the output that an input comes from."""
    artifact = task.inputs.artifacts[name].task_output_artifact
    return artifact.producer_task, artifact.output_artifact_key


def test_a_problem_without_compression_has_none_of_its_tasks() -> None:
    found = tasks("training", "")
    assert not {"compress", "compression-gate"} & set(found)
    assert "compressed" not in found["register"].inputs.artifacts
    assert "comp-compress" not in load_pipeline("training", choices=Choices()).pipeline_spec.components


def test_variants_are_judged_before_anything_is_registered() -> None:
    found = tasks("training", VARIANTS)
    assert source(found["compress"], "model") == ("train", "model")
    assert source(found["compression-gate"], "evidence") == ("compress", "compression")
    waits = [name for name in found["register"].dependent_tasks if name.startswith("gate")]
    assert len(waits) == 2  # the serving gate and this one
    assert source(found["register"], "compressed") == ("compress", "compressed")
    assert source(found["register"], "compression") == ("compress", "compression")


@pytest.mark.parametrize(("release", "model"), [("original", ("train", "model")), ("thin", ("compress", "released"))])
def test_what_is_evaluated_tried_and_registered_is_what_is_released(release: str, model: tuple[str, str]) -> None:
    found = tasks("training", f"{VARIANTS}  release: {release}\n")
    assert {source(found[task], "model") for task in ("evaluate", "rehearse", "register")} == {model}
