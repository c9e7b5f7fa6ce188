"""The ``tidemill`` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import tidemill
from tidemill.errors import TidemillError, classify
from tidemill_pipelines.commands import endpoint, models, runs, schedule, schema
from tidemill_pipelines.commands.check import check
from tidemill_pipelines.commands.compile import compile_problem
from tidemill_pipelines.commands.deploy import deploy, rollback
from tidemill_pipelines.commands.init import init
from tidemill_pipelines.commands.run import run
from tidemill_pipelines.commands.submit import submit
from tidemill_pipelines.console import err

app = typer.Typer(
    help="From a table and a label to a model in production that stays good.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(init)
app.command()(run)
app.command("compile")(compile_problem)
app.command()(check)
app.command()(submit)
app.add_typer(schedule.app, name="schedule")
app.add_typer(runs.app, name="runs")
app.command()(deploy)
app.command()(rollback)
app.add_typer(models.app, name="models")
app.add_typer(endpoint.app, name="endpoint")
app.add_typer(schema.app, name="schema")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tidemill {tidemill.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From a table and a label to a model in production that stays good."""


def main() -> None:
    """Runs the command; an error is told in a few lines and ends with its documented exit code."""
    try:
        app()
    except (TidemillError, OSError, MemoryError) as error:
        told = classify("tidemill", error)
        if told is not error and told.exit_code == TidemillError.exit_code:
            raise  # a defect: its trace is wanted
        err.print("error", style="red", end=" ")
        err.print(type(told).__name__)
        err.print(str(told), soft_wrap=True)
        sys.exit(told.exit_code)
