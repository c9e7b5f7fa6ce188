"""Ingest: a table becomes typed, labelled, divided examples in Parquet."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam

from tidemill.artifacts import ExamplesManifest
from tidemill.beam import Cluster, opened_cluster
from tidemill.beam_failures import delivered
from tidemill.beam_files import opened
from tidemill.bundle import Bundle, open_bundle
from tidemill.errors import DataError
from tidemill.files import replaced_directory
from tidemill.ingest.bigquery import ReadTable, StageRows
from tidemill.ingest.blocks import Types
from tidemill.ingest.columns import check_columns, stored_types
from tidemill.ingest.delimited import Dialect
from tidemill.ingest.division import CountDuplicates, KeyBatches, PlanSplits, ReadBatches, Wanted, WriteParts
from tidemill.ingest.fingerprint import CONTENT, fingerprint
from tidemill.ingest.labels import LabelRule, classes_of
from tidemill.ingest.quarantine import FaultCount
from tidemill.ingest.readers import Shard, shards_of
from tidemill.ingest.scan import ProfileTable, TableProfile
from tidemill.ingest.sources import SourceFile, is_bigquery, list_files
from tidemill.ingest.splits import SplitPlan, SplitRule
from tidemill.ingest.summary import Summary
from tidemill.ingest.windows import ReadWindows, Staged, StageGroups, WindowRule, partitions_of
from tidemill.problem import SPLITS, Problem


@dataclass(frozen=True)
class IngestReport:
    """What was read and what became of it.

    Attributes:
        source: uri, fingerprint, files and rows (all that were met, refused ones included), with windows also
            ``left_out``: rows that no window ends at.
        rows: rows by split.
        columns: int64, float64 or string by column.
        classes: as in :class:`tidemill.artifacts.ExamplesManifest`.
        label: distribution of the label by split: rows by class, or mean, std, min and max.
        duplicates: rows that are exact copies of an earlier row.
        quarantined: rows that could not be read.
        reasons: quarantined rows by reason.
        nulls: missing values by column, NaN and infinities among them.
        non_finite: NaN and infinities by column, where there were any.
        constant: columns with a single value.
        empty: columns without any value.
    """

    source: Mapping[str, Any]
    rows: Mapping[str, int]
    columns: Mapping[str, str]
    classes: tuple[str, ...]
    label: Mapping[str, Mapping[str, Any]]
    duplicates: int
    quarantined: int
    reasons: Mapping[str, int]
    nulls: Mapping[str, int]
    non_finite: Mapping[str, int]
    constant: tuple[str, ...]
    empty: tuple[str, ...]


def run(
    bundle: str | Path,
    source: str,
    source_fingerprint: str,
    examples: str | Path,
    beam_runner: str = "direct",
    beam_flags: Sequence[str] = (),
) -> IngestReport:
    """Reads a table, infers its types over all rows, and divides it into train, eval and test.

    It passes over the source twice (types; then rows), and once between for splits by quantiles. What is held in
    memory is one batch (about 32 MiB of the source) and its copies, 8 bytes a row to count exact copies, and, for
    splits by quantiles, at most 16 MiB per class and 16 bytes a row where the rows of a unit must be brought
    together. With windows the rows are brought together by group in files, and what is held is about 32 MiB of the
    source, or the largest group, and a million of its values with their past.

    Args:
        bundle: the packed problem.
        source: file, directory, glob or URI; see ``tidemill.ingest.sources``.
        source_fingerprint: what the source held when the run was submitted. A fingerprint of content is checked.
        examples: the directory to write; layout as in ``tidemill.artifacts``.
        beam_runner: direct, flink, dataflow or spark.
        beam_flags: Beam's own; see ``tidemill.beam``.

    Raises:
        UsageError: if a flag can't be taken.
        DataError: if the table cannot be used as the problem describes it.
    """
    unpacked = open_bundle(Path(bundle))
    source, examples = str(source), Path(examples)
    if source_fingerprint.startswith(CONTENT) and fingerprint(source) != source_fingerprint:
        raise DataError(source, "changed since the run was submitted", remedy="run again")
    with (
        opened_cluster(unpacked, beam_runner, beam_flags) as cluster,
        replaced_directory(examples) as partial,
        tempfile.TemporaryDirectory(dir=partial.parent, prefix=f".{examples.name}.", suffix=".partial") as scratch,
    ):
        return _Passes(unpacked, source, cluster, Path(scratch)).ingest(source_fingerprint, partial)


class _Passes:
    """The passes over one source.

    Args:
        scratch: a directory beside the artefact, because workers that see this one may see no other.
    """

    def __init__(self, bundle: Bundle, source: str, cluster: Cluster, scratch: Path) -> None:
        self._bundle, self._source, self._cluster, self._scratch = bundle, source, cluster, scratch
        self._problem: Problem = bundle.problem
        options = self._problem.ingest
        self._dialect = Dialect(options.delimiter, options.encoding, options.null_values)
        self._label = LabelRule(self._problem.label, self._problem.task)
        self._split = SplitRule.of(self._problem)
        self._windows = WindowRule.of(self._problem)
        # Groups make windows; whether they also stay together is another question.
        self._divided = (
            replace(self._split, unit=()) if self._windows and self._windows.windows.straddle else self._split
        )
        self._staged = Staged()
        self._staged_at = ""

    def ingest(self, source_fingerprint: str, directory: Path) -> IngestReport:
        files = self._files()
        profile = self._scan(files)
        types = stored_types(profile.columns(), self._problem, self._bundle.schema)
        check_columns(self._source, types, self._problem)
        shards = shards_of(files, profile.rows)
        if self._windows:
            self._windows.check_columns(self._source, types)
            self._stage_groups(shards, types, directory, sum(file.size for file in files))
        plan = SplitPlan.by_hash(self._split)
        if self._split.config.method != "hash":
            plan = self._plan(shards, types)
        summary, duplicates = self._divide(shards, types, plan, directory)
        report = self._report(summary, duplicates, source_fingerprint, len(files))
        ExamplesManifest(
            rows=report.rows,
            columns=report.columns,
            classes=report.classes,
            files=summary.files,
            source={key: value for key, value in report.source.items() if key != "files"},
            duplicates=duplicates,
            quarantined=report.quarantined,
        ).write(directory)
        return report

    def _files(self) -> list[SourceFile]:
        exchange = self._cluster.exchange
        if not is_bigquery(self._source):
            files = list_files(self._source)
            return [f if "://" in f.uri else replace(f, uri=exchange.given(Path(f.uri))) for f in files]
        staged = self._scratch / "bigquery"
        staged.mkdir()
        with exchange.made(staged) as there, delivered(), self._cluster.pipeline() as pipeline:
            _ = pipeline | "Table" >> ReadTable(self._source) | "Stage" >> StageRows(there)
        return [replace(f, uri=exchange.given(Path(f.uri))) for f in list_files(str(staged))]

    def _scan(self, files: Sequence[SourceFile]) -> TableProfile:
        with self._passing() as (pipeline, results):
            sources = pipeline | "Files" >> _spread(list(enumerate(files)))
            _save(sources | "Profile" >> ProfileTable(self._dialect), "profile", results)
        profile: TableProfile = self._load("profile")
        if files[0].format in ("csv", "parquet"):
            profile.check_same_columns()
        rows = sum(profile.rows.values())
        self._check_faults(profile.faults, rows)
        if not rows:
            raise DataError(self._source, "holds no rows", f"only the columns {', '.join(profile.columns())}")
        return profile

    def _stage_groups(self, shards: Sequence[Shard], types: Types, directory: Path, size: int) -> None:
        exchange, staged = self._cluster.exchange, self._scratch / "groups"
        staged.mkdir()
        assert self._windows is not None
        with (
            exchange.made(staged) as there,
            exchange.made(directory) as quarantine,
            self._passing() as (pipeline, results),
        ):
            stage = StageGroups(partitions_of(size), self._windows.time, there, quarantine)
            _save(self._keyed_rows(pipeline, shards, types) | "Groups" >> stage, "staged", results)
        self._staged, self._staged_at = self._load("staged"), exchange.given(staged)
        self._check_faults(self._staged.summary.faults, self._staged.rows)

    def _plan(self, shards: Sequence[Shard], types: Types) -> SplitPlan:
        with self._passing() as (pipeline, results):
            _save(self._keyed(pipeline, shards, types) | "PlanSplits" >> PlanSplits(self._divided), "plan", results)
        plan: SplitPlan = self._load("plan")
        return plan

    def _divide(self, shards: Sequence[Shard], types: Types, plan: SplitPlan, directory: Path) -> tuple[Summary, int]:
        with self._cluster.exchange.made(directory) as there, self._passing() as (pipeline, results):
            keyed = self._keyed(pipeline, shards, types)
            _save(keyed | "Parts" >> WriteParts(plan, self._divided, self._label, there), "summary", results)
            _save(keyed | "Duplicates" >> CountDuplicates(), "duplicates", results)
        return self._load("summary"), self._load("duplicates") if self._saved("duplicates") else 0

    def _keyed(self, pipeline: beam.Pipeline, shards: Sequence[Shard], types: Types) -> beam.PCollection:
        if self._windows is None:
            return self._keyed_rows(pipeline, shards, types)
        partitions = pipeline | "Partitions" >> _spread(sorted(self._staged.partitions))
        return partitions | "Windows" >> ReadWindows(self._windows, self._staged_at, self._staged.files)

    def _keyed_rows(self, pipeline: beam.Pipeline, shards: Sequence[Shard], types: Types) -> beam.PCollection:
        return (
            pipeline
            | "Shards" >> _spread(shards)
            | "Batches" >> ReadBatches(self._dialect, types)
            | "Keys" >> KeyBatches(self._label, self._split, Wanted.of(self._problem))
        )

    def _report(self, summary: Summary, duplicates: int, source_fingerprint: str, files: int) -> IngestReport:
        summary = Summary.merge([self._staged.summary, summary])
        rows: dict[str, int] = {split: summary.rows.get(split, 0) for split in SPLITS}
        self._check_faults(summary.faults, sum(rows.values()))
        classes: Counter[str] = sum((label.classes for label in summary.labels.values()), Counter())
        ordered = classes_of(self._problem.label, self._problem.task, classes)
        empty_splits = [split for split in SPLITS if not rows[split]]
        if empty_splits:
            shown = ", ".join(f"{split}: {n:,}" for split, n in rows.items())
            raise DataError(
                self._source,
                f"split {empty_splits[0]} is empty",
                f"{shown}; {duplicates:,} rows repeat others",
                "give more rows, other shares, or smaller groups (problem.yaml: split, group)"
                + (", or let groups go through temporal splits (windows.straddle)" if self._windows else ""),
            )
        total = (self._staged.rows if self._windows else sum(rows.values())) + summary.faults.total
        left_out = {"left_out": self._staged.rows - sum(rows.values())} if self._windows else {}
        source = {"uri": self._source, "fingerprint": source_fingerprint, "files": files, "rows": total, **left_out}
        return IngestReport(
            source=source,
            rows=rows,
            columns=summary.columns,
            classes=ordered,
            label={split: summary.labels[split].shown() for split in SPLITS},
            duplicates=duplicates,
            quarantined=summary.faults.total,
            reasons=dict(summary.faults.reasons.most_common()),
            nulls=summary.nulls,
            non_finite=summary.non_finite,
            constant=summary.columns_with(1),
            empty=summary.columns_with(0),
        )

    def _check_faults(self, faults: FaultCount, rows: int) -> None:
        faults.check(self._source, rows, self._problem.gates.data.max_quarantined)

    @contextlib.contextmanager
    def _passing(self) -> Iterator[tuple[beam.Pipeline, str]]:
        """Yields a pipeline and the directory that it leaves its results in."""
        with self._cluster.exchange.made(self._scratch) as results, delivered(), self._cluster.pipeline() as pipeline:
            yield pipeline, results

    def _saved(self, name: str) -> bool:
        return (self._scratch / name).is_file()

    def _load(self, name: str) -> Any:
        if self._windows and not self._saved(name):
            raise self._windows.no_window(self._source)
        return pickle.loads((self._scratch / name).read_bytes())


def _spread(elements: Sequence[Any]) -> beam.Create:
    """Creates elements that workers share; a single one needs no shuffle, which costs a tenth of a second."""
    return beam.Create(elements, reshuffle=len(elements) > 1)


def _save(value: beam.PCollection, name: str, directory: str) -> None:
    _ = value | f"Save {name}" >> beam.Map(_dump, f"{directory}/{name}")


def _dump(value: Any, path: str) -> None:
    with opened(path, "wb") as file:
        pickle.dump(value, file)
