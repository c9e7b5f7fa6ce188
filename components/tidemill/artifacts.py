"""The on-disk layout of the artefacts, in one place.

========================  =========================================================================
examples                  ``<split>/part-*.parquet``, ``quarantine/``, ``manifest.json``
statistics                ``<split>/stats.pb``, ``<split>/slices/*.pb``, ``summary.json``
schema                    ``schema.pbtxt``
anomalies                 ``anomalies.json`` (evidence: holds a ``decision``)
transform graph           tf.Transform's output directory, ``features.json``
transformed examples      ``<split>/part-*.parquet``, ``manifest.json``
model                     ``saved_model/``, ``network/`` (see ``tidemill.network``), ``model.json``
history                   ``history.json``, ``tensorboard/``
folds                     ``fold-<i>/``: transformed examples; ``examples/`` where fairness is searched for too
study                     ``study.json``: all trials of a tuning so far
continued                 ``trial-<i>/``: checkpoints of the trials that go on
result                    ``result.json`` of one trial, ``checkpoints/``
hyperparameters           ``hyperparameters.json`` (see ``tidemill.hyperparameters``)
tuning                    ``tuning.json``: what a tuning came to
evaluation                ``metrics.json``, ``metrics.parquet``, TFMA's result files
predictions               ``part-*.parquet``: the raw test rows' predictions, in their order
blessing                  ``blessing.json`` (evidence)
rehearsal                 ``rehearsal.json`` (evidence)
compressed                ``<variant>/``: ``model.tflite``, ``model.onnx`` or a model artefact; ``manifest.json``
compression               ``compression.json`` (evidence)
========================  =========================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tidemill.files import write_json

MANIFEST = "manifest.json"
MODEL_MANIFEST = "model.json"
SAVED_MODEL = "saved_model"
NETWORK = "network"


@dataclass(frozen=True)
class ExamplesManifest:
    """What a directory of (raw or transformed) examples holds; written last, so that it vouches for the rest.

    Attributes:
        rows: rows by split.
        columns: ``int64``, ``float64`` or ``string`` by column, as stored in Parquet (nullable).
        classes: label values in the order of their class index, as strings; for binary problems
            [negative, positive], empty for regression.
        files: by path relative to the directory: ``{"rows": int, "bytes": int, "sha256": str}``.
        source: ``{"uri": str, "fingerprint": str, "rows": int}`` of what was read.
        duplicates: rows that are exact copies of an earlier row (kept, and on the side of the first).
        quarantined: rows that could not be read.
    """

    rows: Mapping[str, int]
    columns: Mapping[str, str]
    classes: tuple[str, ...]
    files: Mapping[str, Mapping[str, Any]]
    source: Mapping[str, Any] = field(default_factory=dict)
    duplicates: int = 0
    quarantined: int = 0

    def write(self, directory: Path) -> None:
        write_json(directory / MANIFEST, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> ExamplesManifest:
        value = json.loads((Path(directory) / MANIFEST).read_text())
        return cls(**{**value, "classes": tuple(value["classes"])})


def parts(examples: Path, split: str) -> list[Path]:
    """Returns the Parquet files of one split in their fixed order."""
    return sorted((Path(examples) / split).glob("part-*.parquet"))


@dataclass(frozen=True)
class ModelManifest:
    """``model.json``: what a client or a server must know about a SavedModel, and where it came from.

    Outputs of ``serving_default``, all [batch]-first: binary classification ``probability`` float32 [batch] (of the
    positive class) and ``label`` string [batch]; multiclass ``probabilities`` float32 [batch, classes] and
    ``label``; regression ``value`` float32 [batch].

    Attributes:
        name: the problem's name, which is the model's.
        task: the problem's task.
        classes: as in :class:`ExamplesManifest`.
        threshold: probability from which the answer is the positive class.
        inputs: ``int64``, ``float32`` or ``string`` by raw feature column. See ``tidemill.instances`` for nulls.
        outputs: dtype by output name.
        signatures: names of the signatures.
        digest: content digest of ``saved_model/``.
        framework: versions of the libraries it was made with.
        lineage: digests and fingerprints of all that went into it.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    threshold: float
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    signatures: tuple[str, ...]
    digest: str
    framework: Mapping[str, str]
    lineage: Mapping[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        write_json(directory / MODEL_MANIFEST, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> ModelManifest:
        value = json.loads((Path(directory) / MODEL_MANIFEST).read_text())
        return cls(**{**value, "classes": tuple(value["classes"]), "signatures": tuple(value["signatures"])})
