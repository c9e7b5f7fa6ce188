"""What every command shares: where things lie, how answers are printed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

RunsDir = Annotated[
    Path,
    typer.Option(
        "--runs-dir",
        envvar="TIDEMILL_RUNS_DIR",
        file_okay=False,
        help="Directory of runs, registry, endpoints and cache.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
DEFAULT_RUNS_DIR = Path(".tidemill")

# Names, paths and values of the user's data are printed as they are, brackets and colons included.
out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    """Prints ``value`` as indented JSON, unwrapped and without colour."""
    typer.echo(json.dumps(value, indent=2, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Iterable[str | Text]], empty: str) -> None:
    """Prints a plain table, or ``empty`` where there are no rows."""
    rows = list(rows)
    if not rows:
        out.print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)  # the first is a name, to be copied
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    out.print(table)


def amount(money: float) -> str:
    """Returns an estimated sum of money to two significant digits, or to the cent: ``0.0023``, ``12.30``."""
    return f"{money:.2f}" if money >= 1 else f"{money:.2g}"


def duration(seconds: float | None) -> str:
    """Returns ``0.4 s``, ``12 s`` or ``3 min 05 s``."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
