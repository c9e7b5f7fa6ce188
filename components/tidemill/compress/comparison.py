"""Every variant's answers to the raw test split, counted as the evaluation counts, and held against the original's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tidemill.compress.networks import Network, SavedNetwork, in_pieces
from tidemill.compression import ORIGINAL
from tidemill.evaluate.binary import MOMENTS, moments_of
from tidemill.evaluate.counts import REPLICATES, CountRows, Counts, Scored, replicates
from tidemill.evaluate.evaluation import Inputs
from tidemill.evaluate.fairness import Group, disparities, groups
from tidemill.evaluate.intervals import bootstrap
from tidemill.evaluate.metrics import Estimates, compare
from tidemill.evaluate.outputs import SHOWN_MIN_EXAMPLES, metric_rows, number
from tidemill.evaluate.scoring import BATCH_ROWS, CANDIDATE, SCORES


@dataclass(frozen=True)
class Change:
    """A number of a variant's and the original's, and the difference with its paired 95 % interval."""

    value: float
    original: float
    difference: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        return {name: number(value) for name, value in vars(self).items()}


Key = tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """All models on the same rows.

    Attributes:
        inputs: of the evaluation.
        estimates: metrics by model.
        groups: by model and sensitive key the groups; first as they are, then in every bootstrap replicate.
    """

    inputs: Inputs
    estimates: Mapping[str, Estimates]
    groups: Mapping[str, Mapping[Key, Sequence[Sequence[Group]]]]

    @classmethod
    def of(cls, inputs: Inputs, original: SavedNetwork, networks: Mapping[str, Network]) -> Comparison:
        """Predicts every row of the test split by every network, and counts.

        Args:
            original: transforms the raw rows for all, and is the model :data:`ORIGINAL`.
            networks: the variants.
        """
        counts = _count(inputs, original, {ORIGINAL: original, **networks})
        models = (ORIGINAL, *networks)
        binary = inputs.problem.task == "binary_classification"
        return cls(
            inputs,
            {name: inputs.estimates(counts, name) for name in models},
            {name: _groups(inputs, counts, name) if binary else {} for name in models},
        )

    def metric(self, name: str, metric: str, slice_number: int) -> Change:
        """Returns how a metric of a variant differs in a slice."""
        ours, theirs = self.estimates[name], self.estimates[ORIGINAL]
        paired = compare(ours.only((metric,)), theirs.only((metric,)))
        places = (ours.values, theirs.values, paired.values, paired.low, paired.high)
        return Change(*(float(place[metric][slice_number]) for place in places))

    def fairness(self, name: str, metric: str, key: Key, min_examples: int) -> Change:
        """Returns how far a fairness metric of a variant is from the original's."""
        ours, theirs = (
            np.array([disparities(each, min_examples)[metric].value for each in self.groups[model][key]])
            for model in (name, ORIGINAL)
        )
        return _change(ours, theirs)

    def rate(self, name: str, rate: str, key: Key, group: int) -> Change:
        """Returns how a rate of one group differs."""
        ours, theirs = (
            np.array([each[group].rates[rate].value for each in self.groups[model][key]]) for model in (name, ORIGINAL)
        )
        return _change(ours, theirs)

    def metrics_json(self, name: str) -> list[dict[str, Any]]:
        """Returns a model's metrics per slice; of a variant each with the original's and the difference."""
        rows = metric_rows(self.inputs.plan, self.estimates[name], self.inputs.sensitive)
        if name == ORIGINAL:
            return rows
        compared = compare(self.estimates[name], self.estimates[ORIGINAL]).values
        for i, row in enumerate(rows):
            for metric in compared:
                change = self.metric(name, metric, i).to_json()
                row["values"][metric]["original"] = change["original"]
                row["values"][metric]["change"] = {key: change[key] for key in ("difference", "low", "high")}
        return rows

    def fairness_json(self, name: str) -> list[dict[str, Any]]:
        """Returns, per sensitive key, how the gaps and the groups' rates differ from the original's."""
        found = []
        for key, (point, *_) in self.groups[name].items():
            metrics = disparities(point, SHOWN_MIN_EXAMPLES)
            found.append(
                {
                    "over": list(key),
                    "min_examples": SHOWN_MIN_EXAMPLES,
                    "metrics": {m: self.fairness(name, m, key, SHOWN_MIN_EXAMPLES).to_json() for m in metrics},
                    "groups": [
                        {
                            "slice": dict(group.slice),
                            "count": group.count,
                            "rates": {rate: self.rate(name, rate, key, i).to_json() for rate in group.rates},
                        }
                        for i, group in enumerate(point)
                    ],
                }
            )
        return found


def _count(inputs: Inputs, original: SavedNetwork, networks: Mapping[str, Network]) -> Counts:
    cells = inputs.cells()[CANDIDATE]  # all decide at the original's threshold
    combine = CountRows(dict.fromkeys(networks, cells), [len(key.names) for key in inputs.plan.keys])
    sums = combine.create_accumulator()
    score = SCORES[inputs.problem.task]
    for i, part in enumerate(inputs.files):
        row = part.first_row
        with pq.ParquetFile(part.path, pre_buffer=False) as file:
            # Batches as the evaluation has them, whose resampling goes by a batch's place: its numbers are met exactly.
            for batch in file.iter_batches(BATCH_ROWS):
                if i == 0 and row == part.first_row:
                    original.check(batch.slice(0, 256), score)
                features = original.transform(batch)
                outputs = {name: _score(in_pieces(network, features)) for name, network in networks.items()}
                labels, weights = inputs.reader.labels(batch), inputs.reader.weights(batch)
                sums = combine.add_input(sums, Scored(row, labels, weights, inputs.plan.codes(batch), outputs))
                row += batch.num_rows
    return combine.extract_output(sums)


def _score(output: np.ndarray) -> np.ndarray:
    return output[:, 0] if output.shape[1] == 1 else output


def _groups(inputs: Inputs, counts: Counts, model: str) -> dict[Key, list[list[Group]]]:
    point = moments_of(counts, model)
    resampled = replicates(counts, f"{model}/moments")[..., 0, :]
    drawn = [{moment: resampled[r, :, i] for i, moment in enumerate(MOMENTS)} for r in range(REPLICATES)]
    found = {}
    for key in inputs.sensitive:
        members = inputs.plan.members(key)
        first = groups(point, inputs.plan.slices, members)
        # Whether a group is large enough to be compared is a matter of its rows, not of a draw.
        counted = [
            [replace(group, count=first[i].count) for i, group in enumerate(groups(each, inputs.plan.slices, members))]
            for each in drawn
        ]
        found[key] = [first, *counted]
    return found


def _change(ours: np.ndarray, theirs: np.ndarray) -> Change:
    """Returns the change of a number whose first value is the number itself and whose others are its replicates."""
    paired = ours - theirs
    low, high = bootstrap(paired[0], paired[1:])
    return Change(float(ours[0]), float(theirs[0]), float(paired[0]), float(low), float(high))
