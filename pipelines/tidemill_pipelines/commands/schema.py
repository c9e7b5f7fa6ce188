"""``tidemill schema``: the curated schema of a problem, what a run's data suggests to change in it, files' schemas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tidemill.errors import UsageError
from tidemill_pipelines.console import DEFAULT_RUNS_DIR, Json, RunsDir, out, print_json, print_table
from tidemill_pipelines.targets.local.environments import call
from tidemill_pipelines.targets.local.layout import Layout

app = typer.Typer(
    help="Compare the curated schema with a run's data, accept changes, print JSON Schemas.", no_args_is_help=True
)
ProblemDir = Annotated[Path, typer.Argument(metavar="PROBLEM_DIR", help="The directory that holds problem.yaml.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or `latest`.")]


@app.command()
def diff(
    problem_dir: ProblemDir, run: RunId = "latest", runs_dir: RunsDir = DEFAULT_RUNS_DIR, json_output: Json = False
) -> None:
    """Show what would have to change in the curated schema for a run's data to agree with it.

    A safe change lets everything through that passed before: a new value, wider bounds, a new optional column. A
    breaking one takes away what a reader of the data may count on: a column, its type, that it is always there.
    Without a curated schema the whole inferred one is proposed.

    Examples:

        tidemill schema diff pipelines/problems/lending latest

        tidemill schema diff pipelines/problems/lending lending-20260101-120000-ab12 --json
    """
    result = _curate("diff", problem_dir, run, runs_dir)
    if json_output:
        print_json(result)
        return
    _print_changes(result, "the run's data agrees with the curated schema")


@app.command()
def accept(
    problem_dir: ProblemDir,
    run: RunId = "latest",
    breaking: Annotated[bool, typer.Option("--breaking", help="Accept breaking changes too.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """Write PROBLEM_DIR/schema.pbtxt with the changes that a run's data suggests; only the safe ones by default.

    The file is written anew: comments in it are not kept.

    Examples:

        tidemill schema accept pipelines/problems/lending latest

        tidemill schema accept pipelines/problems/lending latest --breaking
    """
    result = _curate("accept", problem_dir, run, runs_dir, *(["--breaking"] if breaking else []))
    if json_output:
        print_json(result)
        return
    _print_changes(result, "nothing to accept: the run's data agrees with the curated schema")
    if result["written"]:
        out.print(f"wrote {result['path']}", soft_wrap=True)
    left = sum(not change["accepted"] for change in result["changes"])
    if left:
        out.print(f"left out {left} breaking change{'s' * (left > 1)}; `--breaking` accepts them", soft_wrap=True)


@app.command("json")
def print_schema(
    kind: Annotated[Literal["problem", "target"], typer.Argument(help="Of problem.yaml, or of a target's file.")],
) -> None:
    """Print the JSON Schema of a file, for editors that complete and check while one types.

    Examples:

        tidemill schema json problem > problem.schema.json

        tidemill schema json target > target.schema.json
    """
    from tidemill import problem
    from tidemill_pipelines.targets import config

    print_json(problem.json_schema() if kind == "problem" else config.json_schema())


def _curate(command: str, problem_dir: Path, run: str, runs_dir: Path, *flags: str) -> Mapping[str, Any]:
    from tidemill.problem import load_problem

    layout = Layout(runs_dir)
    record = layout.find(run)
    problem = load_problem(problem_dir).name
    if record.problem != problem:
        raise UsageError(f"run {record.id}", f"expected a run of {problem}", f"one of {record.problem}")
    run_dir = layout.run_dir(record.id)
    arguments = [command, str(problem_dir), str(run_dir), *flags]
    result: Mapping[str, Any] = call("validation", "tidemill.validate.curation", arguments)
    return result


def _print_changes(result: Mapping[str, Any], agreed: str) -> None:
    if not result["curated"]:
        out.print("no curated schema yet: everything is new\n")
    rows = [(change["class"], change["column"], change["kind"], change["message"]) for change in result["changes"]]
    print_table(("class", "column", "change", "what"), rows, agreed)
