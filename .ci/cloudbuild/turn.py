"""Waits until it is this build's turn, and has it go on only if it brings production forward.

    python3 .ci/cloudbuild/turn.py

Cloud Build runs the builds of a trigger side by side, and any build can be run again, that of an old commit, too. No
two release at the same time: older builds go first. A build ends here if a newer one has its commit within its own, or
if what production runs is not within its own. Reads BUILD_ID, PROJECT_ID, LOCATION, TRIGGER_NAME, COMMIT, REPOSITORY,
RECORDS and TURN_TIMEOUT_S. Runs in Google's gcloud image, with its Python and git alone. Exit codes: 0 go on,
3 overtaken, 5 the wait, gcloud or git failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import history

PAUSE_S = float(os.environ.get("TURN_PAUSE_S", "15"))


def main() -> int:
    try:
        return wait(os.environ["BUILD_ID"], os.environ["COMMIT"])
    except subprocess.CalledProcessError as error:
        print(f"turn: {error.stderr.strip()}", file=sys.stderr)
    except history.Unreachable as error:
        print(f"turn: whose commit is the later one can't be told: {error}", file=sys.stderr)
    return 5


def wait(own: str, commit: str) -> int:
    deadline = time.monotonic() + float(os.environ["TURN_TIMEOUT_S"])
    while True:
        ongoing = {build["id"]: build for build in builds()}
        if own not in ongoing:
            print(f"turn: build {own} is not among the ongoing ones: {', '.join(ongoing) or 'none'}", file=sys.stderr)
            return 5
        place = (ongoing[own]["createTime"], own)
        newer = {name: build for name, build in ongoing.items() if (build["createTime"], name) > place}
        older = [name for name, build in ongoing.items() if (build["createTime"], name) < place]
        for name, build in newer.items():
            theirs = build["substitutions"]["COMMIT_SHA"]
            if history.is_ancestor(commit, theirs):
                print(f"turn: overtaken by {name}, whose commit {theirs} holds this one: this build releases nothing")
                return 3
        if not older:
            return follows(commit)
        if time.monotonic() > deadline:
            print(f"turn: still waiting for {', '.join(older)}: run this build again when they have ended")
            return 5
        print(f"turn: waiting for {', '.join(older)}", flush=True)
        time.sleep(PAUSE_S)


def follows(commit: str) -> int:
    """Returns whether a commit holds the one that production runs."""
    record = f"gs://{os.environ['RECORDS']}/production/images.json"
    done = subprocess.run(["gcloud", "storage", "cat", record], capture_output=True, text=True)
    if done.returncode != 0 and "matched no objects" in done.stderr:
        print(f"turn: {record} is not there: this is the first release")
        return 0
    done.check_returncode()
    released = json.loads(done.stdout)["commit"]
    if history.is_ancestor(released, commit):
        return 0
    print(
        f"turn: production runs commit {released}, which is not within {commit}: this build would take it back, and "
        f"releases nothing. To go back, revert the commit; if the branch was written anew, remove {record}"
    )
    return 3


def builds() -> list[dict]:
    """Returns the queued and working builds of this build's trigger."""
    command = [
        *("gcloud", "builds", "list", "--ongoing", f"--project={os.environ['PROJECT_ID']}"),
        *(f"--region={os.environ['LOCATION']}", f"--filter=substitutions.TRIGGER_NAME={os.environ['TRIGGER_NAME']}"),
        "--format=json(id,createTime,substitutions.COMMIT_SHA)",
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
