"""Our pipelines, compiled for Kubernetes, and the Workflows that KFP's own backend compiler makes of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# This directory's own modules, and those of the manifests' tests; importlib's mode adds no directory.
sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "manifests")]

import argo_compiler
from tools import Missing
from workflows import EVERYTHING

from tidemill_pipelines.pipelines import PIPELINES
from tidemill_pipelines.targets.compilation import Package, compile_package
from tidemill_pipelines.targets.config import parse_target

PROBLEM = Path(__file__).parents[2] / "pipelines" / "problems" / "lending"
TARGET = """
kind: kubernetes
pipeline_root: s3://example-bucket/runs
images: {registry: registry.example.com/team/tidemill, tag: "1"}
labels: {team: lending}
defaults: {cpu: "2", memory: 4Gi, retries: {count: 2, backoff_s: 30, factor: 2, max_backoff_s: 600}, timeout_s: 3600}
stages:
  train:
    cpu: "8"
    memory: 32Gi
    spot: true
    cache: false
    accelerator: {type: nvidia.com/gpu, count: 1, node: {cloud.google.com/gke-accelerator: nvidia-l4}}
kubernetes: {store_claim: example-store, image_pull_secrets: [registry]}
"""


JOB = """
kind: kubernetes
pipeline_root: s3://example-bucket/runs
images: {registry: registry.example.com/team/tidemill, tag: "1"}
defaults: {retries: {count: 2, backoff_s: 30}}
kubernetes: {store_claim: example-store}
training:
  kind: kubernetes
  workers: 2
  spot: true
  accelerator: {type: nvidia.com/gpu, node: {cloud.google.com/gke-accelerator: nvidia-l4}}
"""
ADDED = {
    "training.start_from": "champion",
    "compression": "{variants: {small: {kind: litert}}, limits: {metrics: [{metric: auc, max_worse: 0.01}]}}",
}


def available(tool: Callable[[], Any]) -> Any:
    """Returns what ``tool`` returns, or skips where it cannot be had."""
    try:
        return tool()
    except Missing as reason:
        if os.environ.get("TIDEMILL_REQUIRE_TOOLS") == "1":
            raise
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def packages() -> dict[str, Package]:
    """Every pipeline, compiled for a target that says something of each kind."""
    target = parse_target(TARGET, "target.yaml")
    source = "s3://example-bucket/loans.csv"
    made = {name: compile_package(PROBLEM, name, target, source=source).package for name in PIPELINES}
    job = parse_target(JOB, "target.yaml")
    return {**made, EVERYTHING: compile_package(PROBLEM, "training", job, overrides=ADDED, source=source).package}


@pytest.fixture(scope="session")
def argo() -> Path:
    """KFP's backend compiler."""
    return available(argo_compiler.compiler)


@pytest.fixture(scope="session")
def workflow_crd() -> dict[str, Any]:
    return available(argo_compiler.workflow_crd)
