"""Numbers on the page are written for people."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.report import formats, titles

T = formats.THIN


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (-math.inf, "\u2212∞"),
        (0.87123, "0.871"),
        (0.9996, "1.00"),
        (1.0, "1"),
        (41.37, "41.4"),
        (1_234_567, f"1{T}230{T}000"),
        (-0.0571, "\u22120.0571"),
        (0.0000123, "1.23×10⁻⁵"),
        (6.02e23, "6.02×10²³"),
        (99_999_999_999.0, "1.00×10¹¹"),
    ],
)
def test_a_number_has_three_significant_digits(value: float | None, text: str) -> None:
    assert formats.number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-300, max_value=1e300))
def test_a_number_is_never_further_from_its_text_than_half_a_unit_of_the_third_digit(value: float) -> None:
    text = formats.number(value).replace(T, "")
    mantissa, _, exponent = text.partition("×10")
    powers = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    shown = float(mantissa) * 10.0 ** int(exponent.translate(powers) or 0)
    assert shown == pytest.approx(value, rel=0.0051)


def test_counts_have_thin_separators_and_do_not_break() -> None:
    assert formats.count(1_500_000) == f"1{T}500{T}000"
    assert formats.count(-12_345) == f"\u221212{T}345"
    assert formats.count(None) == formats.count(math.nan) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8, f"80{T}%"), (0.12345, f"12.3{T}%"), (0.00024, f"0.024{T}%"), (0.0, f"0{T}%"), (None, "–")],
)
def test_shares_are_percent(value: float | None, text: str) -> None:
    assert formats.share(value) == text


def test_a_share_that_is_nearly_nothing_or_all_is_not_rounded_to_it() -> None:
    assert formats.share(1e-7).startswith("<")
    assert formats.share(1 - 1e-7).startswith(">")
    assert formats.share(1.0) == f"100{T}%"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, f"0{T}s"),
        (0.0001, f"<{T}1{T}ms"),
        (0.085, f"85{T}ms"),
        (12.34, f"12.3{T}s"),
        (59.97, f"1{T}min"),
        (123, f"2{T}min 3{T}s"),
        (3600, f"1{T}h"),
        (3720, f"1{T}h 2{T}min"),
        (None, "–"),
    ],
)
def test_durations_have_the_unit_that_fits(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


def test_other_units_and_words() -> None:
    assert formats.milliseconds(9.814) == f"9.81{T}ms"
    assert formats.milliseconds(None) == "–"
    assert formats.megabytes(512.3) == f"512{T}MB"
    assert formats.megabytes(1460) == f"1.46{T}GB"
    assert formats.megabytes(None) == "–"
    assert formats.interval(0.8423, 0.8612) == "0.842 to 0.861"
    assert formats.interval(None, 0.9) == ""
    assert formats.signed(0.0057) == "+0.0057"
    assert formats.signed(-0.0057) == "\u22120.0057"
    assert formats.plural(1, "check") == "1 check"
    assert formats.plural(2, "anomaly", "anomalies") == "2 anomalies"


def test_long_text_loses_its_middle_and_short_text_nothing() -> None:
    assert formats.shortened("a" * 80) == "a" * 80
    cut = formats.shortened("head" + "x" * 500 + "tail", 40)
    assert len(cut) == 40
    assert cut.startswith("head")
    assert cut.endswith("tail")


def test_backticks_become_code_and_everything_else_is_escaped() -> None:
    assert formats.prose("set `a<b` to <i>") == "set <code>a&lt;b</code> to &lt;i&gt;"
    assert formats.prose("a lone ` is <kept>") == "a lone ` is &lt;kept&gt;"


def test_metrics_and_checks_have_the_names_of_the_field() -> None:
    assert titles.metric("pr_auc") == "PR AUC"
    assert titles.metric("recall[setosa]") == "Recall of setosa"
    assert titles.metric("my_own_metric") == "My own metric"
    assert titles.check("auc.better_than_baseline") == "AUC, better than baseline"
    assert titles.check("equal_opportunity_gap[race,sex]") == "Equal opportunity gap over race and sex"
    assert titles.limit(">= 0.9") == "≥ 0.9"
    assert titles.measure("l_infinity") == "L-infinity"
    assert sorted(["test", "other", "train", "eval"], key=titles.split_order) == ["train", "eval", "test", "other"]
    assert sorted(["zzz", "log_loss", "auc"], key=titles.metric_order) == ["auc", "log_loss", "zzz"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (0.00002, f"<{T}0.0001"), (0.00231, "0.0023"), (12.3, "12.30"), (1234.5, f"1{T}234.50")],
)
def test_money_is_told_to_the_cent_or_to_two_digits(value: float | None, text: str) -> None:
    assert formats.money(value) == text
