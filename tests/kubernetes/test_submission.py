"""Runs on the KFP fake, by the unmodified client: what arrives there, and that nothing is made twice."""

from __future__ import annotations

import json
import socket
from dataclasses import replace

import pytest
from kfp_fake import KfpFake

from tidemill_pipelines.targets.compilation import Package
from tidemill_pipelines.targets.config import parse_target
from tidemill_pipelines.targets.kubernetes.target import KubernetesTarget
from tidemill_pipelines.targets.remote import Submission

CONFIG = """
kind: kubernetes
pipeline_root: s3://example-bucket/tidemill
service_account: tidemill-pipeline
labels: {team: credit}
kubernetes:
  host: %s
"""


@pytest.fixture
def target(kfp: KfpFake) -> KubernetesTarget:
    return KubernetesTarget(parse_target(CONFIG % kfp.address, "target"))


@pytest.fixture
def submission(package: Package) -> Submission:
    return Submission("lending", package, "request-1", {"source": "s3://example-bucket/loans.csv"}, {"run": "nightly"})


def test_nothing_but_loopback_is_reached_from_here() -> None:
    with pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("192.0.2.1", 443), timeout=2)


def test_submitting_twice_with_one_request_id_makes_one_run(
    kfp: KfpFake, target: KubernetesTarget, submission: Submission
) -> None:
    first, second = target.submit(submission), target.submit(submission)
    assert (first.existed, second.existed) == (False, True)
    assert first.id == second.id
    assert len(kfp.runs) == len(kfp.pipelines) == len(kfp.versions) == len(kfp.experiments) == 1
    assert second.request_id == "request-1"
    assert second.labels == {"team": "credit", "run": "nightly"}
    other = target.submit(replace(submission, request_id="request-2"))
    assert other.id != first.id
    assert len(kfp.runs) == 2
    assert len(kfp.versions) == 1


def test_what_arrives_is_what_was_asked_for(kfp: KfpFake, target: KubernetesTarget, submission: Submission) -> None:
    run = target.submit(submission)
    (sent,) = kfp.sent("POST", "/apis/v2beta1/runs")
    version = next(iter(kfp.versions.values()))
    assert sent.json["service_account"] == "tidemill-pipeline"
    assert sent.json["runtime_config"] == {
        "parameters": {"source": "s3://example-bucket/loans.csv"},
        "pipeline_root": "s3://example-bucket/tidemill",
    }
    assert sent.json["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert version["name"] == submission.package.digest[:16]
    assert set(version["pipeline_spec"]) == {"pipeline_spec", "platform_spec"}
    assert run.url == f"{kfp.address}/#/runs/details/{run.id}"
    assert "request-1" in json.dumps(sent.json["description"])
