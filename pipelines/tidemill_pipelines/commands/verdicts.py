"""What a run on a backend came to, in the words and exit codes of `tidemill run`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tidemill.runs import EXIT_CODES, Verdict

if TYPE_CHECKING:
    from tidemill_pipelines.targets.remote import RemoteRun, RemoteTask

_CODE: Final = re.compile(r"exit(?:ed)?\b[^.\n]{0,40}?\b(?:code|status)\b(?: of)?[ :=]*(\d{1,3})\b", re.I)
_GATE: Final = re.compile(r"(^|-)gate(-\d+)?$")
_TOLD: Final[dict[int, Verdict]] = {
    130: "interrupted",
    3: "refused",
    4: "bad_input",
    5: "platform_failure",
    137: "platform_failure",
    143: "platform_failure",
}


def verdict(run: RemoteRun) -> Verdict:
    """Returns what a run came to.

    A backend says that a task failed and seldom why. If its words hold an exit code of tidemill's, that decides; a
    gate that failed otherwise has refused; whatever else failed is put down to the platform.
    """
    if run.state == "succeeded":
        deployed = any(task.name == "deploy" and task.state in ("succeeded", "cached") for task in run.tasks)
        return "released" if deployed else "completed"
    if run.state in ("cancelled", "cancelling"):
        return "interrupted"
    if run.state != "failed":
        return "running"
    failed = [task for task in run.tasks if task.state == "failed"]
    codes = [code for code in map(_code, failed) if code is not None]
    for code, told in _TOLD.items():
        if code in codes:
            return told
    return "refused" if any(_GATE.search(task.name) for task in failed) else "platform_failure"


def exit_code(run: RemoteRun) -> int:
    """Returns the exit code of a command that waited for a run."""
    return EXIT_CODES[verdict(run)]


def _code(task: RemoteTask) -> int | None:
    codes = [int(code) for code in _CODE.findall(task.error or "")]
    return next((code for code in codes if code in _TOLD), None)
