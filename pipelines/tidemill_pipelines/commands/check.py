"""``tidemill check``, and how findings are told by every command that makes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from tidemill.errors import UsageError
from tidemill_pipelines.commands.options import Images, TargetName
from tidemill_pipelines.console import Json, err, out, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from tidemill_pipelines.targets.checking.findings import Finding
    from tidemill_pipelines.targets.checking.subject import Subject

_REFUSED: Final = 4
_STYLES: Final = {"error": "red", "warning": "yellow", "note": "blue"}


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A compiled pipeline.")],
    target: TargetName,
    images: Images = None,
    cron: Annotated[str | None, typer.Option(help="Check for a schedule with these five fields too.")] = None,
    time_zone: Annotated[str, typer.Option(help="Time zone of the schedule.")] = "UTC",
    json_output: Json = False,
) -> None:
    """Tell what a backend would refuse or silently change in a compiled pipeline, before it is submitted.

    Each finding names the task and the cure; pipelines/targets/CHECKS.md lists all that there are.

    Exit codes: 0 nothing that is refused (warnings and notes don't count), 4 errors: the backend would refuse it.

    Examples:

        tidemill check lending.yaml --target production

        tidemill check lending.yaml --target production --images images.json --json | jq '.findings[].id'

        tidemill check lending.yaml --target production --cron '0 3 * * 1' --time-zone Europe/Berlin
    """
    from tidemill_pipelines.targets.checking.subject import Plan, Subject
    from tidemill_pipelines.targets.compilation import ImagesFile, Package
    from tidemill_pipelines.targets.config import load_target

    found = look(
        Subject(
            Package.read(file),
            load_target(target),
            ImagesFile.read(images) if images else None,
            plan=Plan(cron, time_zone) if cron else None,
        )
    )
    if json_output:
        print_json(as_json(str(file), found))
    else:
        show(found, out)
        out.print(summary(found))
    if refused(found):
        raise typer.Exit(_REFUSED)


def look(subject: Subject) -> list[Finding]:
    """Returns what all checks find."""
    from tidemill_pipelines.targets.checking.table import findings

    return findings(subject)


def refused(found: Sequence[Finding]) -> bool:
    """Tells whether the backend would refuse the package."""
    return any(finding.severity == "error" for finding in found)


def as_json(file: str, found: Sequence[Finding]) -> dict[str, object]:
    """Returns what programs are told."""
    counts = {severity: sum(f.severity == severity for f in found) for severity in _STYLES}
    return {"file": file, "counts": counts, "findings": [dataclasses.asdict(finding) for finding in found]}


def show(found: Sequence[Finding], console: Console) -> None:
    """Prints findings; those that differ in the task alone as one."""
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in found:
        alike.setdefault((finding.id, finding.what, finding.cure), []).append(finding)
    for (identity, what, cure), group in alike.items():
        tasks = ", ".join(finding.task for finding in group if finding.task is not None)
        where = f"{tasks}: " if tasks else ""
        severity = group[0].severity
        line = Text.assemble((severity, f"bold {_STYLES[severity]}"), f" {where}{what} ", (f"[{identity}]", "dim"))
        console.print(line, soft_wrap=True)
        console.print(f"  → {cure}", soft_wrap=True)


def summary(found: Sequence[Finding]) -> str:
    """Returns how many findings there are: ``2 errors, 1 warning``."""
    counts = [(severity, sum(f.severity == severity for f in found)) for severity in _STYLES]
    told = ", ".join(f"{number} {severity}{'s' * (number > 1)}" for severity, number in counts if number)
    return told or "nothing found: the backend takes it as it is"


def insist(found: Sequence[Finding], quiet: bool) -> None:
    """Tells findings on stderr, and ends the command if there are errors among them.

    Raises:
        UsageError: if the backend would refuse the package.
    """
    if not quiet or refused(found):
        show(found, err)
    if refused(found):
        raise UsageError("the compiled pipeline", "would be refused by the backend", summary(found), "see above")
