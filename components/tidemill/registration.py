"""What every registry asks of a model before it gives it a version, and what it keeps with the version."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidemill.artifacts import MANIFEST, MODEL_MANIFEST, NETWORK, SAVED_MODEL, ModelManifest
from tidemill.bundle import Bundle, open_bundle
from tidemill.decisions import Decision, read_decision
from tidemill.errors import DataError, GateRefused
from tidemill.files import digest_tree, write_json
from tidemill.lineage import lineage
from tidemill.samples import SAMPLE
from tidemill.stage import Origin

REGISTERED: Final = "registered.json"
LINEAGE: Final = "lineage.json"


@dataclass(frozen=True)
class Evidence:
    """The directories of a run's artefacts that a version is registered with.

    Attributes:
        bundle: the problem.
        examples: ingested examples; their fingerprints go into the lineage.
        statistics: kept with the version: the reference for drift.
        schema: kept: what the examples were held against.
        model: as `train` put out.
        blessing: kept: the model gate's evidence.
        rehearsal: kept: the serving gate's evidence, with a sample row.
        evaluation: kept: metrics per slice.
        compressed: kept: smaller forms of the model, if there are any.
        compression: kept with them: their gate's evidence.
    """

    bundle: Path
    examples: Path
    statistics: Path
    schema: Path
    model: Path
    blessing: Path
    rehearsal: Path
    evaluation: Path
    compressed: Path | None = None
    compression: Path | None = None


@dataclass(frozen=True)
class Registration:
    """A model that may be registered."""

    manifest: ModelManifest
    bundle: Bundle
    evidence: Evidence
    decisions: dict[str, Decision]
    run_id: str
    origin: Origin

    @property
    def kept(self) -> dict[str, Path]:
        """What is kept with the version, by name."""
        names = ("statistics", "schema", "evaluation", "blessing", "rehearsal")
        optional = {"compressed": self.evidence.compressed, "compression": self.evidence.compression}
        given = {name: path for name, path in optional.items() if path is not None}
        return {**{name: getattr(self.evidence, name) for name in names}, **given}

    def fill(self, extra: Path, version: int | None = None) -> None:
        """Writes what is kept with a version into a directory.

        Args:
            version: its number, where that is known before the version is.
        """
        for name, source in self.kept.items():
            shutil.copytree(source, extra / name)
        if self.evidence.compressed is not None:
            for variant in _refused_variants(self.evidence.compressed):
                shutil.rmtree(extra / "compressed" / variant)
        if (self.evidence.model / NETWORK).is_dir():  # what trains on from the champion begins with its weights
            shutil.copytree(self.evidence.model / NETWORK, extra / NETWORK)
        shutil.copy2(self.evidence.rehearsal / SAMPLE, extra / SAMPLE)
        described = lineage(
            self.bundle, self.evidence.examples, self.manifest, self.kept, self.decisions, self.run_id, self.origin
        )
        write_json(extra / LINEAGE, described if version is None else {"version": version, **described})


def admit(evidence: Evidence, run_id: str, origin: Origin) -> Registration:
    """Holds a model to what a registry asks: it is whole, and its gates passed it.

    Args:
        run_id: the run that made the model.
        origin: what the code that made it was made from.

    Raises:
        GateRefused: if blessing, rehearsal or compression did not pass, or were made for another model.
        DataError: if the model isn't what its manifest says.
    """
    manifest = ModelManifest.read(evidence.model)
    if digest_tree(evidence.model / SAVED_MODEL) != manifest.digest:
        raise DataError("model", f"{SAVED_MODEL}/ must be what {MODEL_MANIFEST} has the digest of", "other content")
    decisions = {
        "blessing": _passed("blessing", evidence.blessing, manifest.digest),
        "rehearsal": _passed("rehearsal", evidence.rehearsal, manifest.digest),
    }
    if evidence.compression is not None:
        decisions["compression"] = _passed("compression", evidence.compression, manifest.digest)
    return Registration(manifest, open_bundle(evidence.bundle), evidence, decisions, run_id, origin)


def _refused_variants(compressed: Path) -> list[str]:
    """Returns the variants that broke a limit without being required: their figures are kept, they are not."""
    models = json.loads((compressed / MANIFEST).read_text(encoding="utf-8"))["models"]
    return [name for name, model in models.items() if not model.get("passed", True)]


def _passed(name: str, evidence: Path, digest: str) -> Decision:
    decision = read_decision(evidence)
    if not decision.passed:
        reasons = "\n".join(f"  - {check.message}" for check in decision.refusals)
        raise GateRefused("register", f"the {name} must have passed\n{reasons}")
    made_for = json.loads((evidence / f"{name}.json").read_text())["challenger"]
    if made_for != digest:
        raise GateRefused("register", f"the {name} must be of this model, {digest[:12]}", f"one of {made_for[:12]}")
    return decision
