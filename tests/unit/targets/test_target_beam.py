"""A target that names Dataflow tells it the rest of what the target says anyway."""

from __future__ import annotations

import pytest

from tidemill.errors import UsageError
from tidemill_pipelines.targets.beam import beam_flags
from tidemill_pipelines.targets.config import TargetConfig, parse_target

IMAGE = "registry.example.com/tidemill/tensorflow@sha256:" + "0" * 64
VERTEX = """
kind: vertex
pipeline_root: gs://example-bucket/tidemill/
service_account: pipeline@example-project.iam.gserviceaccount.com
labels: {team: risk}
vertex: {project: example-project, region: europe-west1}
"""


def target(text: str) -> TargetConfig:
    return parse_target(text, "target.yaml")


def test_dataflow_is_told_what_the_target_says_and_the_target_s_own_flags_prevail():
    flags = beam_flags(target(f"{VERTEX}beam: {{runner: dataflow, flags: [--max_num_workers=50]}}"), IMAGE)
    assert flags == [
        "--project=example-project",
        "--region=europe-west1",
        "--temp_location=gs://example-bucket/tidemill/beam",
        f"--sdk_container_image={IMAGE}",
        "--sdk_location=container",
        "--service_account_email=pipeline@example-project.iam.gserviceaccount.com",
        "--max_num_workers=10",
        "--autoscaling_algorithm=THROUGHPUT_BASED",
        "--no_use_public_ips",
        "--labels=team=risk",
        "--max_num_workers=50",
    ]


@pytest.mark.parametrize("beam", ["{}", "{runner: flink, flags: ['--job_endpoint=beam:8099']}"])
def test_other_runners_are_told_the_target_s_own_flags_alone(beam):
    told = target(f"{VERTEX}beam: {beam}")
    assert beam_flags(told, IMAGE) == list(told.beam.flags)


def test_dataflow_without_project_or_image_by_digest_is_refused():
    with pytest.raises(UsageError, match=r"needs vertex\.project"):
        beam_flags(target("{kind: vertex, beam: {runner: dataflow}}"), IMAGE)
    with pytest.raises(UsageError, match="named by digest"):
        beam_flags(target(f"{VERTEX}beam: {{runner: dataflow}}"), "registry.example.com/tidemill/tensorflow:0.1.0")
