"""The fairness gap of a trial, counted as the evaluation counts it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tidemill.artifacts import ExamplesManifest, parts
from tidemill.evaluate.binary import BinaryCells, moments_of
from tidemill.evaluate.counts import Counts, count
from tidemill.evaluate.fairness import disparities, groups
from tidemill.evaluate.labels import LabelReader
from tidemill.evaluate.scoring import SCORES, Model
from tidemill.evaluate.slices import plan_slices
from tidemill.problem import Problem

_TRIAL = "trial"


def gap(model: Path, examples: Path, problem: Problem, asked: Mapping[str, Any]) -> float | None:
    """Returns how far the groups of the eval split lie apart; None where fewer than two can be compared.

    Args:
        model: as `train` puts out.
        examples: raw examples.
        asked: ``metric``, ``over`` (the columns) and ``min_examples``.
    """
    files = parts(examples, "eval")
    plan = plan_slices(files, [asked["over"]])
    reader = LabelReader.of(problem, ExamplesManifest.read(examples))
    candidate, cells_of = Model(str(model)), BinaryCells(problem.threshold)
    sizes = [len(key.names) for key in plan.keys]
    totals: Counts = {}
    for file in files:
        with pq.ParquetFile(file, pre_buffer=False) as opened:
            for batch in opened.iter_batches():
                scores = candidate.predict(batch)[SCORES[problem.task]]
                cells = cells_of(reader.labels(batch), scores, reader.weights(batch))["moments"]
                once = {f"{_TRIAL}/moments": replace(cells, replicated=False)}
                for name, array in count(once, plan.codes(batch), sizes, np.empty((batch.num_rows, 0))).items():
                    totals[name] = totals[name] + array if name in totals else array
    members = groups(moments_of(totals, _TRIAL), plan.slices, plan.members(asked["over"]))
    value = disparities(members, asked["min_examples"])[asked["metric"]].value
    return None if math.isnan(value) else value
