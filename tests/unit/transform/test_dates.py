"""The calendar in TensorFlow against Python's."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.transform.dates import civil_from_days, cycles, days_from_civil, parse_iso8601

EPOCH = date(1970, 1, 1).toordinal()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dates(), min_size=1, max_size=50))
def test_days_and_dates_are_each_others_inverse(dates):
    year, month, day = (tf.constant([getattr(d, part) for d in dates], tf.int64) for part in ("year", "month", "day"))
    days = days_from_civil(year, month, day)
    assert days.numpy().tolist() == [d.toordinal() - EPOCH for d in dates]
    for found, expected in zip(civil_from_days(days), (year, month, day), strict=True):
        assert found.numpy().tolist() == expected.numpy().tolist()


zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=zones), min_size=1, max_size=20))
def test_iso_8601_is_read_as_python_reads_it(moments):
    expected = [m.replace(microsecond=0).timestamp() for m in moments]
    assert parse_iso8601(tf.constant([m.isoformat() for m in moments])).numpy().tolist() == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400),
        ("1970-01-01 01:00", 3_600),
        ("1970-01-01T00:00:01.999Z", 1),
        (" 1970-01-01T00:00:00+0100 ", -3_600),
        ("1970-01-01T00:00:00-01", 3_600),
    ],
)
def test_the_other_forms_of_iso_8601(text, seconds):
    assert parse_iso8601(tf.constant([text])).numpy().tolist() == [seconds]


@pytest.mark.parametrize(
    "text", ["", "1970", "1970-13-01", "1970-01-32", "1970-01-01T25:00", "01/02/1970", "1970-01-01x"]
)
def test_anything_else_is_no_date(text):
    assert np.isnan(parse_iso8601(tf.constant([text])).numpy()).all()


def test_cycles_are_fractions_of_the_day_the_week_the_month_and_the_year():
    moment = datetime(2024, 12, 31, 18, 0, tzinfo=UTC)  # a Tuesday, the 366th day
    parts = ("hour", "weekday", "day", "month", "year_day")
    found = [float(c[0]) for c in cycles(tf.constant([moment.timestamp()], tf.float64), parts)]
    assert found == pytest.approx([0.75, 1 / 7, 30 / 31, 11 / 12, 365 / 366])
