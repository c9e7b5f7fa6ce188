"""Where the table of a run is: templates filled in, content fingerprinted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidemill.files import write_text
from tidemill.ingest.fingerprint import fingerprint
from tidemill.ingest.templates import has_template, resolve, run_time


@dataclass(frozen=True)
class Location:
    """The table of this run, and what identifies its content; see `tidemill.ingest.fingerprint`."""

    source: str
    fingerprint: str


def run(source: str, scheduled: str, created: str, located: str | Path, digest: str | Path) -> Location:
    """Writes the source of this run to the file ``located`` and its fingerprint to ``digest``.

    Args:
        source: file, directory, glob or URI; may hold templates.
        scheduled: when the run was due, as `tidemill.ingest.templates.run_time` takes it.
        created: when the run was created, likewise.

    Raises:
        UsageError: if a template can't be filled in.
        DataError: if nothing readable is there.
        PlatformError: if there are templates, and the backend doesn't say when the run was due.
    """
    found = resolve(source, run_time(scheduled, created)) if has_template(source) else source
    location = Location(found, fingerprint(found))
    write_text(Path(located), location.source)
    write_text(Path(digest), location.fingerprint)
    return location
