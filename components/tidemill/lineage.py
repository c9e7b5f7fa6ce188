"""Where a registered version comes from: every fingerprint that it takes to make it again."""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tidemill.artifacts import MANIFEST, ExamplesManifest, ModelManifest
from tidemill.bundle import Bundle
from tidemill.decisions import Decision
from tidemill.files import digest_tree, sha256_file
from tidemill.stage import Origin


@functools.cache
def installed_digest() -> str:
    """Returns one hex sha256 over the names and versions of all that is installed beside this interpreter."""
    installed = sorted({f"{d.name.lower()}=={d.version}" for d in metadata.distributions()})
    return hashlib.sha256("\n".join(installed).encode()).hexdigest()


def lineage(
    bundle: Bundle,
    examples: Path,
    model: ModelManifest,
    artifacts: dict[str, Path],
    decisions: dict[str, Decision],
    run_id: str,
    origin: Origin,
) -> dict[str, Any]:
    """Returns the lineage of a version, as JSON.

    Args:
        bundle: the problem, whose digest is that of the archive with all user code.
        examples: directory of ingested examples; its manifest, whose digest stands for all of it, names each file's.
        model: manifest of the model.
        artifacts: what else went into the release, by name; each is given by its content digest.
        decisions: of the gates that it passed, by artefact.
        run_id: the run that made it.
        origin: what the code was made from.
    """
    manifest = ExamplesManifest.read(examples)
    return {
        "run_id": run_id,
        "registered": datetime.now(UTC).isoformat(timespec="seconds"),
        "problem": bundle.problem.name,
        "bundle": bundle.digest,
        "examples": {
            "source": dict(manifest.source),
            "manifest": sha256_file(examples / MANIFEST),
            "rows": dict(manifest.rows),
            "files": {path: entry["sha256"] for path, entry in sorted(manifest.files.items())},
        },
        "artifacts": {name: digest_tree(path) for name, path in sorted(artifacts.items())},
        "decisions": {name: decision.to_json() for name, decision in sorted(decisions.items())},
        "model": {"digest": model.digest, "framework": dict(model.framework), **model.lineage},
        "environment": {"lock": origin.lock, "commit": origin.commit, "installed": installed_digest()},
    }
