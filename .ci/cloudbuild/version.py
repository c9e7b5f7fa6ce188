"""Whether a tag, the code and the images that are to be released under it are of one version and commit.

.venv/bin/python .ci/cloudbuild/version.py TAG COMMIT IMAGES.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tidemill


def main(arguments: list[str]) -> int:
    tag, commit, images = arguments
    recorded = json.loads(Path(images).read_text(encoding="utf-8"))
    faults = []
    if tag != f"v{tidemill.__version__}":
        faults.append(f"tag: expected v{tidemill.__version__}, the version of the code (got {tag})")
    if recorded["version"] != tidemill.__version__:
        faults.append(f"images: expected version {tidemill.__version__} (got {recorded['version']})")
    if recorded["commit"] != commit:
        faults.append(f"images: expected those of commit {commit} (got {recorded['commit']})")
    for fault in faults:
        print(f"version: {fault}", file=sys.stderr)
    return 4 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
