"""All checks, what they find in a package, and what is written of them in CHECKS.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tidemill_pipelines.targets.checking import (
    accelerators,
    artifacts,
    code,
    custom_jobs,
    documents,
    features,
    images,
    labels,
    parameters,
    places,
    repetition,
    resources,
    schedules,
    sizes,
    training,
)
from tidemill_pipelines.targets.checking.findings import SEVERITIES, Check, Finding
from tidemill_pipelines.targets.checking.subject import Subject

GROUPS: Final = (
    documents,
    features,
    places,
    images,
    resources,
    accelerators,
    training,
    custom_jobs,
    parameters,
    artifacts,
    repetition,
    labels,
    schedules,
    sizes,
    code,
)
CHECKS: Final[tuple[Check, ...]] = tuple(each for group in GROUPS for each in group.CHECKS)
_HEAD: Final = """# What `tidemill check` finds
Written by `python -m tidemill_pipelines.targets.checking > pipelines/targets/CHECKS.md`; a test holds it to the code.
An **error** is what the backend refuses, or what no run can succeed with; a **warning** is what it silently changes,
ignores or pays for; a **note** is something outside the package that must be there. Ids are stable.
"""


def findings(subject: Subject) -> list[Finding]:
    """Returns all that the checks find in a package: errors first, in the order of the table.

    Raises:
        UsageError: if the file is too broken to be looked at.
    """
    found = [finding for each in CHECKS for finding in each.findings(subject)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def documentation() -> str:
    """Returns the text of CHECKS.md."""
    parts = [_HEAD]
    for group in GROUPS:
        rows = [_row(each) for each in group.CHECKS]
        title = str(group.__doc__).splitlines()[0].rstrip(".")
        parts.append(
            f"## {title}\n| id | severity | on | when it fires |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def _row(each: Check) -> str:
    return f"| `{each.id}` | {each.severity} | {_on(each.kinds)} | {each.tells} |"


def _on(kinds: Sequence[str]) -> str:
    names = {"kubernetes": "Kubernetes", "vertex": "Vertex AI"}
    return ", ".join(names[kind] for kind in kinds)
