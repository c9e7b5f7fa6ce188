"""Rows that could not be read: kept aside with the reason, never dropped unseen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import IO

from tidemill.errors import DataError

UNDECODABLE = "undecodable bytes"
FIELDS = "wrong number of fields"
SYNTAX = "not valid JSON"
EXAMPLE = "not a tf.Example"
TYPE = "value of another type"
NO_LABEL = "no label"
NO_TIME = "no event time"
NO_IMAGE = "unreadable image"

_SHOWN_CHARACTERS = 2000
_SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Fault:
    """One row that could not be read.

    Attributes:
        file: name of the file, relative to the source.
        line: 1-based line at which the row begins; for Parquet and TFRecord the 1-based record.
        kind: what is wrong, in words that group equal faults.
        reason: what is wrong with this row.
        text: the row as it stands in the file, undecodable bytes escaped, cut at 2,000 characters.
    """

    file: str
    line: int
    kind: str
    reason: str
    text: str = ""

    @classmethod
    def of_bytes(cls, file: str, line: int, kind: str, reason: str, row: bytes) -> Fault:
        return cls(file, line, kind, reason, row.decode("utf-8", "backslashreplace")[:_SHOWN_CHARACTERS])


def write_faults(file: IO[bytes], faults: Sequence[Fault]) -> None:
    """Writes one JSON object per fault."""
    file.writelines(f"{json.dumps(asdict(fault), ensure_ascii=False)}\n".encode() for fault in faults)


@dataclass(frozen=True)
class FaultCount:
    """How many rows were refused, why, and the first of them."""

    reasons: Counter[str]
    first: tuple[Fault, ...] = ()

    @classmethod
    def of(cls, faults: Sequence[Fault]) -> FaultCount:
        return cls(Counter(fault.kind for fault in faults), tuple(faults[:_SHOWN_FAULTS]))

    @classmethod
    def merge(cls, counts: Iterable[FaultCount]) -> FaultCount:
        reasons: Counter[str] = Counter()
        first: list[Fault] = []
        for count in counts:
            reasons.update(count.reasons)
            first += count.first
        return cls(reasons, tuple(sorted(first, key=lambda fault: (fault.file, fault.line))[:_SHOWN_FAULTS]))

    @property
    def total(self) -> int:
        return self.reasons.total()

    def check(self, source: str, rows: int, limit: float) -> None:
        """Holds the faults against a limit.

        Args:
            rows: rows that were read well.
            limit: the largest share of refused rows that is borne.

        Raises:
            DataError: naming the first rows, if there are more.
        """
        share = self.total / max(1, rows + self.total)
        if share <= limit:
            return
        lines = [f"  {fault.file}, line {fault.line}: {fault.reason}" for fault in self.first]
        more = self.total - len(lines)
        lines += [f"  and {more:,} more"] if more > 0 else []
        raise DataError(
            source,
            f"at most {limit:.2%} of the rows may be unreadable (gates.data.max_quarantined)",
            f"{share:.2%}: {self.total:,} of {rows + self.total:,} rows\n" + "\n".join(lines),
            _remedy(self.reasons),
        )


def _remedy(reasons: Counter[str]) -> str:
    kind = reasons.most_common(1)[0][0]
    if kind == UNDECODABLE:
        return "set ingest.encoding, such as latin-1 or cp1252, if the file has another encoding"
    if kind == FIELDS:
        return "mend the file, or set ingest.delimiter"
    return "mend the file, or raise gates.data.max_quarantined"
