"""What we send is what the high-level SDK would send: its classes aren't used, but their messages are the measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tidemill.vertex.sdk import aiplatform
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


def _run(script: str, given: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def _json(message: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    value: dict[str, Any] = json_format.MessageToDict(type(message).pb(message))
    return value
