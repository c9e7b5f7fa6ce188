"""``tidemill submit``: one run per request, the run's end as an exit code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from remote_memory import MemoryTarget, task

from tidemill.errors import PlatformError, UsageError
from tidemill_pipelines.commands import remote_runs
from tidemill_pipelines.commands import submit as command
from tidemill_pipelines.targets import compilation
from tidemill_pipelines.targets.compilation import Compiled, Package

Invoke = Callable[..., Result]
Example = dict[str, tuple[str, ...]]


@pytest.fixture
def submit(invoke: Invoke, example: Example) -> Invoke:
    return lambda *more: invoke("submit", *example["vertex"], *more)


def test_the_bundles_are_uploaded_and_a_run_is_made(submit: Invoke, remote: MemoryTarget, package: Compiled) -> None:
    told = submit("--label", "commit=c0ffee", "--no-cache")
    assert told.exit_code == 0
    assert told.stdout == "run-1: submitted, pending\nhttps://console.example.com/run-1\n"
    assert remote.staged == dict(package.files)
    (submission,) = remote.submissions
    assert (submission.name, submission.package) == ("lending-training", package.package)
    assert (submission.labels, submission.cache) == ({"commit": "c0ffee"}, False)


def test_caching_is_left_to_the_stages_unless_asked_for(submit: Invoke, remote: MemoryTarget) -> None:
    submit()
    assert remote.submissions[0].cache is None


def test_pressing_enter_twice_makes_one_run(submit: Invoke, remote: MemoryTarget) -> None:
    submit()
    assert submit().stdout.startswith("run-1: is there already, pending\n")
    assert len(remote.made) == 1


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "cancelling"])
def test_a_run_that_has_ended_is_no_hindrance(state: Any, submit: Invoke, remote: MemoryTarget) -> None:
    submit()
    remote.made["run-1"] = replace(remote.made["run-1"], state=state)
    assert submit().stdout.startswith("run-2: submitted")
    assert submit().stdout.startswith("run-2: is there already")
    ids = [run.request_id or "" for run in remote.made.values()]
    assert [identity.split("-")[1] for identity in ids] == ["1", "2"]


def test_an_ended_run_that_is_too_long_ago_to_be_looked_at_is_no_hindrance_either(
    submit: Invoke, remote: MemoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_LOOKED_AT", 1)
    submit()
    remote.made["run-1"] = replace(remote.made["run-1"], state="failed")
    submit("--label", "team=other")  # is now the newest
    assert submit().stdout.startswith("run-3: submitted")


def test_another_label_or_package_is_another_run(
    submit: Invoke, remote: MemoryTarget, package: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit()
    submit("--label", "team=other")
    submit("--no-cache")
    other = replace(package, package=Package(package.package.text + "\n"))
    monkeypatch.setattr(compilation, "compile_package", lambda *a, **k: other)
    submit()
    assert len(remote.made) == 4


def test_a_request_id_makes_one_run_for_good(submit: Invoke, remote: MemoryTarget) -> None:
    submit("--request-id", "build-7")
    remote.made["run-1"] = replace(remote.made["run-1"], state="failed")
    assert submit("--request-id", "build-7", "--label", "a=b").stdout.startswith("run-1: is there already, failed")
    assert len(remote.made) == 1


def test_an_empty_request_id_is_a_variable_that_is_not_set(submit: Invoke, remote: MemoryTarget) -> None:
    with pytest.raises(UsageError, match="--request-id: expected an id"):
        submit("--request-id", "")
    assert not remote.made


def test_errors_of_the_check_stop_it_before_anything_is_uploaded(
    invoke: Invoke, remote: MemoryTarget, example: Example
) -> None:
    directory, source, table, *_ = example["vertex"]
    with pytest.raises(UsageError, match="would be refused by the backend"):
        invoke("submit", directory, source, table, "--target", "vertex")
    with pytest.raises(UsageError, match="would be refused"):
        invoke("submit", *example["vertex"], "--label", "Team=Risk")
    assert not remote.staged
    assert not remote.submissions


def test_warnings_are_told_and_dont_stop_it(
    submit: Invoke, remote: MemoryTarget, package: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged = Package(package.package.text.replace(f"@sha256:{'0' * 64}", ":1"))
    monkeypatch.setattr(compilation, "compile_package", lambda *a, **k: replace(package, package=tagged))
    told = submit()
    assert "[image-not-pinned]" in told.stderr
    assert told.exit_code == 0
    assert submit("--json").stderr == ""


def test_waiting_tells_what_the_tasks_come_to(submit: Invoke, remote: MemoryTarget) -> None:
    remote.script = [
        ("running", (task("ingest", "running"), task("train", "pending"))),
        ("running", (task("ingest", "succeeded", took_s=65), task("train", "running"))),
        ("succeeded", (task("ingest", "succeeded", took_s=65), task("train", "cached"), task("deploy", "succeeded"))),
    ]
    told = submit("--wait", "--poll", "0")
    assert told.exit_code == 0
    assert told.stdout.splitlines()[2:] == [
        "12:00:00  ingest running",
        "12:01:05  ingest succeeded in 1 min 05 s",
        "12:00:00  train running",
        "12:00:00  train cached",
        "12:00:00  deploy succeeded",
        "released",
    ]


@pytest.mark.parametrize(
    ("tasks", "exit_code", "said"),
    [
        ((task("gate-2", "failed"),), 3, "refused"),
        (
            (task("model-gate", "failed", "The replica workerpool0-0 exited with a non-zero status of 3."),),
            3,
            "refused",
        ),
        ((task("data-gate", "failed", "Error (exit code 5)"),), 5, "platform failure"),
        ((task("train", "failed", "main: Error (exit code 4)"), task("release", "failed")), 4, "bad input"),
        ((task("ingest", "failed", "exit status 5"),), 5, "platform failure"),
        ((task("train", "failed", "OOMKilled (exit code 137)"),), 5, "platform failure"),
        ((task("train", "failed", "quota exceeded"),), 5, "platform failure"),
        ((task("train", "failed", "Error (exit code 1)"),), 5, "platform failure"),
        ((task("gate", "skipped"), task("train", "failed", None)), 5, "platform failure"),
        ((), 5, "platform failure"),
    ],
)
def test_a_failed_run_ends_with_the_code_of_its_verdict(
    tasks: tuple[Any, ...], exit_code: int, said: str, submit: Invoke, remote: MemoryTarget
) -> None:
    remote.script = [("failed", tasks)]
    told = submit("--wait", "--poll", "0")
    assert told.exit_code == exit_code
    assert told.stdout.splitlines()[-2:] == [said, "The DAG failed."]


@pytest.mark.parametrize(
    ("state", "exit_code", "verdict"),
    [("succeeded", 0, "completed"), ("cancelled", 130, "interrupted")],
)
def test_other_ends(
    state: Any, exit_code: int, verdict: str, submit: Invoke, remote: MemoryTarget, read_json: Callable[[Result], Any]
) -> None:
    remote.script = [(state, ())]
    told = submit("--wait", "--poll", "0", "--json")
    facts = read_json(told)
    assert told.exit_code == facts["exit_code"] == exit_code
    assert (facts["verdict"], facts["existed"], facts["state"]) == (verdict, False, state)


def test_without_waiting_programs_are_told_the_run(
    submit: Invoke, remote: MemoryTarget, read_json: Callable[[Result], Any]
) -> None:
    facts = read_json(submit("--json", "--request-id", "build-7"))
    assert (facts["id"], facts["request_id"], facts["verdict"], facts["exit_code"]) == (
        "run-1",
        "build-7",
        "running",
        None,
    )
    assert facts["existed"] is False


def test_a_run_that_takes_too_long_goes_on(submit: Invoke, remote: MemoryTarget) -> None:
    remote.script = [("running", (task("train", "running"),))]
    with pytest.raises(PlatformError, match=r"run run-1: did not end within 0.05 s \(got running\)\n  → it goes on"):
        submit("--wait", "--poll", "0.02", "--timeout", "0.05")
    assert remote.made["run-1"].state == "running"


def test_ctrl_c_ends_the_waiting_and_not_the_run(
    submit: Invoke, remote: MemoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(remote_runs, "wait", interrupt)
    told = submit("--wait")
    assert told.exit_code == 130
    assert "the run goes on: `tidemill runs show run-1 --target" in told.stderr
    assert remote.made["run-1"].state == "pending"


def test_a_backend_out_of_reach_is_the_platforms_fault(submit: Invoke, remote: MemoryTarget) -> None:
    remote.down = True
    with pytest.raises(PlatformError, match="does not answer"):
        submit()


def test_it_is_compiled_for_the_target_with_what_was_given(
    invoke: Invoke,
    example: Example,
    remote: MemoryTarget,
    package: Compiled,
    images_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def compile_package(*arguments: Any) -> Compiled:
        seen.extend(arguments)
        return package

    monkeypatch.setattr(compilation, "compile_package", compile_package)
    invoke("submit", *example["vertex"], "--images", str(images_file), "--set", "training.max_epochs=5")
    directory, pipeline, config, images, overrides, source = seen
    assert (directory.name, pipeline, config.kind) == ("lending", "training", "vertex")
    assert images.commit == "c0ffee"
    assert (overrides, source) == ({"training.max_epochs": "5"}, "gs://example-bucket/loans.csv")
