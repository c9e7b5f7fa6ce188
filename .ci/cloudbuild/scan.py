"""Scans images for known vulnerabilities and refuses those that are severe and could be mended.

    python3 .ci/cloudbuild/scan.py IMAGES.json FAIL_ON

``FAIL_ON``: MINIMAL, LOW, MEDIUM, HIGH or CRITICAL. What has no fix yet is told and refuses nothing: nobody could act
on it. Runs in Google's gcloud image, with its Python alone. Exit codes: 0 clean enough, 3 refused, 4 bad input, 5 the
scanner failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SEVERITIES = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "CRITICAL")


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[1] not in SEVERITIES:
        print(f"scan: expected IMAGES.json and one of {', '.join(SEVERITIES)} (got {arguments})", file=sys.stderr)
        return 4
    images = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))["images"]
    severe = SEVERITIES[SEVERITIES.index(arguments[1]) :]
    refused = False
    for name, reference in sorted(images.items()):
        if "@sha256:" not in reference:
            print(f"scan: {name}: expected a reference by digest (got {reference})", file=sys.stderr)
            return 4
        try:
            found = vulnerabilities(reference)
        except subprocess.CalledProcessError as error:
            print(f"scan: {name}: {error.stderr.strip()}", file=sys.stderr)
            return 5
        bad = [one for one in found if one["effectiveSeverity"] in severe]
        mendable = [one for one in bad if one.get("fixAvailable")]
        print(f"scan: {name}: {len(found)} known, {len(bad)} of {severe[0]} or worse, {len(mendable)} with a fix")
        for one in mendable:
            print(f"  {one['effectiveSeverity']} {one['shortDescription']}: {packages(one)}")
        refused = refused or bool(mendable)
    return 3 if refused else 0


def vulnerabilities(reference: str) -> list[dict]:
    """Returns what Artifact Analysis knows of an image in a registry."""
    scan = gcloud("images", "scan", reference, "--remote", "--format=value(response.scan)").strip()
    listed = gcloud("images", "list-vulnerabilities", scan, "--format=json")
    return [occurrence["vulnerability"] for occurrence in json.loads(listed)]


def packages(vulnerability: dict) -> str:
    issues = vulnerability.get("packageIssue", [])
    told = (f"{i['affectedPackage']} → {i.get('fixedVersion', {}).get('fullName', '?')}" for i in issues)
    return ", ".join(told) or "?"


def gcloud(*arguments: str) -> str:
    command = ["gcloud", "artifacts", "docker", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
