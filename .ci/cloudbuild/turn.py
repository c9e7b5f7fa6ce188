"""Waits until it is this build's turn, so that no two builds of one trigger release at the same time.

    python3 .ci/cloudbuild/turn.py

Cloud Build runs the builds of a trigger side by side. Older ones go first; a build that a newer one has overtaken ends
here, for the newer one holds its commit, too. Reads BUILD_ID, PROJECT_ID, LOCATION, TRIGGER_NAME and TURN_TIMEOUT_S.
Runs in Google's gcloud image, with its Python alone. Exit codes: 0 go on, 3 overtaken, 5 the wait or gcloud failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

PAUSE_S = float(os.environ.get("TURN_PAUSE_S", "15"))


def main() -> int:
    own = os.environ["BUILD_ID"]
    deadline = time.monotonic() + float(os.environ["TURN_TIMEOUT_S"])
    while True:
        try:
            ongoing = builds()
        except subprocess.CalledProcessError as error:
            print(f"turn: {error.stderr.strip()}", file=sys.stderr)
            return 5
        begun = {build["id"]: build["createTime"] for build in ongoing}
        if own not in begun:
            print(f"turn: build {own} is not among the ongoing ones: {', '.join(begun) or 'none'}", file=sys.stderr)
            return 5
        newer = [other for other, time_ in begun.items() if (time_, other) > (begun[own], own)]
        older = [other for other, time_ in begun.items() if (time_, other) < (begun[own], own)]
        if newer:
            print(f"turn: overtaken by {', '.join(newer)}: this build releases nothing")
            return 3
        if not older:
            return 0
        if time.monotonic() > deadline:
            print(f"turn: still waiting for {', '.join(older)}: run this build again when they have ended")
            return 5
        print(f"turn: waiting for {', '.join(older)}", flush=True)
        time.sleep(PAUSE_S)


def builds() -> list[dict]:
    """Returns the queued and working builds of this build's trigger."""
    command = [
        *("gcloud", "builds", "list", "--ongoing", f"--project={os.environ['PROJECT_ID']}"),
        *(f"--region={os.environ['LOCATION']}", f"--filter=substitutions.TRIGGER_NAME={os.environ['TRIGGER_NAME']}"),
        "--format=json(id,createTime)",
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
