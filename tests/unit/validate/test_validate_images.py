"""Long base64 is described by digests, and never compared."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from tidemill.problem import parse_problem
from tidemill.validate.columns import images, roles
from tidemill.validate.statistics import describe


def test_images_are_counted_by_digest(tmp_path):
    long = ["A" * 50_000, "B" * 50_000, "A" * 50_000, None]
    (tmp_path / "train").mkdir()
    pa.parquet.write_table(pa.table({"sign": long, "n": [1, 2, 3, 4]}), tmp_path / "train" / "part-0.parquet")
    kinds = {"sign": "string", "n": "int64"}
    (sign, _) = describe(tmp_path, {"train": 4}, kinds, digested=("sign",)).splits["train"].whole.datasets[0].features
    common = sign.string_stats.common_stats
    assert (common.num_non_missing, common.num_missing, sign.string_stats.unique) == (3, 1, 2)
    top = sign.string_stats.top_values[0]
    assert (top.value, top.frequency) == (f"sha256:{hashlib.sha256(b'A' * 50_000).hexdigest()[:16]}", 2)


def test_images_are_neither_categories_nor_quantities():
    problem = parse_problem(
        "name: a\ntask: regression\nlabel: {column: y}\nfeatures: {sign: {kind: image}, x: numeric}\n", "problem.yaml"
    )
    assert images(problem) == ("sign",)
    assert roles(problem, {"sign": "string", "x": "int64", "y": "int64"})["sign"] == "other"
