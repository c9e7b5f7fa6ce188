"""Charts draw what they are given, where it belongs, and survive what isn't drawable."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from tidemill.report import charts
from tidemill.report.charts import Rule, Series

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9)


def parse(markup: Markup) -> ET.Element:
    return ET.fromstring(markup)


@given(finite, finite)
def test_ticks_are_few_ascending_and_within_the_range(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = charts.ticks(low, high)
    span = high - low
    assert len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert all(low - span * 1e-6 - 1e-9 <= t <= high + span * 1e-6 + 1e-9 for t in ticks)


def test_ticks_are_round_and_carry_only_the_decimals_they_need() -> None:
    ticks = charts.ticks(0, 1)
    assert ticks == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert [charts.tick_text(t, ticks) for t in ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert charts.tick_text(25_000, [0, 25_000]) == "25\u202f000"
    assert charts.tick_text(2e6, [0, 2e6]) == "2\u202f000\u202f000"
    assert charts.ticks(math.nan, 1) == []


def test_a_domain_is_never_empty() -> None:
    assert charts.domain([]) == (0.0, 1.0)
    assert charts.domain([math.nan]) == (0.0, 1.0)
    low, high = charts.domain([5.0, 5.0])
    assert low < 5 < high
    assert charts.domain([0.0, 2.0], zero=True)[0] == 0


def test_higher_values_are_drawn_higher_and_later_ones_further_right() -> None:
    chart = parse(charts.lines("up", [Series("up", [(1, 1), (2, 3)])], x_label="x", y_label="y"))
    path = next(p.get("d", "") for p in chart.iter("path") if "c-line" in p.get("class", ""))
    (x0, y0), (x1, y1) = ([float(n) for n in re.findall(r"[\d.]+", part)] for part in path.split("L"))
    assert x1 > x0
    assert y1 < y0  # the axis of SVG points down


def test_a_single_point_is_a_dot_and_an_undefined_one_is_left_out() -> None:
    chart = parse(charts.lines("one", [Series("one", [(1, 2), (2, math.nan)])], x_label="x", y_label="y"))
    assert len(list(chart.iter("circle"))) == 1
    assert "nan" not in ET.tostring(chart, encoding="unicode")


def test_epochs_are_labelled_with_whole_numbers_only() -> None:
    chart = charts.lines("e", [Series("e", [(1, 1), (2, 2)])], x_label="epoch", y_label="")
    assert ">1.5<" not in chart.split('class="c-axis"')[1]


def test_whiskers_rules_marks_and_the_diagonal_are_drawn() -> None:
    chart = charts.lines(
        "all",
        [Series("bins", [(0.5, 0.5)], 1, "dots", [(0.5, 0.4, 0.6)])],
        x_label="x",
        y_label="y",
        x_domain=(0, 1),
        y_domain=(0, 1),
        diagonal=True,
        rules=[Rule(0.2, "chance", 0)],
        marks=[Rule(0.9, "kept")],
    )
    for part in ("c-whisker", "c-diagonal", "c-rule t0", "chance", "kept", 'role="img"', 'aria-label="all"'):
        assert part in chart


def test_a_histogram_has_a_bar_per_filled_bin_and_labels_every_edge() -> None:
    bins = [(0.0, 1.0, 0.0), (1.0, 5.0, 10.0), (5.0, None, 2.0)]
    chart = parse(charts.histogram("h", bins, x_label="ms", y_label="n", rules=[Rule(3, "budget"), Rule(9, "far")]))
    heights = [float(bar.get("height", "0")) for bar in chart.iter("rect")]
    assert len(heights) == 2
    assert heights[0] == pytest.approx(5 * heights[1], rel=0.02)
    assert {"0", "1", "5", "∞", "budget"} <= {t.text for t in chart.iter("text")}


def test_a_histogram_without_bins_is_an_empty_frame() -> None:
    parse(charts.histogram("none", [], x_label="ms", y_label="n", rules=[]))


def test_a_rule_lies_within_its_bin() -> None:
    bins = [(0.0, 10.0, 1.0), (10.0, 20.0, 1.0)]
    chart = parse(charts.histogram("h", bins, x_label="", y_label="", rules=[Rule(15, "r"), Rule(99, "beyond")]))
    xs = [
        float(re.match(r"M([\d.]+)", p.get("d", "")).group(1))
        for p in chart.iter("path")
        if "c-rule" in p.get("class", "")
    ]  # type: ignore[union-attr]
    first, second = (float(bar.get("x", "0")) for bar in chart.iter("rect"))
    width = second - first
    assert xs[0] == pytest.approx(second + width / 2, abs=1.5)
    assert xs[1] == pytest.approx(second + width, abs=1.5)


def test_a_sparkline_shows_eval_over_train_on_one_scale() -> None:
    spark = parse(charts.spark([0.5, 0.5], [1.0, 0.0], width=100, height=20))
    fill, line = spark.iter("path")
    assert "v-9h49v9z" in fill.get("d", "")  # half of the 18 pixels that the share 1.0 takes
    assert line.get("d") == "M0 2H50V20H100"


def test_a_sparkline_of_nothing_is_nothing() -> None:
    assert charts.spark([]) == ""
    assert charts.spark([0, 0]) == ""


def test_what_misses_its_limit_differs_in_shape_not_only_in_colour() -> None:
    good, bad = (charts.whisker(0.5, 0.4, 0.6, (0, 1), state=state) for state in ("", "bad"))
    assert "a4.5" in good
    assert "a4.5" not in bad
    assert "w-bad" in bad


def test_a_whisker_stays_in_its_picture() -> None:
    drawn = parse(charts.whisker(5, -5, 9, (0, 1), reference=2, limits=[-1], width=100))
    xs = [float(x) for path in drawn.iter("path") for x in re.findall(r"[MH](-?[\d.]+)", path.get("d", ""))]
    assert all(0 <= x <= 100 for x in xs)
    assert "w-line" not in charts.whisker(0.5, None, None, (0, 1))


def test_a_timeline_never_leaves_its_track_and_a_short_task_stays_visible() -> None:
    work = list(parse(charts.timeline(9.999, 0.001, 10.0)).iter("rect"))[1]
    assert float(work.get("width", "0").rstrip("%")) >= 0.4
    assert float(work.get("x", "0").rstrip("%")) <= 99.6
    parse(charts.timeline(0, 0, 0))


def test_names_in_charts_are_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    chart = charts.lines(evil, [Series(evil, [(0, 1), (1, 2)])], x_label=evil, y_label=evil, rules=[Rule(1, evil)])
    assert "<script" not in chart
    parse(chart)


def test_thinning_keeps_the_ends() -> None:
    points = [(float(i), 0.0) for i in range(1000)]
    thin = charts.thinned(points, 50)
    assert (len(thin), thin[0], thin[-1]) == (50, points[0], points[-1])
    assert charts.thinned(points[:10], 50) == points[:10]
