"""Moments in time, parsed and taken apart inside the TensorFlow graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import tensorflow as tf

from tidemill.features import Date
from tidemill.transform.columns import dense, numbers

_DAY_S: Final = 86_400
_MAX_S: Final = 1e13  # some 300,000 years; what lies beyond is no date, and would overflow the calendar's integers

# Fractions of a second are read over: no part is finer than an hour. An offset from UTC is applied.
_ISO_8601: Final = (
    r"\s*(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"(?:[Tt ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d|60)(?:[.,]\d+)?)?)?"
    r"\s*(?:[Zz]|([+-])([01]\d|2[0-3])(?::?([0-5]\d))?)?\s*"
)
_FIELDS: Final = ",".join(rf"\{i}" for i in range(1, 10))


def date_parts(column: tf.SparseTensor, feature: Date) -> tf.Tensor:
    """Returns the cyclic parts of a date as float32 [batch, 2 · parts]: sine and cosine of each part in turn.

    A missing or unreadable date is (0, 0), the centre of the circle, for every part. Times are in UTC.
    """
    if feature.format == "iso8601":
        return _circles(parse_iso8601(dense(column, "")), feature.parts)
    return _circles(numbers(column) / (1000.0 if feature.format == "epoch_ms" else 1.0), feature.parts)


@tf.function(autograph=False)  # as is the parser: tf.Transform traces all five times, but these functions only once
def _circles(seconds: tf.Tensor, parts: tuple[str, ...]) -> tf.Tensor:
    known = tf.math.is_finite(seconds) & (tf.abs(seconds) < _MAX_S)
    angles = 2 * math.pi * tf.stack(cycles(tf.where(known, seconds, 0.0), parts), axis=1)
    both = tf.reshape(tf.stack([tf.sin(angles), tf.cos(angles)], axis=2), [-1, 2 * len(parts)])
    return tf.cast(tf.where(known[:, tf.newaxis], both, 0.0), tf.float32)


@tf.function(autograph=False)
def parse_iso8601(texts: tf.Tensor) -> tf.Tensor:
    """Turns strings [batch] into seconds since the epoch, float64 [batch]; NaN where the text is no date."""
    valid = tf.strings.regex_full_match(texts, _ISO_8601)
    listed = tf.strings.regex_replace(tf.where(valid, texts, "1970-01-01"), _ISO_8601, _FIELDS)
    fields = tf.strings.split(listed, ",").to_tensor("", shape=[None, 9])
    # The zero in front makes a number of a field that isn't there.
    year, month, day, hour, minute, second, _, off_hour, off_minute = tf.unstack(
        tf.strings.to_number(tf.strings.join(["0", tf.where(_sign_column(), "", fields)]), tf.int64), axis=1
    )
    sign = tf.where(fields[:, 6] == "-", tf.constant(-1, tf.int64), tf.constant(1, tf.int64))
    minutes = (hour - sign * off_hour) * 60 + minute - sign * off_minute
    seconds = days_from_civil(year, month, day) * _DAY_S + minutes * 60 + second
    return tf.where(valid, tf.cast(seconds, tf.float64), tf.constant(np.nan, tf.float64))


def _sign_column() -> tf.Tensor:
    return tf.constant([[i == 6 for i in range(9)]])


def cycles(seconds: tf.Tensor, parts: Sequence[str]) -> list[tf.Tensor]:
    """Returns where in its cycle each part is, as float64 [batch] in [0, 1).

    Args:
        seconds: since the epoch, float64 [batch], all finite.
        parts: hour (the time of day), weekday (from Monday), day (of the month), month, year_day.
    """
    days = tf.cast(tf.floor(seconds / _DAY_S), tf.int64)
    year, month, day = civil_from_days(days)
    one = tf.ones_like(year)
    found = {
        "hour": tf.math.floormod(seconds, _DAY_S) / _DAY_S,
        "weekday": tf.cast(tf.math.floormod(days + 3, 7), tf.float64) / 7,  # the epoch was a Thursday
        "day": tf.cast(day - 1, tf.float64) / 31,
        "month": tf.cast(month - 1, tf.float64) / 12,
        "year_day": tf.cast(days - days_from_civil(year, one, one), tf.float64) / 366,
    }
    return [found[part] for part in parts]


def days_from_civil(year: tf.Tensor, month: tf.Tensor, day: tf.Tensor) -> tf.Tensor:
    """Days since the epoch of a date of the proleptic Gregorian calendar (int64).

    Years are counted from 1 March, so that the leap day is the last of its year.
    """
    year = tf.where(month <= 2, year - 1, year)
    day_of_year = (153 * tf.math.floormod(month + 9, 12) + 2) // 5 + day - 1
    return 365 * year + year // 4 - year // 100 + year // 400 + day_of_year - 719_468


def civil_from_days(days: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Year, month (from 1) and day (from 1) of days since the epoch (int64)."""
    days = days + 719_468
    era = days // 146_097
    day_of_era = days - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = tf.math.floormod(month_from_march + 2, 12) + 1
    return tf.where(month <= 2, year_of_era + 1, year_of_era) + era * 400, month, day
