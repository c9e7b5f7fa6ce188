"""Makes smaller forms of a trained model, measures them, and decides whether they are good enough."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tidemill.artifacts import MANIFEST, MODEL_MANIFEST
from tidemill.bundle import open_bundle
from tidemill.compress.comparison import Comparison
from tidemill.compress.judge import Judge
from tidemill.compress.measures import BATCHES, Latency, latencies, processor
from tidemill.compress.networks import SavedNetwork
from tidemill.compress.samples import training_rows
from tidemill.compress.variants import Made, Workshop, saved
from tidemill.compression import ORIGINAL, Compression, LiteRT
from tidemill.errors import ProblemError
from tidemill.evaluate.evaluation import Inputs
from tidemill.files import digest_tree, replaced_directory, write_json
from tidemill.hyperparameters import tuned

EVIDENCE = "compression.json"


@dataclass(frozen=True)
class VariantReport:
    """One variant in short.

    Attributes:
        gzip_bytes: of the network.
        bytes_ratio: of the original's.
        p50_ms: of a single row.
        passed: whether it keeps all its limits.
    """

    kind: str
    gzip_bytes: int
    bytes_ratio: float
    p50_ms: float
    passed: bool


@dataclass(frozen=True)
class CompressionReport:
    """What came of the variants.

    Attributes:
        variants: by name.
        rows: test rows that all answered.
        released: the original or the variant that takes its place.
        passed: the gate's decision.
        refusals: one sentence per check that refused.
    """

    variants: Mapping[str, VariantReport]
    rows: int
    released: str
    passed: bool
    refusals: tuple[str, ...]


def run(
    bundle: str | Path,
    examples: str | Path,
    transformed: str | Path,
    transform_graph: str | Path,
    model: str | Path,
    champion: str | Path,
    compressed: str | Path,
    compression: str | Path,
    released: str | Path,
    checkpoints: str | Path,
    hyperparameters: str | Path | None = None,
) -> CompressionReport:
    """Makes, measures and judges every variant that the problem asks for.

    A variant beyond its limits is a result, not an error: the decision is in ``compression`` and in the report.

    Args:
        bundle: the problem.
        examples: directory of ingested examples; variants are compared on the raw test split.
        transformed: Parquet per split, which variants are trained on.
        transform_graph: tf.Transform's output with features.json.
        model: directory of the trained model.
        champion: directory of the model in production; empty or absent when there is none.
        compressed: directory for the variants, each in one of its own, and ``manifest.json`` with all figures.
        compression: directory for the gate's evidence.
        released: directory for the model artefact that takes the trained model's place; empty when none does.
        checkpoints: directory that outlives a killed run.
        hyperparameters: artefact that the model was trained by, if there is one; see `tidemill.hyperparameters`.

    Raises:
        ProblemError: if the problem asks for none.
        UserCodeError: if a format lacks an operation of the model.
        DataError: if there are too few rows, or the test split can't be read.
    """
    Path(checkpoints).mkdir(parents=True, exist_ok=True)
    opened = tuned(open_bundle(Path(bundle)), Path(hyperparameters) if hyperparameters else None)
    examples, model = Path(examples), Path(model)
    settings = opened.problem.compression
    if settings is None:
        raise ProblemError("problem.yaml", "needs `compression` for this stage")
    inputs = Inputs.read(opened, examples, model, Path(champion))
    original = SavedNetwork(model)
    wanted = [v.representative_rows for v in settings.variants.values() if isinstance(v, LiteRT)]
    sample = training_rows(examples, original, max([max(BATCHES), *wanted]))
    workshop = Workshop(
        bundle=opened,
        inputs=inputs,
        examples=examples,
        transformed=Path(transformed),
        transform_graph=Path(transform_graph),
        model=model,
        champion=Path(champion),
        original=original,
        sample=sample,
        checkpoints=Path(checkpoints),
    )
    with (
        # Entered first, replaced last: what gates trust must not be there before what it is about.
        replaced_directory(Path(compression)) as evidence_dir,
        replaced_directory(Path(released)) as released_dir,
        replaced_directory(Path(compressed)) as variants_dir,
    ):
        made = {ORIGINAL: saved(model, {}, original)}
        for name, variant in settings.variants.items():
            print(f"compress: {name}, {variant.kind}", flush=True)
            made[name] = workshop.make(name, variant, variants_dir / name)
        networks = {name: each.network for name, each in made.items()}
        comparison = Comparison.of(inputs, original, {n: each for n, each in networks.items() if n != ORIGINAL})
        times = latencies(networks, workshop.sample)
        judge = Judge(settings, comparison, {name: each.size for name, each in made.items()}, times)
        decision = judge.decide()
        document = _document(settings, made, comparison, times, judge, variants_dir)
        if settings.release != ORIGINAL:
            _copy_model(variants_dir / settings.release, released_dir)
        write_json(variants_dir / MANIFEST, document)
        challenger = document["models"][settings.release].get("digest", original.manifest.digest)
        write_json(evidence_dir / EVIDENCE, {"decision": decision.to_json(), "challenger": challenger})
    return CompressionReport(
        variants={name: _in_short(document, name) for name in settings.variants},
        rows=document["rows"],
        released=settings.release,
        passed=decision.passed,
        refusals=tuple(check.message for check in decision.refusals),
    )


def _document(
    settings: Compression,
    made: Mapping[str, Made],
    comparison: Comparison,
    times: Mapping[str, Mapping[int, Latency]],
    judge: Judge,
    directory: Path,
) -> dict[str, Any]:
    """Returns ``manifest.json``: see the stage's README."""
    models: dict[str, dict[str, Any]] = {}
    for name, each in made.items():
        models[name] = {
            **asdict(each.size),
            "latency": {str(size): asdict(latency) for size, latency in times[name].items()},
            "metrics": comparison.metrics_json(name),
            **each.about,
        }
    models[ORIGINAL]["digest"] = comparison.inputs.candidate.digest
    for name, variant in settings.variants.items():
        models[name] |= {
            "kind": variant.kind,
            "settings": variant.model_dump(mode="json", exclude={"limits", "required", "kind"}),
            "required": variant.required,
            "passed": judge.passed(name),
            "fairness": comparison.fairness_json(name),
            "content": digest_tree(directory / name),
        }
    return {
        "task": comparison.inputs.problem.task,
        "rows": int(comparison.estimates[ORIGINAL].values["example_count"][0]),
        "measured_on": processor(),
        "release": settings.release,
        "models": models,
    }


def _copy_model(source: Path, target: Path) -> None:
    """Copies a model artefact, its manifest last."""
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MODEL_MANIFEST))
    shutil.copy2(source / MODEL_MANIFEST, target)


def _in_short(document: Mapping[str, Any], name: str) -> VariantReport:
    model, original = document["models"][name], document["models"][ORIGINAL]
    return VariantReport(
        kind=model["kind"],
        gzip_bytes=model["gzip_bytes"],
        bytes_ratio=model["gzip_bytes"] / original["gzip_bytes"],
        p50_ms=model["latency"]["1"]["p50_ms"],
        passed=model["passed"],
    )
