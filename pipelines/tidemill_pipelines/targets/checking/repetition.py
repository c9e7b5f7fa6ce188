"""What is done again, and what is not done again: retries and caching."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject, Task

_IMPURE: Final = ("locate", "find_champion", "register", "deploy", "report")
"""Stages whose result depends on more than their inputs, or whose effect is what they are for."""
_MOST_RETRIES: Final = 10
_WEEK_S: Final = 7 * 24 * 3600


@check(
    "retry-window",
    "warning",
    "On KFP `backoffMaxDuration` is the time for all tries of a task: then none begins, and a running one is ended.",
    ["kubernetes"],
)
def retry_window(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        policy = task.spec.get("retryPolicy", {})
        limit, again = int(task.platform.get("activeDeadlineSeconds", 0)), _retries(task)
        window = _seconds(policy.get("backoffMaxDuration", "3600s"))
        first, factor = _seconds(policy.get("backoffDuration", "0s")), float(policy.get("backoffFactor", 2))
        pauses = sum(first * factor**number for number in range(again))
        tries = limit * (again + 1) + pauses if limit else _WEEK_S
        if again and tries > window:
            told = (
                f"{again + 1} tries of {limit} s and their pauses" if limit else f"{again + 1} tries of no limited time"
            )
            cure = "set a longer backoff_max_duration, or a timeout so that the tries fit"
            yield Told(task.name, f"has {window:g} s for {told}: longer ones are ended and not tried again", cure)


@check(
    "gate-retried", "warning", "A gate that refused would be asked again, with the same answer: the refusal comes late."
)
def gate_retried(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        if task.stage == "gate" and _retries(task):
            yield Told(task.name, f"is a gate with {_retries(task)} retries", "call no .set_retry() on it")


@check("retries-too-many", "warning", "A task is tried more than ten times: faults that don't pass cost that much.")
def retries_too_many(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        if _retries(task) > _MOST_RETRIES:
            yield Told(task.name, f"is tried {_retries(task) + 1} times", f"use at most {_MOST_RETRIES} retries")


@check("retry-pause", "error", "Vertex AI waits at most an hour between two tries.", ["vertex"])
def retry_pause(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        policy = task.spec.get("retryPolicy", {})
        for name in ("backoffDuration", "backoffMaxDuration"):
            if name in policy and _seconds(policy[name]) > 3600:
                yield Told(task.name, f"its {name} is {policy[name]}", "use at most 3600s")


@check("retry-factor", "error", "A pause that shrinks is refused, and on KFP Argo fails on a factor with a fraction.")
def retry_factor(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        factor = float(task.spec.get("retryPolicy", {}).get("backoffFactor", 2))
        if factor < 1 or (subject.target.kind == "kubernetes" and not factor.is_integer()):
            yield Told(task.name, f"its backoffFactor is {factor:g}", "use a whole number from 1")


@check(
    "retry-of-group", "warning", "KFP retries components alone: the retries of a group are left out.", ["kubernetes"]
)
def retry_of_group(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        if task.is_group and _retries(task):
            yield Told(task.name, "is a group with retries", "set them on its tasks")


@check(
    "cached-though-impure", "error", "A reused result of this stage would be wrong: it must look, or act, in every run."
)
def cached_though_impure(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        if task.stage in _IMPURE and task.cached:
            yield Told(task.name, "may be reused", "call .set_caching_options(False) on it in the pipeline")


def _retries(task: Task) -> int:
    return int(task.spec.get("retryPolicy", {}).get("maxRetryCount", 0))


def _seconds(text: str) -> float:
    """Returns the seconds of a protobuf duration in JSON: ``3600s``."""
    return float(text.rstrip("s"))


CHECKS: Final = (
    retry_window,
    gate_retried,
    retries_too_many,
    retry_pause,
    retry_factor,
    retry_of_group,
    cached_though_impure,
)
