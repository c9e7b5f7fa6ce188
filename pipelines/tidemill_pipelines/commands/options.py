"""The options that several commands have, and what they say of names they don't know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tidemill.errors import UsageError
from tidemill_pipelines.pipelines import PIPELINES

ProblemDir = Annotated[
    Path, typer.Argument(metavar="PROBLEM_DIR", help="Directory with problem.yaml.", exists=True, file_okay=False)
]
TargetName = Annotated[
    str, typer.Option("--target", metavar="NAME", help="targets/NAME.yaml, a path ending in .yaml, or a bare kind.")
]
AnyTarget = Annotated[
    str | None,
    typer.Option(
        "--target", metavar="NAME", help="targets/NAME.yaml or a path ending in .yaml; this machine if left out."
    ),
]
PipelineName = Annotated[str, typer.Option("--pipeline", help=f"One of {', '.join(PIPELINES)}.")]
Images = Annotated[
    Path | None,
    typer.Option(
        "--images", metavar="FILE", help="images.json of `make images`: the images by digest.", dir_okay=False
    ),
]
Source = Annotated[
    str | None, typer.Option("--source", help="The table; may hold templates such as {{ schedule.time }}.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value of problem.yaml.")
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label, beside those of the target's file.")
]
Cache = Annotated[
    bool | None, typer.Option("--cache/--no-cache", help="Reuse earlier results; as the stages are set by default.")
]


def assignments(flag: str, items: Sequence[str] | None, example: str) -> dict[str, str]:
    """Returns what an option that may be repeated gives as KEY=VALUE.

    Raises:
        UsageError: if one is not of that form.
    """
    faulty = [item for item in items or () if not item.partition("=")[0] or "=" not in item]
    if faulty:
        raise UsageError(f"{flag} {', '.join(faulty)}", "expected KEY=VALUE", remedy=f"{flag} {example}")
    return dict(item.split("=", 1) for item in items or ())
