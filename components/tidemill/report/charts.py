"""Charts as inline SVG: pure functions from numbers to markup. Colours come from the page's style sheet by class.

Every chart is drawn once, in a view box near its size on the page, so that its text keeps the size of small print
on a telephone and on paper. Colour never stands alone: a second series is also dashed, or drawn as a line over bars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from tidemill.report.formats import number

Point = tuple[float, float]
WIDTH, HEIGHT = 420.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 14.0, 12.0, 42.0


@dataclass(frozen=True)
class Series:
    """Points in data units. ``tone`` chooses the colour: 1 for the main thing, 2 for its companion, 0 for grey."""

    name: str
    points: Sequence[Point]
    tone: int = 1
    kind: Literal["line", "dashed", "dots"] = "line"
    whiskers: Sequence[tuple[float, float, float]] = ()
    """x, low, high"""


@dataclass(frozen=True)
class Rule:
    """A line at a constant value, with its name written on it."""

    at: float
    name: str
    tone: int = 3


@dataclass(frozen=True)
class Mark:
    """A vertical line at a place that matters, with its name."""

    at: float
    name: str


@dataclass(frozen=True)
class Scale:
    """Maps data units to pixels, linearly."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        part = 0.5 if span == 0 else (value - self.low) / span
        return self.start + min(max(part, -0.02), 1.02) * (self.end - self.start)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Returns round values within ``[low, high]``, about ``wanted`` of them, at steps of 1, 2 or 5 times 10ⁿ."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def domain(values: Sequence[float], zero: bool = False) -> tuple[float, float]:
    """Returns the range to show: a little more than the values', never empty, from 0 where asked for."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high == low:
        around = abs(low) * 0.1 or 1.0
        return (low, high + around) if zero and low == 0 else (low - around, high + around)
    pad = (high - low) * 0.06
    return (low if zero and low == 0 else low - pad), high + pad


def lines(
    label: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    x_domain: tuple[float, float] | None = None,
    y_domain: tuple[float, float] | None = None,
    diagonal: bool = False,
    rules: Sequence[Rule] = (),
    marks: Sequence[Mark] = (),
) -> Markup:
    """A chart of curves.

    Args:
        label: what a reader who can't see the chart is told.
        rules: horizontal, such as the value of a baseline.
        diagonal: draws y = x: no skill for a ROC curve, perfection for a reliability diagram.
    """
    xs = [x for s in series for x, _ in s.points]
    ys = [y for s in series for _, y in s.points] + [e for s in series for w in s.whiskers for e in w[1:]]
    x = Scale(*(x_domain or domain(xs)), _LEFT, WIDTH - _RIGHT)
    y = Scale(*(y_domain or domain([*ys, *(r.at for r in rules)])), HEIGHT - _BOTTOM, _TOP)
    whole = bool(xs) and x_domain is None and all(float(v).is_integer() for v in xs)
    body = [_axes(x, y, x_label, y_label, whole)]
    if diagonal:
        body.append(
            _svg('<path class="c-diagonal" d="{}"/>', _polyline([(x(x.low), y(x.low)), (x(x.high), y(x.high))]))
        )
    body += [_horizontal(rule, x, y) for rule in rules]
    body += [_vertical(mark, x) for mark in marks]
    body += [_curve(s, x, y) for s in series]
    return _figure(label, body)


def histogram(
    label: str,
    bins: Sequence[tuple[float, float, float]],
    *,
    x_label: str,
    y_label: str,
    rules: Sequence[Rule] = (),
) -> Markup:
    """Bars over a continuous axis.

    Args:
        bins: low, high, count.
        rules: vertical, such as a budget.
    """
    ends = [e for low, high, _ in bins for e in (low, high)]
    x = Scale(*domain([*ends, *(r.at for r in rules)], zero=True), _LEFT, WIDTH - _RIGHT)
    y = Scale(*domain([c for _, _, c in bins], zero=True), HEIGHT - _BOTTOM, _TOP)
    body = [_axes(x, y, x_label, y_label)]
    for low, high, n in bins:
        width = max(x(high) - x(low) - 1, 1)
        if n > 0:
            body.append(
                _svg(
                    '<rect class="c-bar" x="{}" y="{}" width="{}" height="{}"/>',
                    *map(_px, (x(low), y(n), width, y(0) - y(n))),
                )
            )
    for i, rule in enumerate(rules):
        at = x(rule.at)
        anchor, dx = ("end", -4) if at > WIDTH * 0.6 else ("start", 4)
        body.append(_svg('<path class="c-rule t{}" d="{}"/>', rule.tone, f"M{_px(at)} {_TOP}V{HEIGHT - _BOTTOM}"))
        body.append(
            _svg(
                '<text class="c-note" x="{}" y="{}" text-anchor="{}">{}</text>',
                _px(at + dx), _px(_TOP + 10 + 14 * i), anchor, rule.name,
            )
        )  # fmt: skip
    return _figure(label, body)


def spark(train: Sequence[float], other: Sequence[float] = (), width: float = 132, height: float = 30) -> Markup:
    """A distribution the size of a word: bars for ``train``, a stepped line for ``other``, both as shares of 1.

    The numbers beside it say the same, so it is hidden from screen readers.
    """
    top = max([*train, *other, 0.0])
    if not train or top <= 0:
        return Markup("")
    step = width / len(train)
    scale = (height - 2) / top
    bars = "".join(
        f"M{_px(i * step)} {_px(height)}v{_px(-v * scale)}h{_px(max(step - 1, 0.5))}v{_px(v * scale)}z"
        for i, v in enumerate(train)
        if v > 0
    )
    over = ""
    if len(other) == len(train):
        over = f"M0 {_px(height - other[0] * scale)}" + "".join(
            f"{'V' + _px(height - v * scale) if i else ''}H{_px((i + 1) * step)}" for i, v in enumerate(other)
        )
    return _svg(
        '<svg class="spark" viewBox="0 -1 {} {}" width="{}" height="{}" aria-hidden="true" focusable="false">'
        '<path class="s-fill" d="{}"/><path class="s-line" d="{}"/></svg>',
        _px(width), _px(height + 2), _px(width), _px(height), bars, over,
    )  # fmt: skip


def whisker(
    value: float,
    low: float | None,
    high: float | None,
    extent: tuple[float, float],
    *,
    reference: float | None = None,
    limits: Sequence[float] = (),
    failed: bool = False,
    width: float = 220,
) -> Markup:
    """A dot with its interval on a scale shared by the rows of a table; the numbers stand beside it.

    Args:
        reference: a thin line through all rows, such as the overall value.
        limits: dashed lines, such as a gate's minimum.
    """
    x = Scale(*extent, 6, width - 6)
    parts = [_svg('<path class="w-axis" d="M0 11H{}"/>', _px(width))]
    if reference is not None:
        parts.append(_svg('<path class="w-reference" d="M{} 0V22"/>', _px(x(reference))))
    parts += [_svg('<path class="w-limit" d="M{} 0V22"/>', _px(x(at))) for at in limits]
    tone = "w-bad" if failed else "w-good"
    if low is not None and high is not None:
        parts.append(_svg('<path class="w-line {}" d="M{} 11H{}"/>', tone, _px(x(low)), _px(x(high))))
    # failing rows differ in shape too, not in colour alone
    mark = (
        f"M{_px(x(value))} 5l6 6l-6 6l-6 -6z"
        if failed
        else f"M{_px(x(value) - 4.5)} 11a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z"
    )
    parts.append(_svg('<path class="w-dot {}" d="{}"/>', tone, mark))
    return _svg(
        '<svg class="whisker" viewBox="0 0 {} 22" aria-hidden="true" focusable="false">{}</svg>',
        _px(width), Markup("").join(parts),
    )  # fmt: skip


def timeline(start: float, length: float, total: float) -> Markup:
    """A task's bar on the run's clock: where it began and how long it took. Units: seconds."""
    total = max(total, start + length, 1e-9)
    return _svg(
        '<svg class="timeline" aria-hidden="true" focusable="false"><rect class="l-track" width="100%" height="100%"/>'
        '<rect class="l-work" x="{}%" width="{}%" height="100%"/></svg>',
        _px(min(100 * start / total, 99.6)),
        _px(max(100 * length / total, 0.4)),
    )


def _svg(template: str, *values: object) -> Markup:
    return Markup(template).format(*values)


def _px(value: float) -> str:
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


def _polyline(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{_px(x)} {_px(y)}" for x, y in points) if points else ""


def _figure(label: str, body: Sequence[Markup]) -> Markup:
    return _svg(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>',
        _px(WIDTH), _px(HEIGHT), label, Markup("").join(body),
    )  # fmt: skip


def _axes(x: Scale, y: Scale, x_label: str, y_label: str, whole: bool = False) -> Markup:
    parts = []
    for tick in ticks(y.low, y.high):
        at = _px(y(tick))
        parts.append(_svg('<path class="c-grid" d="M{} {}H{}"/>', _px(x.start), at, _px(x.end)))
        parts.append(
            _svg(
                '<text class="c-tick" x="{}" y="{}" text-anchor="end" dy=".35em">{}</text>',
                _px(x.start - 7),
                at,
                _tick(tick),
            )
        )
    for tick in ticks(x.low, x.high):
        if whole and not float(tick).is_integer():
            continue
        parts.append(
            _svg(
                '<text class="c-tick" x="{}" y="{}" text-anchor="middle">{}</text>',
                _px(x(tick)),
                _px(y.start + 17),
                _tick(tick),
            )
        )
    middle_x, middle_y = (x.start + x.end) / 2, (y.start + y.end) / 2
    parts.append(_svg('<path class="c-axis" d="M{} {}H{}"/>', _px(x.start), _px(y.start), _px(x.end)))
    parts.append(
        _svg(
            '<text class="c-label" x="{}" y="{}" text-anchor="middle">{}</text>',
            _px(middle_x),
            _px(HEIGHT - 6),
            x_label,
        )
    )
    parts.append(
        _svg(
            '<text class="c-label" transform="translate(11 {}) rotate(-90)" text-anchor="middle">{}</text>',
            _px(middle_y), y_label,
        )
    )  # fmt: skip
    return Markup("").join(parts)


def _tick(value: float) -> str:
    return number(value) if value else "0"


def _curve(series: Series, x: Scale, y: Scale) -> Markup:
    points = [(x(a), y(b)) for a, b in series.points if math.isfinite(a) and math.isfinite(b)]
    parts = [
        _svg('<path class="c-whisker t{}" d="M{} {}V{}"/>', series.tone, _px(x(at)), _px(y(low)), _px(y(high)))
        for at, low, high in series.whiskers
    ]
    if series.kind != "dots" and len(points) > 1:
        dashed = " c-dashed" if series.kind == "dashed" else ""
        parts.append(_svg('<path class="c-line t{}{}" d="{}"/>', series.tone, dashed, _polyline(points)))
    if series.kind == "dots" or len(points) <= 1:
        parts += [
            _svg('<circle class="c-dot t{}" cx="{}" cy="{}" r="4"/>', series.tone, _px(a), _px(b)) for a, b in points
        ]
    return Markup("").join(parts)


def _horizontal(rule: Rule, x: Scale, y: Scale) -> Markup:
    at = _px(y(rule.at))
    return _svg(
        '<path class="c-rule t{}" d="M{} {}H{}"/><text class="c-note" x="{}" y="{}" text-anchor="end">{}</text>',
        rule.tone, _px(x.start), at, _px(x.end), _px(x.end - 2), _px(y(rule.at) - 5), rule.name,
    )  # fmt: skip


def _vertical(mark: Mark, x: Scale) -> Markup:
    at = x(mark.at)
    anchor, dx = ("end", -4) if at > WIDTH * 0.7 else ("start", 4)
    return _svg(
        '<path class="c-rule t3" d="M{} {}V{}"/><text class="c-note" x="{}" y="{}" text-anchor="{}">{}</text>',
        _px(at),
        _px(_TOP),
        _px(HEIGHT - _BOTTOM),
        _px(at + dx),
        _px(_TOP + 10),
        anchor,
        mark.name,
    )


def thinned(points: Sequence[Point], at_most: int = 120) -> list[Point]:
    """Returns at most ``at_most`` of the points, first and last among them: what an eye can tell apart."""
    if len(points) <= at_most:
        return list(points)
    step = (len(points) - 1) / (at_most - 1)
    return [points[round(i * step)] for i in range(at_most)]
