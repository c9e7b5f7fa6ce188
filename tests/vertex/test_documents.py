"""VERTEX.md is true: its target's file is valid, its commands exist, and it names every permission that is used."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill_pipelines.targets.config import parse_target
from tidemill_pipelines.targets.vertex.settings import release_settings, training_settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "pipelines" / "targets" / "VERTEX.md").read_text(encoding="utf-8")
CALLERS = "### You, or CI"
TASKS = "### `tidemill-pipeline`"
# What each method of the service takes; the methods are read off the code.
PERMISSIONS = {
    "cancel_custom_job": "aiplatform.customJobs.cancel",
    "cancel_hyperparameter_tuning_job": "aiplatform.hyperparameterTuningJobs.cancel",
    "cancel_pipeline_job": "aiplatform.pipelineJobs.cancel",
    "create_batch_prediction_job": "aiplatform.batchPredictionJobs.create",
    "create_custom_job": "aiplatform.customJobs.create",
    "create_endpoint": "aiplatform.endpoints.create",
    "create_hyperparameter_tuning_job": "aiplatform.hyperparameterTuningJobs.create",
    "create_pipeline_job": "aiplatform.pipelineJobs.create",
    "create_schedule": "aiplatform.schedules.create",
    "delete_endpoint": "aiplatform.endpoints.delete",
    "delete_schedule": "aiplatform.schedules.delete",
    "deploy_model": "aiplatform.endpoints.deploy",
    "get_batch_prediction_job": "aiplatform.batchPredictionJobs.get",
    "get_custom_job": "aiplatform.customJobs.get",
    "get_hyperparameter_tuning_job": "aiplatform.hyperparameterTuningJobs.get",
    "get_pipeline_job": "aiplatform.pipelineJobs.get",
    "list_batch_prediction_jobs": "aiplatform.batchPredictionJobs.list",
    "list_custom_jobs": "aiplatform.customJobs.list",
    "list_endpoints": "aiplatform.endpoints.list",
    "list_hyperparameter_tuning_jobs": "aiplatform.hyperparameterTuningJobs.list",
    "list_model_versions": "aiplatform.models.get",
    "list_models": "aiplatform.models.list",
    "list_pipeline_jobs": "aiplatform.pipelineJobs.list",
    "list_schedules": "aiplatform.schedules.list",
    "merge_version_aliases": "aiplatform.models.update",
    "pause_schedule": "aiplatform.schedules.update",
    "predict": "aiplatform.endpoints.predict",
    "resume_schedule": "aiplatform.schedules.update",
    "undeploy_model": "aiplatform.endpoints.undeploy",
    "update_endpoint": "aiplatform.endpoints.update",
    "update_schedule": "aiplatform.schedules.update",
    "upload_model": "aiplatform.models.upload",
}


def used(*directories: str) -> set[str]:
    """Returns the methods of Vertex AI that the code in these directories calls."""
    call = re.compile(r"(?:clients?\.(?:pipelines|schedules|models|endpoints|jobs)|\bclient)\.([a-z]+(?:_[a-z]+)*)\b")
    sources = [file.read_text() for directory in directories for file in (ROOT / directory).glob("*.py")]
    return {method for source in sources for method in call.findall(source)} & {
        *PERMISSIONS,
        *(method for source in sources for method in call.findall(source) if "_" in method),
    }


def granted(heading: str) -> set[str]:
    """Returns the permissions of a table: ``.get`` goes on with the resource before it."""
    section = PAGE.split(heading, 1)[1].split("###", 1)[0]
    found, resource = set(), ""
    for permission in re.findall(r"`([a-zA-Z]+\.[a-zA-Z]+\.[a-zA-Z*]+|\.[a-zA-Z]+)`", section):
        if not permission.startswith("."):
            resource = permission.rsplit(".", 1)[0]
        found.add(resource + permission if permission.startswith(".") else permission)
    return found


def test_every_call_has_its_permission_named() -> None:
    commands = used("pipelines/tidemill_pipelines/targets/vertex") | {
        method
        for method in used("components/tidemill/vertex")
        if not re.search("batch|_custom_job|_tuning_job", method) and method != "upload_model"  # which only tasks do
    }
    tasks = used("components/tidemill/vertex")
    assert commands | tasks == set(PERMISSIONS)  # none is called that isn't listed above, nor listed in vain
    assert {PERMISSIONS[method] for method in commands} - granted(CALLERS) == set()
    assert {PERMISSIONS[method] for method in tasks} - granted(TASKS) == set()


def test_no_permission_is_named_in_vain() -> None:
    """Beside those of calls: reading one resource, which every role with listing it has, and the platform's own."""
    known = set(PERMISSIONS.values()) | {"aiplatform.schedules.get", "aiplatform.endpoints.get"}
    named = {p for p in granted(CALLERS) | granted(TASKS) if p.startswith("aiplatform.")}
    own = {p for p in named if p.split(".")[1] in ("metadataStores", "artifacts", "executions", "contexts")}
    assert named - own - known == set()


def test_the_targets_files_are_valid() -> None:
    text, *trainings = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = parse_target(text, "VERTEX.md")
    settings = release_settings(config, "image")
    assert (settings.drain_s, settings.network) == (60, config.on_vertex.network)
    assert len(trainings) == 3
    for training in trainings:
        told = training_settings(parse_target(f"{text}{training}", "VERTEX.md"), str)
        assert told.service_account == config.service_account
    shipped = ROOT / "pipelines" / "targets" / "vertex.yaml"
    assert parse_target(shipped.read_text(encoding="utf-8"), "vertex.yaml").kind == "vertex"


@pytest.mark.parametrize(
    "command",
    sorted(set(re.findall(r"^tidemill ((?:\\\n|.)+)$", PAGE, re.MULTILINE))),
)
def test_the_commands_take_these_options(command: str) -> None:
    words = shlex.split(command.replace("\\\n", " "))
    name = words[:2] if words[0] in ("runs", "schedule", "models", "endpoint") else words[:1]
    done = subprocess.run(
        [sys.executable, "-m", "tidemill_pipelines", *name, "--help"],
        env={"COLUMNS": "300", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    for option in (word for word in words if word.startswith("--")):
        assert option in done.stdout


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https://)([^)#]+)\)", PAGE):
        assert (ROOT / "pipelines" / "targets" / link).resolve().exists(), link


def test_opening_the_target_loads_neither_the_sdk_nor_kfp() -> None:
    """What `tidemill --help` and completion import must stay quick."""
    script = """
import sys
import tidemill_pipelines.targets.vertex.target, tidemill_pipelines.targets.vertex.endpoints
heavy = ("google.cloud.aiplatform_v1", "google.cloud.aiplatform", "google.api_core", "grpc", "kfp")
print([name for name in heavy if name in sys.modules])
import tidemill_pipelines.targets.vertex.release
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['kfp']"]
