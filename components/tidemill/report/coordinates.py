"""Parallel coordinates as inline SVG: one line per trial over an axis per hyperparameter, the result on the last."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from tidemill.report.formats import number, shortened

_AXIS: Final = 128.0
_HEIGHT, _TOP, _BOTTOM, _LEFT, _RIGHT = 330.0, 40.0, 26.0, 46.0, 96.0
_SHADES: Final = 4
_NAMED: Final = 9  # values of an axis that have their name beside it


@dataclass(frozen=True)
class Line:
    """One trial.

    Attributes:
        name: what it is called when pointed at.
        values: by axis; None where it has none.
        rank: 0 for the best, 1 for the worst.
        chosen: whether it is the one that was taken.
        dashed: whether it ended early.
    """

    name: str
    values: Mapping[str, Any]
    rank: float
    chosen: bool = False
    dashed: bool = False


class Axis:
    """Where the values of one hyperparameter lie: numbers by size, or by their logarithm, others side by side.

    Args:
        log: whether numbers lie by their logarithm; those that have none, such as 0, lie below all others.
    """

    def __init__(self, name: str, values: Sequence[Any], log: bool) -> None:
        self.name = name
        self._numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        positive = [math.log(v) for v in values if v > 0] if log and self._numeric else []
        self._log, self._floor = bool(positive), min(positive, default=0.0) - 1
        if self._numeric:
            scaled = sorted({self._scaled(v) for v in values})
            self._low, self._high = (scaled[0], scaled[-1]) if scaled else (0.0, 1.0)
            ends = sorted({min(values), max(values)}) if values else []
            self.labels = [(self(v), number(float(v))) for v in ends]
        else:
            alike = all(isinstance(v, list) for v in values)
            self._names = sorted({json.dumps(v) for v in values}, key=json.loads if alike else str)
            shown = self._names if len(self._names) <= _NAMED else [self._names[0], self._names[-1]]
            self.labels = [(self._place(name), _plain(name)) for name in shown]

    def __call__(self, value: Any) -> float:
        """Returns how far up the axis a value lies, from 0 to 1."""
        if not self._numeric:
            return self._place(json.dumps(value))
        span = self._high - self._low
        return (self._scaled(value) - self._low) / span if span else 0.5

    def _scaled(self, value: Any) -> float:
        if not self._log:
            return float(value)
        return math.log(value) if value > 0 else self._floor

    def _place(self, name: str) -> float:
        return (self._names.index(name) + 0.5) / len(self._names)


def coordinates(label: str, axes: Sequence[Axis], lines: Sequence[Line]) -> Markup:
    """Draws the lines, the best last and so on top; the better a line the stronger it is drawn.

    Args:
        label: what a reader who can't see the chart is told.
    """
    width = _LEFT + _AXIS * max(len(axes) - 1, 1) + _RIGHT
    parts = [_line(line, axes) for line in sorted(lines, key=lambda line: (line.chosen, -line.rank))]
    parts += [_axis(axis, _LEFT + i * _AXIS, i == len(axes) - 1) for i, axis in enumerate(axes)]
    return Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        width, _HEIGHT, label, Markup("").join(parts)
    )


def _line(line: Line, axes: Sequence[Axis]) -> Markup:
    runs: list[list[str]] = [[]]
    for i, axis in enumerate(axes):
        value = line.values.get(axis.name)
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{_LEFT + i * _AXIS:.1f} {_y(axis(value)):.1f}")
    path = "".join("M" + "L".join(run) for run in runs if len(run) > 1)
    shade = "best" if line.chosen else f"s{min(int(line.rank * _SHADES), _SHADES - 1)}"
    return Markup('<path class="p-line {}{}" d="{}"><title>{}</title></path>').format(
        shade, " c-dashed" if line.dashed else "", path, line.name
    )


def _axis(axis: Axis, x: float, last: bool) -> Markup:
    texts = Markup("").join(
        Markup('<text class="c-note" x="{:.1f}" y="{:.1f}">{}</text>').format(x + 5, _y(at) + 4, shortened(text, 14))
        for at, text in axis.labels
    )
    # Neighbours' names would run into each other on one line.
    name = shortened(axis.name.rpartition(".")[2] if len(axis.name) > 20 else axis.name, 20)
    return Markup(
        '<path class="c-axis" d="M{:.1f} {:g}V{:g}"/><text x="{:.1f}" y="{:g}" text-anchor="{}"{}>{}'
        "<title>{}</title></text>{}"
    ).format(
        x,
        _TOP,
        _HEIGHT - _BOTTOM,
        x,
        _TOP - 14,
        "middle",
        Markup(' class="p-result"') if last else "",
        name,
        axis.name,
        texts,
    )


def _y(part: float) -> float:
    return _HEIGHT - _BOTTOM - part * (_HEIGHT - _BOTTOM - _TOP)


def _plain(text: str) -> str:
    value = json.loads(text)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
