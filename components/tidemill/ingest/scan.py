"""The first pass: what columns there are, of which types over all rows, and how many rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import apache_beam as beam

from tidemill.beam_failures import carried
from tidemill.errors import DataError
from tidemill.ingest.casting import natural_type, widest
from tidemill.ingest.columnar import parquet_columns
from tidemill.ingest.delimited import Dialect
from tidemill.ingest.quarantine import FaultCount
from tidemill.ingest.readers import read_blocks
from tidemill.ingest.sources import SourceFile


@dataclass(frozen=True)
class FileProfile:
    """What one file, or a part of it, holds.

    Attributes:
        index: place of the file among the source's.
        file: its name.
        columns: null, int64, float64 or string by column, in the file's order.
        rows: rows that could be read.
        faults: rows that could not.
    """

    index: int
    file: str
    columns: Mapping[str, str]
    rows: int
    faults: FaultCount = field(default_factory=lambda: FaultCount(Counter()))

    def merge(self, later: FileProfile) -> FileProfile:
        """Returns this part and a later part of the same file as one."""
        columns = dict(self.columns)
        for name, type_ in later.columns.items():
            columns[name] = widest(columns.get(name, "null"), type_)
        faults = FaultCount.merge([self.faults, later.faults])
        return FileProfile(self.index, self.file, columns, self.rows + later.rows, faults)


@dataclass(frozen=True)
class TableProfile:
    """What a source holds: the profiles of its files, in order."""

    files: tuple[FileProfile, ...]

    @classmethod
    def merge(cls, parts: Iterable[TableProfile]) -> TableProfile:
        """Joins parts, those of one file in the order in which they are given."""
        merged: dict[int, FileProfile] = {}
        for part in parts:
            for profile in part.files:
                known = merged.get(profile.index)
                merged[profile.index] = known.merge(profile) if known else profile
        return cls(tuple(merged[index] for index in sorted(merged)))

    @property
    def rows(self) -> dict[str, int]:
        """Rows by file."""
        return {profile.file: profile.rows for profile in self.files}

    @property
    def faults(self) -> FaultCount:
        return FaultCount.merge(profile.faults for profile in self.files)

    def columns(self) -> dict[str, str]:
        """Returns null, int64, float64 or string by column, in the order of first appearance."""
        columns: dict[str, str] = {}
        for profile in self.files:
            for name, type_ in profile.columns.items():
                columns[name] = widest(columns.get(name, "null"), type_)
        return columns

    def check_same_columns(self) -> None:
        """Raises DataError if a file's columns aren't those of the first."""
        first = self.files[0]
        for other in self.files[1:]:
            missing, extra = first.columns.keys() - other.columns.keys(), other.columns.keys() - first.columns.keys()
            if missing or extra:
                lacks = f"lacks {', '.join(sorted(missing))}" if missing else ""
                has = f"has {', '.join(sorted(extra))} too" if extra else ""
                got = " and ".join(text for text in (lacks, has) if text)
                raise DataError(other.file, f"expected the columns of {first.file}", got)


def profile_file(index: int, file: SourceFile, dialect: Dialect) -> Iterator[FileProfile]:
    """Yields the profiles of a file's blocks; of Parquet the footer tells all."""
    if file.format == "parquet":
        columns, rows = parquet_columns(file)
        yield FileProfile(index, file.name, columns, rows)
        return
    for block in read_blocks(file, dialect, None):
        columns = {f.name: natural_type(f.type) for f in block.table.schema}
        yield FileProfile(index, file.name, columns, len(block.lines), FaultCount.of(block.faults))


class ProfileTable(beam.PTransform):
    """The profile of a source: ``PCollection[(index, SourceFile)] -> PCollection[TableProfile]`` of one."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self._dialect = dialect

    def expand(self, files: beam.PCollection) -> beam.PCollection:
        return (
            files
            | "ProfileBlocks" >> beam.ParDo(_ProfileBlocks(self._dialect))
            | "Merge" >> beam.CombineGlobally(TableProfile.merge).without_defaults()
        )


class _ProfileBlocks(beam.DoFn):
    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def process(self, element: tuple[int, SourceFile]) -> Iterable[TableProfile]:
        with carried():
            for profile in profile_file(*element, self._dialect):
                yield TableProfile((profile,))
