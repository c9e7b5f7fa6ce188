"""The transform stage: analyse the training split, apply the graph to all splits."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from tidemill.artifacts import ExamplesManifest, parts
from tidemill.beam import Cluster, opened_cluster
from tidemill.bundle import Bundle, open_bundle
from tidemill.errors import DataError, PlatformError, UserCodeError
from tidemill.files import replaced_directory
from tidemill.problem import Problem
from tidemill.transform.analysis import analyse, write_raw_metadata
from tidemill.transform.application import Application
from tidemill.transform.columns import count_present
from tidemill.transform.features import LABEL, RAW_TYPES, WEIGHT, RawType, TransformedFeature, TransformedFeatures
from tidemill.transform.graph import load_transform
from tidemill.transform.preprocessing import DefaultPreprocessing, Preprocessing, UserPreprocessing

_SYSTEM_REFUSALS = tuple(
    os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENOMEM, errno.EROFS)
)


@dataclass(frozen=True)
class TransformReport:
    """What the stage did.

    Attributes:
        analyse_s: seconds of the full pass over the training split.
        apply_s: seconds of applying the graph to all splits.
        rows: transformed rows by split.
        features: what came out, with its sizes.
        vocabularies: tokens by feature that has a vocabulary, without those for missing and unknown values.
    """

    analyse_s: float
    apply_s: float
    rows: Mapping[str, int]
    features: tuple[TransformedFeature, ...]
    vocabularies: Mapping[str, int]


def run(
    bundle: str | Path,
    examples: str | Path,
    schema: str | Path,
    transform_graph: str | Path,
    transformed: str | Path,
    beam_runner: str = "direct",
    beam_flags: Sequence[str] = (),
) -> TransformReport:
    """Analyses the training split in full on Beam, then applies the graph to every split.

    The analysis goes to ``beam_runner``; the graph is applied in this process, which streams some 100,000 rows a
    second on two cores without any worker.

    Raises:
        UsageError: if a flag of Beam can't be taken.
        DataError: if the training split is empty or a column doesn't fit its feature.
        UserCodeError: if the user's preprocessing_fn raises or puts out what can't be trained on.
    """
    opened, examples = open_bundle(Path(bundle)), Path(examples)
    manifest = ExamplesManifest.read(examples)
    raw = _raw_types(opened.problem, manifest)
    started = time.monotonic()
    with (
        opened_cluster(opened, beam_runner, beam_flags) as cluster,
        replaced_directory(Path(transform_graph)) as graph_dir,
    ):
        preprocessing = _preprocessing(opened, raw, examples)
        _analyse(opened, examples, raw, preprocessing, graph_dir, cluster)
        write_raw_metadata(raw, Path(schema), graph_dir)
        features = preprocessing.described(graph_dir)
        weight = WEIGHT if opened.problem.weight else None
        TransformedFeatures(raw, features, LABEL, weight, manifest.classes, opened.problem.task).write(graph_dir)
    analysed = time.monotonic()
    with replaced_directory(Path(transformed)) as transformed_dir:
        application = Application(load_transform(Path(transform_graph)), opened.problem, manifest.classes)
        rows = application.run(examples, transformed_dir).rows
    return TransformReport(
        analyse_s=analysed - started,
        apply_s=time.monotonic() - analysed,
        rows=rows,
        features=features,
        vocabularies=preprocessing.vocabulary_sizes(Path(transform_graph)),
    )


def _raw_types(problem: Problem, manifest: ExamplesManifest) -> dict[str, RawType]:
    if absent := [name for name in problem.raw_columns if name not in manifest.columns]:
        raise DataError("examples", f"must have the columns of the features: {', '.join(absent)}")
    return {name: RAW_TYPES[manifest.columns[name]] for name in problem.raw_columns}


def _preprocessing(opened: Bundle, raw: Mapping[str, RawType], examples: Path) -> Preprocessing:
    presence = count_present(parts(examples, "train"), raw)
    if not any(column.rows for column in presence.values()):
        raise DataError("training split", "must have rows", "none", "look at `split` and at what was quarantined")
    if reference := opened.problem.user_code.preprocessing:
        return UserPreprocessing(opened.user_function(reference), reference, opened.directory)
    return DefaultPreprocessing(opened.problem, raw, presence)


def _analyse(
    opened: Bundle,
    examples: Path,
    raw: Mapping[str, RawType],
    preprocessing: Preprocessing,
    graph_dir: Path,
    cluster: Cluster,
) -> None:
    # Beside the artefact, because Beam's workers must reach it and may share no other directory with this process.
    with tempfile.TemporaryDirectory(dir=graph_dir.parent, prefix=f".{graph_dir.name}.analysis.") as temporary:
        try:
            analyse(examples, raw, preprocessing, graph_dir, Path(temporary), cluster)
        except (ValueError, RuntimeError, tf.errors.OpError) as error:
            raise _analysis_failure(error, opened.problem.user_code.preprocessing) from error


def _analysis_failure(error: Exception, user_code: str | None) -> Exception:
    # Beam hands on what happened in a worker as a RuntimeError; only its text still says what it was.
    if any(text in str(error) for text in _SYSTEM_REFUSALS):
        return PlatformError("analysis", "the system refused", str(error), "free space or memory; run again")
    if "failed in state" in str(error) and "SDK harness" not in str(error):  # no worker said anything
        return PlatformError("analysis", "the cluster gave up", str(error), "look at its workers' logs; run again")
    if user_code:
        return UserCodeError(user_code, "failed on the training split", str(error))
    return error
