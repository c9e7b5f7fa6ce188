"""Gives a model that passed its gates a version, and finds the one that is in production."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tidemill.artifacts import MODEL_MANIFEST, NETWORK, SAVED_MODEL
from tidemill.bundle import open_bundle
from tidemill.files import replaced_directory, write_json
from tidemill.registration import REGISTERED, Evidence, admit
from tidemill.serving.registry import EXTRA, Registry
from tidemill.stage import Origin


@dataclass(frozen=True)
class ChampionReport:
    """The version in production, or None."""

    model: str
    version: int | None


@dataclass(frozen=True)
class RegisterReport:
    """The registered version; ``path`` is its directory, in TF Serving's layout."""

    name: str
    version: int
    path: str
    digest: str


def find_champion(
    bundle: str | Path, registry: str | Path, champion: str | Path, reference: str | Path
) -> ChampionReport:
    """Puts the champion's model artefact and its statistics out, or empty directories if there is none.

    Files are hard links into the registry where the file system has them: both sides are written once and for all.
    """
    store = Registry(Path(registry), open_bundle(Path(bundle)).problem.name)
    version = store.aliases().champion
    with replaced_directory(Path(champion)) as model, replaced_directory(Path(reference)) as statistics:
        if version is not None:
            source = store.directory(version)
            ignore = shutil.ignore_patterns(MODEL_MANIFEST, EXTRA.parts[0])
            shutil.copytree(source, model / SAVED_MODEL, ignore=ignore, copy_function=_link)
            if (network := store.extra(version, NETWORK)).is_dir():
                shutil.copytree(network, model / NETWORK, copy_function=_link)
            _link(str(source / MODEL_MANIFEST), str(model / MODEL_MANIFEST))
            shutil.copytree(store.extra(version, "statistics"), statistics, copy_function=_link, dirs_exist_ok=True)
    return ChampionReport(store.model, version)


def run(
    bundle: str | Path,
    examples: str | Path,
    statistics: str | Path,
    schema: str | Path,
    model: str | Path,
    blessing: str | Path,
    rehearsal: str | Path,
    evaluation: str | Path,
    registry: str | Path,
    run_id: str,
    registered: str | Path,
    origin: Origin,
    compressed: str | Path | None = None,
    compression: str | Path | None = None,
) -> RegisterReport:
    """Registers a model as the challenger, with its lineage and the evidence for it.

    Args:
        bundle: the problem.
        examples: directory of ingested examples.
        statistics: kept with the version, as are ``schema`` and ``evaluation``.
        schema: the schema that the examples were held against.
        model: directory of the model.
        blessing: the model gate's evidence.
        rehearsal: the serving gate's evidence, with a sample row.
        evaluation: metrics per slice.
        registry: root of the registry.
        run_id: the run that made the model.
        registered: directory that ``registered.json`` is written to.
        origin: what the code that made the model was made from.
        compressed: smaller forms of the model, kept with the version.
        compression: the compression gate's evidence.

    Raises:
        GateRefused: if blessing, rehearsal or compression did not pass, or were made for another model.
        DataError: if the model isn't what its manifest says.
    """
    evidence = Evidence(
        bundle=Path(bundle),
        examples=Path(examples),
        statistics=Path(statistics),
        schema=Path(schema),
        model=Path(model),
        blessing=Path(blessing),
        rehearsal=Path(rehearsal),
        evaluation=Path(evaluation),
        compressed=Path(compressed) if compressed else None,
        compression=Path(compression) if compression else None,
    )
    admitted = admit(evidence, run_id, origin)
    manifest = admitted.manifest
    store = Registry(Path(registry), manifest.name)
    version = store.add(evidence.model, admitted.fill, run_id)
    report = RegisterReport(manifest.name, version, str(store.directory(version).absolute()), manifest.digest)
    with replaced_directory(Path(registered)) as directory:
        write_json(directory / REGISTERED, {**vars(report), "run_id": run_id})
    return report


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
