"""What we send is what the high-level SDK would send: its classes aren't used, but their messages are the measure."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tidemill.jobs.job import TrainingJob
from tidemill.tuning import Tuning
from tidemill.vertex.custom_jobs import custom_job
from tidemill.vertex.sdk import aiplatform
from tidemill.vertex.training import TrainingSettings
from tidemill.vertex.tuning_jobs import tuning_job
from tidemill_pipelines.targets.vertex.jobs import pipeline_job

# In a process of its own: the import takes seconds, and leaves threads and settings behind.
_THEIRS = """
import json, sys
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform
from google.protobuf import json_format
job = aiplatform.PipelineJob(
    **json.load(sys.stdin), project="example-project", location="europe-west1", credentials=AnonymousCredentials()
)
message = job._gca_resource
print(json_format.MessageToJson(type(message).pb(message)))
"""


_THEIR_TUNING = """
import json, sys
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform
from google.cloud.aiplatform import hyperparameter_tuning as tuning
from google.protobuf import json_format
given = json.load(sys.stdin)
where = {"project": "example-project", "location": "europe-west1", "credentials": AnonymousCredentials()}
job = aiplatform.CustomJob(staging_bucket="gs://example-bucket", **given, **where)
momentum = tuning.DoubleParameterSpec(min=0, max=0.9, scale="linear", parent_values=['"sgd"'])
space = {
    "learning_rate": tuning.DoubleParameterSpec(min=0.001, max=0.1, scale="log"),
    "batch_size": tuning.DiscreteParameterSpec(values=[64, 128, 192, 256], scale="linear"),
    "max_epochs": tuning.IntegerParameterSpec(min=1, max=9, scale="linear"),
    "optimizer.kind": tuning.CategoricalParameterSpec(
        values=['"adam"', '"sgd"'], conditional_parameter_spec={"optimizer.momentum": momentum}
    ),
}
tuned = aiplatform.HyperparameterTuningJob(
    display_name="tidemill-train-0a1b",
    custom_job=job,
    metric_spec={"auc": "maximize"},
    parameter_spec=space,
    max_trial_count=5,
    parallel_trial_count=2,
    search_algorithm="random",
    **where,
)
print(json.dumps([json_format.MessageToDict(type(m).pb(m)) for m in (job._gca_resource, tuned._gca_resource)]))
"""


def test_a_run_is_the_same_message(config: Any, submission: Any, tmp_path: Path) -> None:
    asked = submission(labels={"commit": "c0ffee"}, parameters={"limit": 0.7, "source": "gs://b/x"}, cache=False)
    ours = pipeline_job(asked, config)
    template = tmp_path / "package.yaml"
    template.write_text(asked.package.text)
    given = {
        "display_name": "toy-training",
        "template_path": str(template),
        "job_id": "tidemill-build-7",
        "pipeline_root": config.pipeline_root,
        "parameter_values": {"limit": 0.7, "source": "gs://b/x"},
        "labels": ours["labels"],
        "encryption_spec_key_name": config.vertex.cmek_key,
        "enable_caching": False,
    }
    theirs = _run(_THEIRS, given)
    # `submit` is given these, and fills them in.
    theirs |= {"serviceAccount": config.service_account, "network": config.vertex.network}
    for task in theirs["pipelineSpec"]["root"]["dag"]["tasks"].values():
        assert task.pop("cachingOptions") == {"enableCache": False}
        task["cachingOptions"] = {}  # the IR's own form of the same, which is also the compiler's
    assert _json(aiplatform().PipelineJob(ours)) == theirs


def test_jobs_that_train_and_tune_are_the_same_messages() -> None:
    """Two workers with GPUs and a reduction server, of a reservation; and a study of every kind of parameter."""
    training = {
        "workers": 2,
        "accelerator": {"type": "NVIDIA_TESLA_T4"},
        "reduction_server": {"replicas": 3, "image": "registry.example.com/training/reductionserver:1"},
        "reservation": "projects/example-project/zones/europe-west1-b/reservations/night",
    }
    place = {"location": "projects/example-project/locations/europe-west1", "image": "image"}
    settings = TrainingSettings.parse({"training": training, **place})
    job = TrainingJob("tidemill-train-0a1b", ("--a", "b"), 2, Path("/gcs/example-bucket/x"), {"A": "1"})
    ours = custom_job(settings, job)
    space = {
        "learning_rate": {"low": 0.001, "high": 0.1, "log": True},
        "batch_size": {"low": 64, "high": 256, "step": 64},
        "max_epochs": {"low": 1, "high": 9},
        "optimizer.kind": {"choices": ["adam", "sgd"]},
        "optimizer.momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer.kind": "sgd"}},
    }
    given = {"space": space, "objective": "auc", "sampler": "random", "budget": {"trials": 5}, "parallel": 2}
    our_study = tuning_job(settings, Tuning.model_validate(given), replace(job, workers=1))
    theirs, their_study = _run(
        _THEIR_TUNING,
        {
            "display_name": "tidemill-train-0a1b",
            "worker_pool_specs": ours["job_spec"]["worker_pool_specs"],
            "base_output_dir": "gs://example-bucket/x",
            "labels": ours["labels"],
        },
    )
    sent = _json(aiplatform().CustomJob(ours))
    # `submit` is given these, and fills them in.
    assert sent["jobSpec"].pop("scheduling") == {"strategy": "STANDARD", "restartJobOnWorkerRestart": True}
    assert sent == theirs
    searched = _json(aiplatform().HyperparameterTuningJob(our_study))
    for name in ("maxTrialCount", "parallelTrialCount", "displayName"):
        assert searched[name] == their_study[name]
    # A trial of ours measures once, so that the best is the last.
    assert searched["studySpec"] == {**their_study["studySpec"], "measurementSelectionType": "LAST_MEASUREMENT"}


def _run(script: str, given: dict[str, Any]) -> Any:
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _json(message: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    value: dict[str, Any] = json_format.MessageToDict(type(message).pb(message))
    return value
