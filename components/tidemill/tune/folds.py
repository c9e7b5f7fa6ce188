"""The folds of a cross-validation: the training split divided by rows, classes, groups or time.

A fold is a directory of transformed examples like any other, so a trial trains on it as it would on the whole. The
keys are read from the raw examples, whose rows stand in the same files in the same order. The division is a function
of the seed and the rows. The transform graph was made from the whole training split: what it knows of a fold's eval
rows (means, vocabularies) is the same for all trials, so it tips no scale between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.artifacts import ExamplesManifest, parts
from tidemill.bundle import open_bundle
from tidemill.errors import DataError, PlatformError, ProblemError
from tidemill.files import replaced_directory, sha256_file
from tidemill.problem import Problem
from tidemill.transform.features import LABEL

_ROWS: Final = 65_536


@dataclass(frozen=True)
class FoldsReport:
    """The folds that were made.

    Attributes:
        method: k_fold, stratified, grouped or time_series.
        rows: of each fold, to train on and to judge by.
    """

    method: str
    rows: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Division:
    """Which of numbered blocks each row is in, int8 [rows] by part.

    Attributes:
        blocks: number of the row's block.
        forward: whether blocks follow each other in time: fold ``i`` is judged by block ``i + 1`` and trained on those
            before. Else it is judged by block ``i`` and trained on all others.
    """

    blocks: Sequence[np.ndarray]
    forward: bool

    def chosen(self, part: int, fold: int, split: str) -> np.ndarray:
        """Returns which rows of a part a fold's split has, bool [rows]."""
        block = self.blocks[part]
        judging = fold + 1 if self.forward else fold
        if split == "eval":
            return np.asarray(block == judging)
        return np.asarray(block < judging if self.forward else block != judging)


def run(bundle: str | Path, examples: str | Path, transformed: str | Path, folds: str | Path) -> FoldsReport:
    """Writes ``fold-<i>/{train,eval}`` of transformed examples, and the raw rows to judge by where fairness counts.

    Raises:
        ProblemError: if the problem has no cross-validation.
        DataError: if a fold would have no rows, or a row has no time.
        PlatformError: if the examples are not those that were transformed.
    """
    problem = open_bundle(Path(bundle)).problem
    tuning = problem.tuning
    if tuning is None or tuning.cross_validation is None:
        raise ProblemError("problem.yaml", "needs `tuning.cross_validation`")
    number, examples, transformed = tuning.cross_validation.folds, Path(examples), Path(transformed)
    method = chosen_method(problem)
    division = divided(problem, method, examples, transformed, number, tuning.seed)
    rows = []
    with replaced_directory(Path(folds)) as partial:
        for fold in range(number):
            directory = partial / f"fold-{fold:02d}"
            rows.append(_written(transformed, directory, division, fold, ("train", "eval")))
            if tuning.fairness is not None:
                _written(examples, directory / "examples", division, fold, ("eval",))
            if not all(rows[-1]):
                what = "train on" if not rows[-1][0] else "be judged by"
                remedy = "lower tuning.cross_validation.folds, or give more data"
                raise DataError(f"fold {fold}", f"has no rows to {what}", remedy=remedy)
    return FoldsReport(method, tuple((train, judged) for train, judged in rows))


def chosen_method(problem: Problem) -> str:
    """Returns how the folds are made; ``auto`` follows what the problem says of its rows."""
    assert problem.tuning is not None
    assert problem.tuning.cross_validation is not None
    method = problem.tuning.cross_validation.method
    if method != "auto":
        return method
    if problem.group and problem.split.method != "temporal":
        return "grouped"
    if problem.time is not None:
        return "time_series"
    if problem.group:
        return "grouped"
    return "k_fold" if problem.task == "regression" else "stratified"


def divided(problem: Problem, method: str, examples: Path, transformed: Path, folds: int, seed: int) -> Division:
    """Divides the training split into blocks; a byte per row is kept, with time or groups nine."""
    raw, made = parts(examples, "train"), parts(transformed, "train")
    sizes = [pq.read_metadata(path).num_rows for path in made]
    if [path.name for path in raw] != [path.name for path in made] or sizes != [
        pq.read_metadata(path).num_rows for path in raw
    ]:
        raise PlatformError("transformed examples", "must have the rows of the examples", remedy="run transform again")
    generator = np.random.default_rng(seed)
    if method == "time_series":
        whole = () if problem.windows is not None and problem.windows.straddle else problem.group
        return Division(_by_time(raw, str(problem.time), whole, folds), forward=True)
    if method == "grouped":
        return Division(_by_group(raw, problem.group, folds), forward=False)
    if method == "stratified":
        labels = [_column(path, LABEL).astype(np.int64) for path in made]
        return Division(_dealt(labels, folds, generator), forward=False)
    return Division(_dealt([np.zeros(size, np.int64) for size in sizes], folds, generator), forward=False)


def _dealt(classes: Sequence[np.ndarray], folds: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Deals the rows of each class out like cards, in a random order: folds differ by a row of a class at most."""
    next_fold: dict[int, int] = {}
    dealt = []
    for values in classes:
        order = generator.permutation(len(values))
        block = np.empty(len(values), np.int8)
        for value in np.unique(values).tolist():
            rows = order[values[order] == value]
            first = next_fold.get(value, 0)
            block[rows] = (first + np.arange(len(rows))) % folds
            next_fold[value] = (first + len(rows)) % folds
        dealt.append(block)
    return dealt


def _by_group(files: Sequence[Path], columns: Sequence[str], folds: int) -> list[np.ndarray]:
    """Gives each group, the largest first, to the fold that has the fewest rows so far."""
    hashed = _hashes(files, columns)
    groups, counts = np.unique(np.concatenate(hashed), return_counts=True)
    sizes, fold_of = np.zeros(folds, np.int64), np.empty(len(groups), np.int8)
    for i in np.lexsort((groups, -counts)):
        fold_of[i] = sizes.argmin()
        sizes[fold_of[i]] += counts[i]
    return [fold_of[np.searchsorted(groups, values)] for values in hashed]


def _hashes(files: Sequence[Path], columns: Sequence[str]) -> list[np.ndarray]:
    """Returns what the rows of one group have in common; a row that has none of the columns is a group by itself."""
    hashed, first = [], 0
    for path in files:
        frame = pq.read_table(path, columns=list(columns)).to_pandas()
        hashes = pd.util.hash_pandas_object(frame.astype(str), index=False).to_numpy()
        own = pd.util.hash_array(np.arange(first, first + len(frame)))
        hashed.append(np.where(frame.isna().all(axis=1), own, hashes))
        first += len(frame)
    return hashed


def _by_time(files: Sequence[Path], column: str, group: Sequence[str], folds: int) -> list[np.ndarray]:
    """Cuts time into ``folds + 1`` spans of about as many rows; rows of one moment are never parted.

    Nor are those of a group, which goes by its latest row as it does in temporal splits: what is trained on is never
    newer than what judges.
    """
    times = [_moments(path, column) for path in files]
    if group:
        groups, places = np.unique(np.concatenate(_hashes(files, group)), return_inverse=True)
        latest = np.full(len(groups), -np.inf)
        np.maximum.at(latest, places, np.concatenate(times))
        times = np.split(latest[places], np.cumsum([len(values) for values in times])[:-1])
    edges = np.quantile(np.concatenate(times), np.arange(1, folds + 1) / (folds + 1), method="higher")
    return [np.searchsorted(edges, values, side="right").astype(np.int8) for values in times]


def _moments(path: Path, column: str) -> np.ndarray:
    values = pq.read_table(path, columns=[column]).column(0)
    if pa.types.is_string(values.type):
        parsed = pd.to_datetime(values.to_pandas(), format="ISO8601", utc=True, errors="coerce")
        times = np.where(parsed.isna(), np.nan, parsed.astype("int64").to_numpy() / 1e9)
    else:
        times = values.to_pandas().to_numpy(np.float64)
    if not np.isfinite(times).all():
        got = f"{int((~np.isfinite(times)).sum())} have none that can be read"
        raise DataError(f"examples: {column}", "every row of the training split needs a time", got)
    return times


def _column(path: Path, name: str) -> np.ndarray:
    return np.asarray(pq.read_table(path, columns=[name]).column(0).to_numpy())


def _written(source: Path, target: Path, division: Division, fold: int, splits: Sequence[str]) -> tuple[int, ...]:
    """Copies the rows of one fold, batch by batch. Returns their number by split."""
    manifest = ExamplesManifest.read(source)
    rows: dict[str, int] = {}
    files: dict[str, dict[str, Any]] = {}
    for split in splits:
        (target / split).mkdir(parents=True)
        rows[split] = 0
        for number, path in enumerate(parts(source, "train")):
            made = target / split / path.name
            count = _copied(path, made, division.chosen(number, fold, split))
            rows[split] += count
            files[f"{split}/{path.name}"] = {
                "rows": count,
                "bytes": made.stat().st_size,
                "sha256": sha256_file(made),
            }
    ExamplesManifest(rows, manifest.columns, manifest.classes, files, manifest.source).write(target)
    return tuple(rows.values())


def _copied(source: Path, target: Path, chosen: np.ndarray) -> int:
    with (
        pq.ParquetFile(source, pre_buffer=False) as file,
        pq.ParquetWriter(target, file.schema_arrow, compression="zstd", use_dictionary=False) as writer,
    ):
        for table in _filtered(file, chosen):
            writer.write_table(table)
    return int(chosen.sum())


def _filtered(file: pq.ParquetFile, chosen: np.ndarray) -> Iterator[pa.Table]:
    first = 0
    for batch in file.iter_batches(_ROWS):
        kept = pa.array(chosen[first : first + batch.num_rows])
        first += batch.num_rows
        yield pa.Table.from_batches([batch.filter(kept)])
