"""``network/rows.json`` of a model artefact: what each row of its embedding tables stands for.

A vocabulary is counted anew for each training, so the same row is of another word from one model to the next. Who
takes weights over moves rows by name.

::

    rows.json   {"ids": {feature: [name of each id]}, "tables": {path of a weight: [features whose ids are its rows]}}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import keras

from tidemill.artifacts import NETWORK
from tidemill.files import digest_tree, write_json
from tidemill.problem import Problem
from tidemill.train.architectures.tables import BagEmbedding, JointEmbedding
from tidemill.train.coefficients import id_names
from tidemill.transform.features import TransformedFeature

_FILE: Final = "rows.json"


@dataclass(frozen=True)
class Rows:
    """What the rows of a model's tables stand for.

    Attributes:
        ids: names of the ids by feature. Where only user code knows what an id stands for, its name is its number
            and a digest of all vocabularies.
        tables: by path of a weight: the features whose ids are its rows, one feature's after the other's.
    """

    ids: Mapping[str, Sequence[str]]
    tables: Mapping[str, Sequence[str]]

    def of_table(self, path: str) -> list[tuple[str, str, int]] | None:
        """Returns what stands for each row of a table: feature, id, and which of the ids of that name it is."""
        if path not in self.tables:
            return None
        seen: Counter[tuple[str, str]] = Counter()
        rows = []
        for feature in self.tables[path]:
            for name in self.ids[feature]:
                rows.append((feature, name, seen[feature, name]))
                seen[feature, name] += 1
        return rows

    def write(self, model: Path) -> None:
        write_json(model / NETWORK / _FILE, asdict(self))

    @classmethod
    def read(cls, model: Path) -> Rows | None:
        """Returns the rows of a model artefact; None if it was made before they were written."""
        path = model / NETWORK / _FILE
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def rows_of(
    model: keras.Model, problem: Problem, features: Sequence[TransformedFeature], transform_graph: Path
) -> Rows:
    """Returns what the rows of a model's tables stand for."""
    ids = id_names(problem, [f for f in features if f.kind in ("ids", "bag")], transform_graph)
    if problem.user_code.preprocessing:
        digest = digest_tree(transform_graph / "transform_fn" / "assets")
        ids = {name: [f"{digest} {i}" for i in range(len(names))] for name, names in ids.items()}
    tables = {
        layer.table.path: list(layer.features)
        for layer in layers_of(model)
        if isinstance(layer, (JointEmbedding, BagEmbedding))
    }
    return Rows(ids, tables)


def layers_of(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model, and those of the models within it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
