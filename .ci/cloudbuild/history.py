"""The repository's history: Cloud Build clones one commit alone, and leaves no credentials to fetch more with.

    python3 .ci/cloudbuild/history.py checkout IMAGES.json

puts the source into the state that images were built from: what is compiled from another commit may ask for what they
don't have. Reads REPOSITORY, the repository as Cloud Build names it. Runs in Google's gcloud image, with its Python
and git alone. Exit codes: 0 done, 4 bad input, 5 the commit can't be fetched or checked out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

# As gcloud has it overridden.
API = os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBUILD", "https://cloudbuild.googleapis.com/")
TIMEOUT_S = 60
_SAFE = ("-c", f"safe.directory={Path.cwd()}")  # whoever owns the workspace


class Unreachable(Exception):
    """A commit can't be had."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "checkout":
        print(f"history: expected checkout IMAGES.json (got {arguments})", file=sys.stderr)
        return 4
    commit = str(json.loads(Path(arguments[1]).read_text(encoding="utf-8")).get("commit"))
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        print(f"history: {arguments[1]}: commit: expected 40 hex digits (got {commit})", file=sys.stderr)
        return 4
    try:
        if not there(commit):
            fetch(commit, "--depth=1")
        git("checkout", "--quiet", "--detach", commit)
    except Unreachable as error:
        print(f"history: {arguments[1]} is of commit {commit}, which can't be checked out: {error}", file=sys.stderr)
        return 5
    print(f"history: the source is now that of commit {commit}")
    return 0


def is_ancestor(ancestor: str, descendant: str) -> bool:
    """Returns whether a commit is, or holds, another one; both are fetched where they are not here.

    Raises:
        Unreachable: if one of them can't be fetched.
    """
    if git("rev-parse", "--is-shallow-repository") == "true":
        fetch(git("rev-parse", "HEAD"), "--unshallow")
    for commit in (ancestor, descendant):
        if not there(commit):
            fetch(commit)
    command = ["git", *_SAFE, "merge-base", "--is-ancestor", ancestor, descendant]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise Unreachable(done.stderr.strip())
    return done.returncode == 0


def there(commit: str) -> bool:
    done = subprocess.run(["git", *_SAFE, "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True)
    return done.returncode == 0


def fetch(commit: str, *options: str) -> None:
    """Fetches a commit with a token that can read this repository for an hour."""
    # GitHub, GitLab and Bitbucket take a token as password, the first two of any user.
    helper = '!f() { test "$1" = get && echo username=x-token-auth && echo "password=$READ_TOKEN"; }; f'
    credentials = ["-c", "credential.helper=", "-c", f"credential.helper={helper}"]
    git(*credentials, "fetch", "--quiet", "--no-tags", *options, "origin", commit, READ_TOKEN=read_token())


def read_token() -> str:
    """Returns what Cloud Build itself clones with; the build's account needs roles/cloudbuild.readTokenAccessor."""
    url = f"{API}v2/{os.environ['REPOSITORY']}:accessReadToken"
    try:
        command = ["gcloud", "auth", "print-access-token"]
        own = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        request = urllib.request.Request(url, data=b"", method="POST", headers={"Authorization": f"Bearer {own}"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return str(json.load(response)["token"])
    except subprocess.CalledProcessError as error:
        raise Unreachable(error.stderr.strip()) from error
    except urllib.error.HTTPError as error:
        raise Unreachable(f"{url}: {error.code} {error.read().decode(errors='replace').strip()}") from error
    except OSError as error:
        raise Unreachable(f"{url}: {error}") from error


def git(*arguments: str, **environment: str) -> str:
    told = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **environment}
    done = subprocess.run(["git", *_SAFE, *arguments], capture_output=True, text=True, env=told)
    if done.returncode != 0:
        raise Unreachable(done.stderr.strip())
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
