"""Row hashes that are the same in every process, whatever the order of columns and the cuts between files.

The hash of a row is the sum modulo 2^64, over its non-null values, of ``mix(hash(value) ^ hash(column name))``:
a sum doesn't know an order, and a column of nulls changes nothing. Numbers hash by value, so a column that
widens from int64 to float64 keeps its hashes; strings hash by SipHash under a fixed key (pandas' ``hash_array``).
Two different rows have the same hash with a probability of 2^-64: among 100 million rows one such pair is
expected in 3,700 tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

from tidemill.ingest.blocks import one_chunk

_KEY = "tidemill-ingest1"  # SipHash takes 16 bytes


def mix(values: np.ndarray) -> np.ndarray:
    """Returns uint64 values put through splitmix64's finalizer, a bijection (pandas hashes integers by it)."""
    return hash_array(np.ascontiguousarray(values, dtype=np.uint64))


def hash_text(text: str) -> np.uint64:
    """Returns the hash of one string."""
    return np.uint64(hash_array(np.array([text], dtype=object), hash_key=_KEY, categorize=False)[0])


def hash_values(column: pa.Array) -> np.ndarray:
    """Returns uint64 [rows], anything for null, of an int64, float64 or string array."""
    if pa.types.is_string(column.type):
        encoded = column.dictionary_encode()
        words = np.asarray(encoded.dictionary.to_numpy(zero_copy_only=False), dtype=object)
        if not len(words):
            return np.zeros(len(column), np.uint64)
        hashes = hash_array(words, hash_key=_KEY, categorize=False)
        return hashes[pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)]
    numbers = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    return hash_array(_integers(numbers) if pa.types.is_floating(column.type) else numbers.view(np.uint64))


def _integers(numbers: np.ndarray) -> np.ndarray:
    """Returns whole numbers as int64 and others as their bits, all viewed as uint64."""
    whole = (np.floor(numbers) == numbers) & (np.abs(numbers) < 2.0**63)
    return np.where(whole, np.where(whole, numbers, 0).astype(np.int64).view(np.uint64), numbers.view(np.uint64))


def hash_columns(table: pa.Table, columns: Iterable[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields each column's name, its uint64 contribution to the row hashes [rows], and where it has values [rows]."""
    for name in columns:
        column = one_chunk(table.column(name))
        valid = np.asarray(column.is_valid().to_numpy(zero_copy_only=False))
        yield name, np.where(valid, mix(hash_values(column) ^ hash_text(name)), np.uint64(0)), valid


def hash_rows(table: pa.Table, columns: Iterable[str]) -> np.ndarray:
    """Returns uint64 [rows] over the given columns; 0 where all of them are null."""
    total = np.zeros(table.num_rows, np.uint64)
    for _, hashes, _ in hash_columns(table, columns):
        total += hashes
    return total
