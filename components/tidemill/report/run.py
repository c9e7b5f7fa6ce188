"""Writes the page of a run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tidemill.files import write_text
from tidemill.report import (
    compression,
    data,
    evidence,
    formats,
    lineage,
    quality,
    rehearsal,
    slices,
    stages,
    titles,
    tuning,
    verdict,
)

_FILTERS = (
    formats.count,
    formats.number,
    formats.signed,
    formats.share,
    formats.duration,
    formats.milliseconds,
    formats.megabytes,
    formats.interval,
    formats.money,
    formats.words,
    formats.shortened,
    formats.plural,
    formats.prose,
    titles.metric,
    titles.check,
    titles.limit,
    titles.measure,
)


@dataclass(frozen=True)
class ReportSummary:
    """What the page tells.

    Attributes:
        verdict: as on the page.
        sections: those that the run had something to show for.
        notes: artefacts that could not be read; each is named on the page.
        bytes: size of the page.
    """

    verdict: str
    sections: tuple[str, ...]
    notes: tuple[str, ...]
    bytes: int


def run(run_dir: str | Path, page: str | Path) -> ReportSummary:
    """Writes the page; the same run directory gives the same bytes.

    Args:
        run_dir: see :mod:`tidemill.runs`; anything in it may be missing or malformed.
        page: the HTML file to write.
    """
    found = evidence.read(Path(run_dir))
    sections = _sections(found)
    text = render(found, sections)
    write_text(Path(page), text)
    shown = tuple(name for name, section in sections.items() if section is not None)
    return ReportSummary(found.verdict, shown, tuple(note.where for note in found.notes), len(text.encode()))


def _sections(found: evidence.Evidence) -> dict[str, Any]:
    return {
        "verdict": verdict.view(found),
        "pipeline": stages.view(found),
        "data": data.view(found),
        "tuning": tuning.view(found),
        "learning": quality.learning(found),
        "metrics": quality.view(found),
        "slices": slices.view(found),
        "compression": compression.view(found),
        "rehearsal": rehearsal.view(found),
        "lineage": lineage.view(found),
    }


def render(found: evidence.Evidence, sections: Mapping[str, Any]) -> str:
    """Returns the page as HTML. Everything that comes from the run is escaped."""
    environment = _environment()
    style = Markup(environment.get_template("style.css").render())  # the package's own file
    page = environment.get_template("page.html").render(run=found.run, notes=found.notes, style=style, **sections)
    # Half a surrogate pair, which JSON can smuggle in, has no bytes in UTF-8.
    return page.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tidemill.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in _FILTERS}
    return environment
