"""``tidemill deploy`` and ``tidemill rollback``: which version answers, on every target."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill_pipelines.commands.options import AnyTarget
from tidemill_pipelines.console import DEFAULT_RUNS_DIR, Json, RunsDir, out, print_json

if TYPE_CHECKING:
    from tidemill_pipelines.targets.remote_endpoints import Rollout

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name, which is its problem's.")]


def deploy(
    model: Model,
    version: Annotated[str | None, typer.Option(help="A registered version; the challenger by default.")] = None,
    traffic: Annotated[
        int | None, typer.Option(min=1, max=100, help="Percent of the requests; as the target's file says by default.")
    ] = None,
    target: AnyTarget = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """Let a registered version answer, after it has answered a test row as it did in its rehearsal.

    Run again, it finds what is there and goes on. Versions that have no traffic left are taken off.

    Exit codes: 0 it answers; 4 there is no such model or version; 5 it doesn't answer, and the traffic is as it was.

    Examples:

        tidemill deploy lending

        tidemill deploy lending --version 4 --traffic 10 --target production
    """
    from tidemill_pipelines.targets.backends import open_deployments

    _tell(open_deployments(target, runs_dir).deploy(model, version, traffic), "answers", json_output)


def rollback(
    model: Model, target: AnyTarget = None, runs_dir: RunsDir = DEFAULT_RUNS_DIR, json_output: Json = False
) -> None:
    """Give all requests back to the version that was champion before.

    Exit codes: 0 it answers; 4 there is none to go back to; 5 it doesn't answer.

    Examples:

        tidemill rollback lending

        tidemill rollback lending --target production
    """
    from tidemill_pipelines.targets.backends import open_deployments

    _tell(open_deployments(target, runs_dir).rollback(model), "is the champion again", json_output)


def _tell(rollout: Rollout, what: str, json_output: bool) -> None:
    if json_output:
        print_json(dataclasses.asdict(rollout))
        return
    instead = f", instead of {rollout.former}" if rollout.changed and rollout.former else ""
    so_already = "" if rollout.changed else " as it did"
    out.print(f"{rollout.model}: version {rollout.version} {what}{so_already}{instead}", soft_wrap=True)
    if len(rollout.traffic) > 1:
        shares = sorted(rollout.traffic.items(), key=lambda item: -item[1])
        out.print("traffic: " + ", ".join(f"version {version} {share} %" for version, share in shares))
    if rollout.retired:
        out.print(f"taken off: {', '.join(rollout.retired)}")
    url = rollout.endpoint.url
    out.print(f"asked at {url}" if url else "no endpoint is running", soft_wrap=True)
