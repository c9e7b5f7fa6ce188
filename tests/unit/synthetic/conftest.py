"""Frames of generated rows; the `tensorflow` environment has what they need."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from tidemill.synthetic.lending import LendingConfig, generate


@cache
def _frames(config_items: tuple[tuple[str, Any], ...]) -> pd.DataFrame:
    options = dict(config_items)
    options["defects"] = dict(options.get("defects", ()))
    chunks = list(generate(LendingConfig(**options)))
    table = pa.concat_tables([chunk.table for chunk in chunks]).to_pandas()
    truth = pa.concat_tables([chunk.truth for chunk in chunks]).to_pandas().drop(columns="application_id")
    return pd.concat([table, truth.rename(columns={"repaid": "truly_repaid"})], axis=1)


@pytest.fixture(scope="session")
def lending() -> Callable[..., pd.DataFrame]:
    """Returns a function from the fields of a LendingConfig to the table and its truth, side by side.

    Defects are given as pairs. The same options give the same (shared) frame: don't change it.
    """
    return lambda rows=65_536, **options: _frames(tuple(sorted({"rows": rows, **options}.items())))
