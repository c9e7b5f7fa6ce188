"""The variants: how large and how fast each is, and what it costs in quality and fairness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidemill.report import titles
from tidemill.report.documents import CompressedModel, Compression, Difference
from tidemill.report.evidence import Evidence
from tidemill.report.formats import words
from tidemill.report.quality import TELLING

ORIGINAL = "original"
_SHOWN_METRICS = 2
_KINDS = {"litert": "LiteRT", "onnx": "ONNX", "pruned": "pruned", "distilled": "distilled"}


@dataclass(frozen=True)
class Farthest:
    """Of all slices or groups the one in which a variant is furthest from the original, if it is anywhere."""

    what: str
    slice: Mapping[str, str]
    count: float
    change: Difference


@dataclass(frozen=True)
class VariantRow:
    """One model; ``outcome`` is kept, left out, refused, or nothing of the original.

    Attributes:
        about: what it is made by, in words.
        metrics: by name the change, or of the original the value alone.
        slice: the largest loss of the first metric in a sensitive slice.
        group: the largest change of a group's rate.
    """

    name: str
    about: str
    outcome: str
    gzip_bytes: int
    ratio: float | None
    latencies: Mapping[str, tuple[float | None, float | None]]
    metrics: Mapping[str, Difference]
    slice: Farthest | None
    group: Farthest | None


@dataclass(frozen=True)
class CompressionView:
    """The section on the variants."""

    rows: Sequence[VariantRow]
    metrics: Sequence[str]
    batches: Sequence[str]
    count: int
    measured_on: str
    release: str
    fair: bool


def view(evidence: Evidence) -> CompressionView | None:
    """Returns None where there are no variants."""
    document = evidence.compressed
    original = document.models.get(ORIGINAL) if document else None
    if document is None or original is None:
        return None
    known = original.whole
    metrics = [name for name in TELLING if name in known][:_SHOWN_METRICS]
    names = [ORIGINAL, *(name for name in document.models if name != ORIGINAL)]
    rows = [_row(name, document, original, metrics) for name in names]
    return CompressionView(
        rows=rows,
        metrics=metrics,
        batches=list(original.latency),
        count=document.rows,
        measured_on=document.measured_on,
        release=document.release,
        fair=any(row.group for row in rows),
    )


def _row(name: str, document: Compression, original: CompressedModel, metrics: Sequence[str]) -> VariantRow:
    model = document.models[name]
    ratio = model.gzip_bytes / original.gzip_bytes if name != ORIGINAL and original.gzip_bytes else None
    return VariantRow(
        name=name,
        about=_about(model),
        outcome=_outcome(name, model),
        gzip_bytes=model.gzip_bytes,
        ratio=ratio,
        latencies={size: (latency.p50_ms, latency.p99_ms) for size, latency in model.latency.items()},
        metrics={metric: model.whole[metric] for metric in metrics if metric in model.whole},
        slice=_slice(model, metrics[0]) if metrics else None,
        group=_group(model),
    )


def _about(model: CompressedModel) -> str:
    told = [_KINDS.get(model.kind, model.kind)]
    quantization = model.settings.get("quantization")
    if isinstance(quantization, str):
        told.append("as it is" if quantization == "none" else quantization)
    if model.sparsity is not None:
        told.append(f"{model.sparsity:.0%} zeros")
    if model.teacher:
        told.append(f"taught by the {'champion' if model.teacher == 'champion' else 'trained model'}")
    return ", ".join(word for word in told if word)


def _outcome(name: str, model: CompressedModel) -> str:
    if name == ORIGINAL:
        return ""
    if model.passed:
        return "kept"
    return "refused" if model.required else "left out"


def _slice(model: CompressedModel, metric: str) -> Farthest | None:
    changes = [(m, m.values[metric].change) for m in model.metrics if m.sensitive and metric in m.values]
    found = [(m, change) for m, change in changes if change is not None and change.difference]
    if not found:
        return None
    part, change = max(found, key=lambda each: abs(each[1].difference or 0))
    return Farthest(titles.metric(metric), part.slice, part.count, change)


def _group(model: CompressedModel) -> Farthest | None:
    found = [
        (rate, group, change)
        for fairness in model.fairness
        for group in fairness.groups
        if group.count >= (fairness.min_examples or 0)
        for rate, change in group.rates.items()
        if change.difference
    ]
    if not found:
        return None
    rate, group, change = max(found, key=lambda each: abs(each[2].difference or 0))
    return Farthest(titles.RATES.get(rate, words(rate)), group.slice, group.count, change)
