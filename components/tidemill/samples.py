"""A test row and what it was answered in the rehearsal: every endpoint must answer it so before it gets traffic."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SAMPLE: Final = "sample.json"


@dataclass(frozen=True)
class Sample:
    """A raw row of the test split.

    Attributes:
        instance: its features as JSON.
        prediction: what the rehearsal's server answered.
        tolerance: absolute difference that numbers may have.
    """

    instance: dict[str, Any]
    prediction: Any
    tolerance: float

    @classmethod
    def read(cls, path: Path) -> Sample:
        return cls.parse(path.read_bytes())

    @classmethod
    def parse(cls, content: bytes) -> Sample:
        value = json.loads(content)
        return cls(value["instance"], value["prediction"], value["tolerance"])

    @property
    def request(self) -> dict[str, Any]:
        """The body that asks for a prediction of this row."""
        return {"instances": [self.instance]}

    def agrees(self, prediction: Any) -> bool:
        """Tells whether ``prediction`` is the rehearsed one, numbers within the tolerance."""
        return _agree(self.prediction, prediction, self.tolerance)


def _agree(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        numbers = [k for k in one if k != "label"]  # a label may turn where a probability is at the threshold
        return one.keys() == other.keys() and all(_agree(one[k], other[k], tolerance) for k in numbers)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other, [tolerance] * len(one)))
    return (
        isinstance(one, (int, float))
        and isinstance(other, (int, float))
        and math.isclose(one, other, rel_tol=0, abs_tol=tolerance)
    )
