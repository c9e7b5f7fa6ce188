"""When a served answer is the offline one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.rehearse.offline import difference, read_predictions


def test_predictions_are_found_by_row_over_all_parts(tmp_path: Path) -> None:
    for part, rows in enumerate(([0, 1], [2, 3])):
        table = pa.table({"row": rows, "value": [float(r) for r in rows], "other": rows})
        pq.write_table(table, tmp_path / f"part-{part}.parquet")
    assert read_predictions(tmp_path, [1, 2, 9]) == {1: {"value": 1.0}, 2: {"value": 2.0}}


@pytest.mark.parametrize(
    ("served", "offline", "expected"),
    [
        ({"probability": 0.7, "label": "y"}, {"probability": 0.75, "label": "y"}, 0.05),
        ({"probability": 0.7, "label": "n"}, {"probability": 0.7, "label": "y"}, math.inf),
        ({"probability": 0.499999, "label": "n"}, {"probability": 0.500001, "label": "y"}, 2e-6),
        ({"probabilities": [0.2, 0.8]}, {"probabilities": [0.3, 0.7]}, 0.1),
        ({"probabilities": [0.2, 0.8]}, {"probabilities": [0.2, 0.3, 0.5]}, math.inf),
        ({"probabilities": [0.2, 0.8], "label": "a"}, {"probabilities": [0.2, 0.8], "label": "b"}, math.inf),
        ({"probabilities": [0.5, 0.5], "label": "a"}, {"probabilities": [0.5, 0.5], "label": "b"}, 0),
        (3.5, {"value": 2.0}, 0.75),
        (1500.5, {"value": 1500.0}, 1 / 3000),
        (None, {"value": 3.0}, math.inf),
        ({"value": None}, {"value": 3.0}, math.inf),
        ({"score": 1.0}, {"value": 1.0}, math.inf),
        ({"value": 1.0}, {"label": "y"}, math.inf),
    ],
)
def test_differences(served: Any, offline: Any, expected: float) -> None:
    assert difference(served, offline, threshold=0.5, tolerance=1e-5) == pytest.approx(expected)
