"""``tidemill submit``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tidemill.errors import UsageError
from tidemill_pipelines.commands import check, remote_runs
from tidemill_pipelines.commands.options import (
    Cache,
    Images,
    Labels,
    Overrides,
    PipelineName,
    ProblemDir,
    Source,
    TargetName,
    assignments,
)
from tidemill_pipelines.commands.verdicts import exit_code, verdict
from tidemill_pipelines.console import Json, err, out, print_json

if TYPE_CHECKING:
    from tidemill_pipelines.targets.checking.subject import Plan
    from tidemill_pipelines.targets.compilation import Compiled
    from tidemill_pipelines.targets.config import TargetConfig
    from tidemill_pipelines.targets.remote import RemoteRun, RemoteTarget

_LOOKED_AT: Final = 200
_INTERRUPTED: Final = 130


def submit(
    problem_dir: ProblemDir,
    target: TargetName,
    pipeline: PipelineName = "training",
    images: Images = None,
    source: Source = None,
    overrides: Overrides = None,
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The same id makes one run, whatever became of it.")
    ] = None,
    labels: Labels = None,
    cache: Cache = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the run's end, and exit with its verdict.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most; the run goes on.")] = None,
    poll: Annotated[float, typer.Option(min=0, help="Seconds between two looks while waiting.")] = 15.0,
    json_output: Json = False,
) -> None:
    """Compile a pipeline, check it, upload what it needs and have a target run it.

    Without --request-id, a run of exactly the same that is still at work is found instead of made twice: pressing
    Enter again does no harm. One that has ended is no hindrance to the next. With it, one id makes one run for good.

    Exit codes: 0 submitted, or with --wait succeeded; 3 refused by a gate; 4 bad input, or `tidemill check` finds
    errors; 5 the backend failed, refused for now, or did not end within --timeout; 130 cancelled or interrupted.

    Examples:

        tidemill submit pipelines/problems/lending --target production --source gs://example-bucket/loans.csv

        tidemill submit my-problem --target production --images images.json --wait --timeout 7200

        tidemill submit my-problem --target production --request-id "build-$BUILD_ID" --label commit=c0ffee --json
    """
    from tidemill_pipelines.targets.backends import open_target
    from tidemill_pipelines.targets.config import load_target

    if request_id is not None and not request_id.strip():
        raise UsageError("--request-id", "expected an id", "an empty text", "is the variable set that it comes from?")
    config = load_target(target)
    own = assignments("--label", labels, "team=risk")
    given = assignments("--set", overrides, "training.max_epochs=5")
    compiled = compiled_and_checked(problem_dir, pipeline, config, images, given, source, own, None, json_output)
    backend = open_target(config)
    backend.stage(compiled.files)
    run = submitted(backend, compiled, request_id, own, cache)
    if not json_output:
        out.print(f"{run.id}: {'is there already' if run.existed else 'submitted'}, {run.state}", soft_wrap=True)
        if run.url:
            out.print(run.url, soft_wrap=True)
    if not wait:
        if json_output:
            print_json(remote_runs.as_json(run))
        return
    say = (lambda _: None) if json_output else (lambda line: out.print(line, soft_wrap=True))
    try:
        ended = remote_runs.wait(backend, run.id, poll, timeout, say)
    except KeyboardInterrupt:
        err.print(f"interrupted; the run goes on: `tidemill runs show {run.id} --target {target}`", soft_wrap=True)
        raise typer.Exit(_INTERRUPTED) from None
    if json_output:
        print_json({**remote_runs.as_json(ended), "existed": run.existed})
    else:
        out.print(verdict(ended).replace("_", " "), style="bold")
        if ended.error:
            out.print(ended.error, soft_wrap=True)
    raise typer.Exit(exit_code(ended))


def compiled_and_checked(
    problem_dir: Path,
    pipeline: str,
    config: TargetConfig,
    images: Path | None,
    overrides: Mapping[str, str],
    source: str | None,
    labels: Mapping[str, str],
    plan: Plan | None,
    quiet: bool,
) -> Compiled:
    """Compiles a problem for a target and tells what the checks find.

    Args:
        labels: of the run, beside those of the target's file.
        plan: when it is to be run again and again.
        quiet: tell errors alone.

    Raises:
        UsageError: if the backend would refuse it.
    """
    from tidemill_pipelines.targets.checking.subject import Subject
    from tidemill_pipelines.targets.compilation import ImagesFile, compile_package
    from tidemill_pipelines.targets.sdk import import_sdk

    digests = ImagesFile.read(images) if images else None
    import_sdk()
    compiled = compile_package(problem_dir, pipeline, config, digests, overrides, source)
    check.insist(check.look(Subject(compiled.package, config, digests, labels, plan)), quiet)
    return compiled


def submitted(
    backend: RemoteTarget, compiled: Compiled, request_id: str | None, labels: Mapping[str, str], cache: bool | None
) -> RemoteRun:
    """Returns the run of a request id; without one, a run of the same that is at work, or a new one."""
    from tidemill_pipelines.targets.remote import Submission

    def submission(identity: str) -> Submission:
        return Submission(compiled.package.name, compiled.package, identity, labels=labels, cache=cache)

    if request_id:
        return backend.submit(submission(request_id))
    digest = request_digest(compiled, labels, cache)
    number = _number(backend, digest)
    while (run := backend.submit(submission(f"{digest}-{number}"))).existed and not _at_work(run):
        number += 1  # of a run that was too long ago to be looked at
    return run


def request_digest(compiled: Compiled, labels: Mapping[str, str], cache: bool | None) -> str:
    """Returns 16 hex digits that stand for all that is asked for."""
    content = json.dumps([compiled.package.digest, dict(labels), cache], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _number(backend: RemoteTarget, digest: str) -> int:
    """Returns the number of the run of ``digest`` which is at work, or else the next of those that were looked at."""
    numbered = re.compile(rf"{digest}-(\d+)")
    taken = [0]
    for run in backend.runs(_LOOKED_AT):
        if found := numbered.fullmatch(run.request_id or ""):
            if _at_work(run):
                return int(found[1])
            taken.append(int(found[1]))
    return max(taken) + 1


def _at_work(run: RemoteRun) -> bool:
    from tidemill_pipelines.targets.remote import ENDED

    return run.state not in ENDED and run.state != "cancelling"
