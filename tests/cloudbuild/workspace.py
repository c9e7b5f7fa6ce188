"""A scratch clone in which steps run as Cloud Build runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builds import Build

_KEPT: Final = re.compile(r"(HOME|LANG|UV_.*|SSL_CERT_.*|.*_proxy)$", re.I)
ENVIRONMENT: Final = {
    "PROJECT_ID": "example-project",
    "LOCATION": "europe-west1",
    "BUILD_ID": "b-2",
    "TRIGGER_NAME": "tidemill-merge",
    "COMMIT_SHA": "0123456789abcdef0123456789abcdef01234567",
    "SHORT_SHA": "0123456",
}
"""What Cloud Build gives every step of a merge, with names that are examples."""


GCLOUD: Final = """
import json, os, sys
answers = json.loads(os.environ["ANSWERS"])
line = " ".join(sys.argv[1:])
for beginning, answer in answers.items():
    if line.startswith(beginning):
        if answer is None: sys.exit("ERROR: (gcloud) PERMISSION_DENIED")
        if str(answer).startswith("!"): sys.exit("ERROR: (gcloud) " + answer[1:])
        state = os.environ.get("STATE")
        if isinstance(answer, list) and answer and isinstance(answer[0], list):
            seen = int(open(state).read()) if os.path.exists(state) else 0
            open(state, "w").write(str(seen + 1))
            answer = answer[min(seen, len(answer) - 1)]
        print(answer if isinstance(answer, str) else json.dumps(answer))
        sys.exit(0)
sys.exit("unexpected: " + line)
"""
"""Gives the answer of $ANSWERS whose key a command line begins with: None is refused, `!…` fails with that text, and
lists in a list are given one after the other."""


@dataclass(frozen=True)
class Clone:
    """A clone of this repository, with stand-ins for what would reach the cloud."""

    root: Path
    bin: Path

    def stand_in(self, name: str, python: str) -> Path:
        """Puts a command first on PATH."""
        path = self.bin / name
        path.write_text(f"#!{sys.executable}\n{python}", encoding="utf-8")
        path.chmod(0o755)
        return path

    def run(self, build: Build, step_id: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a step's script as Cloud Build does: by its first line, else by sh; substitutions as variables."""
        step = build.step(step_id)
        variables = {**ENVIRONMENT, **build.content.get("substitutions", {}), **environment}
        for entry in [*build.content["options"].get("env", []), *step.get("env", [])]:
            name, _, value = entry.partition("=")
            for known, text in variables.items():
                value = value.replace(f"${known}", text)
            variables.setdefault(name, value)
        script = self.bin.parent / f"{step_id}.script"
        script.write_text(step["script"] if step["script"].startswith("#!") else f"#!/bin/sh -e\n{step['script']}\n")
        script.chmod(0o755)
        return self.command([str(script)], **variables)

    def command(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        # What reaches a package registry from here; nothing else of this machine.
        kept = {name: value for name, value in os.environ.items() if _KEPT.match(name)}
        path = f"{self.bin}:{os.environ['PATH']}"
        source = f"{self.root / 'components'}:{self.root / 'pipelines'}"
        return subprocess.run(
            command,
            cwd=self.root,
            env={**kept, "PATH": path, "PYTHONPATH": source, **environment},
            capture_output=True,
            text=True,
            timeout=240,
        )
