"""What the platform spec asks of Kubernetes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, Final

from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject

FEATURES: Final[dict[str, str]] = {
    "secretAsVolume": "read the secret from Secret Manager in the component, as the task's service account",
    "secretAsEnv": "read the secret from Secret Manager in the component, as the task's service account",
    "pvcMount": "keep it below the pipeline root, which Vertex AI mounts at /gcs",
    "nodeSelector": "Vertex AI chooses machines by the task's limits and accelerator",
    "podMetadata": "give `labels` in the target's file: they are the run's",
    "imagePullSecret": "put the image into Artifact Registry, and give the service account the right to read it",
    "imagePullPolicy": "give images by digest",
    "configMapAsVolume": "put the values into the problem's directory or the pipeline's parameters",
    "configMapAsEnv": "put the values into the problem's directory or the pipeline's parameters",
    "activeDeadlineSeconds": "Vertex AI has no limit of time for a task of a pipeline: leave it out",
    "fieldPathAsEnv": "use KFP's placeholders, such as dsl.PIPELINE_JOB_ID_PLACEHOLDER",
    "tolerations": "Vertex AI chooses machines by the task's limits and accelerator",
    "genericEphemeralVolume": "use /tmp, or ask for a larger machine",
    "nodeAffinity": "Vertex AI chooses machines by the task's limits and accelerator",
    "podAffinity": "Vertex AI gives every task a machine of its own",
    "enabledSharedMemory": "Vertex AI gives every task a machine of its own, with its shared memory",
    "emptyDirMounts": "use /tmp",
    "securityContext": "set USER in the image",
    "initContainers": "do the work in the component",
}
"""What KFP's platform spec has for a task, and what stands in for it on Vertex AI.
Source: kubernetes_executor_config.proto of KFP 2.17."""
_UNREAD: Final = {
    "podAffinity": "use node affinity or the cluster's defaults",
    "enabledSharedMemory": "mount an emptyDir of medium Memory at /dev/shm: kubernetes.empty_dir_mount",
}
"""What the SDK compiles and nothing in KFP's backend 2.17 reads."""
_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_HOST: Final = ("hostPath", "hostNetwork", "hostPID", "hostIPC", "privileged")


@check("platform-feature", "error", "Vertex AI has none of the features of `kfp.kubernetes`.", ["vertex"])
def platform_feature(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        for feature in task.platform:
            cure = FEATURES.get(feature, "leave it out")
            yield Told(task.name, f"asks for {feature}, which Vertex AI has not", cure)


@check(
    "unknown-feature",
    "error",
    "KFP's compiler refuses keys of a task's platform spec that it doesn't know.",
    ["kubernetes"],
)
def unknown_feature(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        for feature in sorted(set(task.platform) - set(FEATURES)):
            close = difflib.get_close_matches(feature, FEATURES, 1)
            cure = f"did you mean {close[0]}?" if close else "leave it out, or set it on the cluster"
            yield Told(task.name, f"asks for {feature}, which KFP doesn't know", cure)


@check("unread-feature", "warning", "KFP's SDK writes it and its backend never reads it.", ["kubernetes"])
def unread_feature(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        for feature in sorted(set(task.platform) & set(_UNREAD)):
            yield Told(task.name, f"asks for {feature}, which KFP's backend leaves out", _UNREAD[feature])


@check("other-platform", "warning", "The platform spec names platforms that this backend isn't.", ["kubernetes"])
def other_platform(subject: Subject) -> Iterator[Told]:
    for platform in sorted(set(subject.platforms) - {"kubernetes"}):
        yield Told(None, f"the platform spec has a part for {platform}, which is left out", "compile for this target")


@check(
    "pull-policy",
    "error",
    "KFP's driver fails on other image pull policies than the three of Kubernetes.",
    ["kubernetes"],
)
def pull_policy(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        policy = task.platform.get("imagePullPolicy")
        if policy is not None and policy not in _PULL_POLICIES:
            yield Told(task.name, f"imagePullPolicy is {policy}", f"use one of {', '.join(_PULL_POLICIES)}")


@check("runs-as-root", "error", "KFP runs all pods with runAsNonRoot: user 0 is refused.", ["kubernetes"])
def runs_as_root(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        if int(task.platform.get("securityContext", {}).get("runAsUser", 1)) == 0:
            yield Told(task.name, "asks to run as user 0", "use a user of the image, such as 65532")


@check(
    "host-access", "error", "It asks for something of the node, which pod security standards refuse.", ["kubernetes"]
)
def host_access(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        for key in sorted(set(_keys(task.platform)) & set(_HOST)):
            yield Told(task.name, f"asks for {key}", "use a volume claim, or an emptyDir")


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


CHECKS: Final = (
    platform_feature,
    unknown_feature,
    unread_feature,
    other_platform,
    pull_policy,
    runs_as_root,
    host_access,
)
