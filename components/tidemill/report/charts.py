"""Charts as inline SVG: pure functions from numbers to markup. Colours come from the page's style sheet by class.

Every chart is drawn once, in a view box near its size on the page, so that its text keeps the size of small print
on a telephone and on paper. Colour never stands alone: a second series is also dashed, or drawn as a line over bars.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from tidemill.report.formats import THIN, number

Point = tuple[float, float]
WIDTH, HEIGHT = 420.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 14.0, 26.0, 40.0


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
    rounded = (float(f"{i * step:.12g}") + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1))
    return list(dict.fromkeys(rounded))


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
    marks: Sequence[Rule] = (),
) -> Markup:
    """A chart of curves.

    Args:
        label: what a reader who can't see the chart is told.
        rules: horizontal, such as the value of a baseline.
        marks: vertical, such as the epoch that was kept.
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
    body += [_vertical(mark, x(mark.at)) for mark in marks]
    body += [_curve(s, x, y) for s in series]
    return _figure(label, body)


def histogram(
    label: str, bins: Sequence[tuple[float, float | None, float]], *, x_label: str, y_label: str, rules: Sequence[Rule]
) -> Markup:
    """Bars of equal width over bins of unequal width, each edge labelled: for what spans orders of magnitude.

    Args:
        bins: low, high (None for without end) and count, adjoining and ascending.
        rules: vertical, such as a budget.
    """
    places = Scale(0, len(bins), _LEFT, WIDTH - _RIGHT)
    y = Scale(0, max([n for *_, n in bins] or [1]) * 1.06 or 1, HEIGHT - _BOTTOM, _TOP)
    body = [_y_axis(y, places, y_label)]
    for i, (low, _, n) in enumerate(bins):
        if n > 0:
            body.append(
                _svg(
                    '<rect class="c-bar" x="{}" y="{}" width="{}" height="{}"/>',
                    *map(_px, (places(i) + 1, y(n), places(i + 1) - places(i) - 2, y(0) - y(n))),
                )
            )
        body.append(_x_tick(places(i), y, number(low)))
    if bins:
        body.append(_x_tick(places(len(bins)), y, "∞" if bins[-1][1] is None else number(bins[-1][1])))
    body.append(_x_label(places, x_label))
    for i, rule in enumerate(rules):
        body.append(_vertical(rule, places(_place(bins, rule.at)), 14 * i))
    return _figure(label, body)


def _place(bins: Sequence[tuple[float, float | None, float]], value: float) -> float:
    """Returns where ``value`` lies, counted in bins."""
    for i, (low, high, _) in enumerate(bins):
        if high is None:
            return i + 0.5
        if value < high:
            return i + max(value - low, 0) / (high - low)
    return float(len(bins))


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
    state: str = "",
    width: float = 260,
) -> Markup:
    """A dot with its interval on a scale shared by the rows of a table; the numbers stand beside it.

    Args:
        reference: a thin line through all rows, such as the overall value.
        limits: dashed lines, such as a gate's minimum.
        state: bad or warn for what misses its limit.
    """
    x = Scale(*extent, 6, width - 6)
    parts = [_svg('<path class="w-axis" d="M0 11H{}"/>', _px(width))]
    if reference is not None:
        parts.append(_svg('<path class="w-reference" d="M{} 0V22"/>', _px(x(reference))))
    parts += [_svg('<path class="w-limit" d="M{} 0V22"/>', _px(x(at))) for at in limits]
    tone = f"w-{state or 'good'}"
    if low is not None and high is not None:
        parts.append(_svg('<path class="w-line {}" d="M{} 11H{}"/>', tone, _px(x(low)), _px(x(high))))
    # what misses a limit differs in shape too, not in colour alone
    at = x(value)
    mark = f"M{_px(at)} 5l6 6l-6 6l-6 -6z" if state else f"M{_px(at - 4.5)} 11a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z"
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
    wanted = ticks(x.low, x.high)
    shown = [tick for tick in wanted if not whole or float(tick).is_integer()]
    marks = [_x_tick(x(tick), y, tick_text(tick, wanted)) for tick in shown]
    return Markup("").join([_y_axis(y, x, y_label), *marks, _x_label(x, x_label)])


def _y_axis(y: Scale, x: Scale, label: str) -> Markup:
    """Grid lines, their values, the base line, and the axis' name above it: upright, so that it never meets a value."""
    wanted = ticks(y.low, y.high)
    parts = [
        _svg(
            '<path class="c-grid" d="M{} {}H{}"/><text x="{}" y="{}" text-anchor="end" dy=".35em">{}</text>',
            _px(x.start),
            _px(y(tick)),
            _px(x.end),
            _px(x.start - 7),
            _px(y(tick)),
            tick_text(tick, wanted),
        )
        for tick in wanted
    ]
    parts.append(_svg('<path class="c-axis" d="M{} {}H{}"/>', _px(x.start), _px(y.start), _px(x.end)))
    parts.append(_svg('<text class="c-label" x="0" y="11">{}</text>', label))
    return Markup("").join(parts)


def _x_tick(at: float, y: Scale, text: str) -> Markup:
    return _svg('<text x="{}" y="{}" text-anchor="middle">{}</text>', _px(at), _px(y.start + 17), text)


def _x_label(x: Scale, text: str) -> Markup:
    return _svg('<text class="c-label" x="{}" y="{}" text-anchor="end">{}</text>', _px(x.end), _px(HEIGHT - 5), text)


def tick_text(value: float, all_ticks: Sequence[float]) -> str:
    """Returns a tick's value with as many decimals as the step between ticks needs, and no more."""
    step = min((abs(b - a) for a, b in itertools.pairwise(all_ticks)), default=abs(value) or 1.0)
    if abs(value) >= 1e6 or (value and step < 1e-4):
        return number(value, 2)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}".replace(",", THIN).replace("-", "\u2212")


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
        '<path class="c-rule t{}" d="M{} {}H{}"/><text class="c-note" x="{}" y="{}">{}</text>',
        rule.tone, _px(x.start), at, _px(x.end), _px(x.start + 4), _px(y(rule.at) - 5), rule.name,
    )  # fmt: skip


def _vertical(rule: Rule, at: float, down: float = 0) -> Markup:
    anchor, dx = ("end", -4) if at > WIDTH * 0.6 else ("start", 4)
    return _svg(
        '<path class="c-rule t{}" d="M{} {}V{}"/><text class="c-note" x="{}" y="{}" text-anchor="{}">{}</text>',
        rule.tone,
        _px(at),
        _px(_TOP),
        _px(HEIGHT - _BOTTOM),
        _px(at + dx),
        _px(_TOP + 10 + down),
        anchor,
        rule.name,
    )


def thinned(points: Sequence[Point], at_most: int = 120) -> list[Point]:
    """Returns at most ``at_most`` of the points, first and last among them: what an eye can tell apart."""
    if len(points) <= at_most:
        return list(points)
    step = (len(points) - 1) / (at_most - 1)
    return [points[round(i * step)] for i in range(at_most)]
