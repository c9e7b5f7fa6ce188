"""What a task's command does before its work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject

_INSTALLS: Final = re.compile(
    r"\b(?:pip3?|uv pip|conda|mamba|apt|apt-get|apk|yum|dnf)\b[^\n;&|]*?\b(?:install|add)\b[^\n;&|]*", re.I
)


@check(
    "installs-at-run-time", "warning", "The task installs packages when it starts: slow, and another version tomorrow."
)
def installs_at_run_time(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        found = next(filter(None, (_INSTALLS.search(text) for text in task.arguments)), None)
        if found:
            cure = "leave out packages_to_install, pass install_kfp_package=False, and put the package into the image"
            yield Told(task.name, f"installs packages when it starts: {' '.join(found[0].split())[:60]}", cure)


CHECKS: Final = (installs_at_run_time,)
