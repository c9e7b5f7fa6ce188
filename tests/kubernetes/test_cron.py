"""One form of schedules for people, KFP's for KFP: they mean the same times, or the conversion says that it can't."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import kfp_fake_cron
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.errors import UsageError
from tidemill_pipelines.targets.cron import Cron, from_kfp, parse_cron, shift, to_kfp

BERLIN, TOKYO, DELHI, UTC_ZONE = map(ZoneInfo, ("Europe/Berlin", "Asia/Tokyo", "Asia/Kolkata", "UTC"))
JANUARY = datetime(2026, 1, 1, tzinfo=UTC)


def values(low: int, high: int) -> st.SearchStrategy[frozenset[int]]:
    return st.one_of(
        st.just(frozenset(range(low, high + 1))),
        st.frozensets(st.integers(low, high), min_size=1, max_size=4),
        st.builds(lambda step: frozenset(range(low, high + 1, step)), st.integers(2, 12)),
    )


CRONS = st.builds(
    Cron,
    values(0, 59),
    values(0, 23),
    st.none() | values(1, 28),
    values(1, 12),
    st.none() | values(0, 6),
)


def utc_times(cron: Cron, begin: datetime, end: datetime, zone: ZoneInfo) -> list[datetime]:
    found = []
    for time in cron.times(begin - timedelta(minutes=1), zone):
        if time >= end:
            break
        found.append(time.astimezone(UTC))
    return found


class TestText:
    @settings(deadline=None)
    @given(CRONS)
    def test_what_is_written_is_read_as_it_was_meant(self, cron: Cron) -> None:
        assert parse_cron(str(cron)) == cron
        assert from_kfp(f"0 {cron}") == cron

    @pytest.mark.parametrize(
        ("text", "spelling"),
        [
            ("0 3 * * *", "0 3 * * *"),
            ("*/15  0-23 * JAN-dec MON-FRI", "*/15 * * * 1-5"),
            ("5,1,2,3 4 1,15 * 7", "1-3,5 4 1,15 * 0"),
            ("0 0 * * 5-7", "0 0 * * 0,5,6"),
            ("10/20 1 1-31/10 * *", "10,30,50 1 1,11,21,31 * *"),
            ("0 0 */1 * 0", "0 0 * * 0"),
            ("0 0 */10 * *", "0 0 1,11,21,31 * *"),
        ],
    )
    def test_equal_schedules_are_spelt_alike(self, text: str, spelling: str) -> None:
        assert str(parse_cron(text)) == spelling

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("0 3 * *", r"expected five fields: .* \(got 4\)"),
            ("0 0 3 * * *", "the six of KFP begin with seconds"),
            ("@daily", "expected five fields"),
            ("", "expected five fields"),
            ("60 3 * * *", r"minute: expected 0 to 59 \(got '60'\)"),
            ("0 24 * * *", "hour: expected 0 to 23"),
            ("0 3 0 * *", "day of month: expected 1 to 31"),
            ("0 3 * 13 *", "month: expected 1 to 12 or jan to dec"),
            ("0 3 * * 8", "day of week: expected 0 to 7 or sun to sat"),
            ("0 3 * * mom", "day of week: expected 0 to 7 or sun to sat"),
            ("0 3 ? * *", r"day of month: expected numbers, ranges .* \(got '\?'\)"),
            ("0 3 L * *", "day of month: expected numbers"),
            ("0 3 * * 1#2", "day of week: expected numbers"),
            ("1--2 3 * * *", "minute: expected numbers"),
            ("5-1 3 * * *", "minute: a range must begin before it ends"),
            ("*/0 3 * * *", "minute: a step must be from 1 to 59"),
            (",1 3 * * *", "minute: expected numbers"),
            ("0 3 */2 * 1", "day of month must not be a step over all while the other day is restricted"),
            ("0 3 1 * */2", "day of week must not be a step over all while the other day is restricted"),
            ("0 3 31 2 *", "must have a time that comes"),
        ],
    )
    def test_what_is_none_or_ambiguous_is_refused(self, text: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            parse_cron(text)

    @pytest.mark.parametrize("text", ["30 0 3 * * *", "* * * * * *", "0 3 * * *", "@daily"])
    def test_a_schedule_of_kfps_that_has_no_five_fields_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError):
            from_kfp(text)


class TestKfp:
    def test_five_fields_mean_something_else_to_kfp(self) -> None:
        """The trap: KFP takes `0 3 * * *`, as second 0 of minute 3 of every hour."""
        schedule = kfp_fake_cron.parse("0 3 * * *")
        assert len(list(schedule.times(JANUARY, JANUARY + timedelta(days=1)))) == 24
        meant = kfp_fake_cron.parse(to_kfp(parse_cron("0 3 * * *"), UTC_ZONE, UTC_ZONE, JANUARY, None))
        assert [t.hour for t in meant.times(JANUARY, JANUARY + timedelta(days=2))] == [3, 3]

    @settings(max_examples=60, deadline=None)
    @given(CRONS, st.sampled_from(["UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York"]), st.integers(0, 700))
    def test_in_its_own_zone_every_schedule_fires_when_it_says(self, cron: Cron, zone: str, day: int) -> None:
        begin, there = JANUARY + timedelta(days=day), ZoneInfo(zone)
        end = begin + timedelta(days=2)
        wire = kfp_fake_cron.parse(to_kfp(cron, there, there, begin, end))
        assert list(wire.times(begin, end, zone)) == utc_times(cron, begin, end, there)

    @settings(max_examples=60, deadline=None)
    @given(CRONS, st.sampled_from([TOKYO, DELHI, ZoneInfo("Etc/GMT+11"), BERLIN]), st.integers(0, 700))
    def test_in_another_zone_it_fires_when_it_says_or_is_refused(self, cron: Cron, zone: ZoneInfo, day: int) -> None:
        begin = JANUARY + timedelta(days=day)
        end = begin + timedelta(days=3)
        try:
            text = to_kfp(cron, zone, UTC_ZONE, begin, end)
        except UsageError:
            return
        assert list(kfp_fake_cron.parse(text).times(begin, end)) == utc_times(cron, begin, end, zone)

    @settings(deadline=None)
    @given(CRONS, st.integers(-14 * 60, 14 * 60))
    def test_a_shift_back_undoes_a_shift(self, cron: Cron, minutes: int) -> None:
        try:
            there = shift(cron, minutes)
            back = shift(there, -minutes)
        except ValueError:  # it can't be shifted, and says so
            return
        assert back == cron

    @pytest.mark.parametrize(
        ("text", "zone", "wire"),
        [
            ("0 3 * * *", TOKYO, "0 0 18 * * *"),
            ("0 3 * * 1", TOKYO, "0 0 18 * * 0"),
            ("0 3 15 * *", TOKYO, "0 0 18 14 * *"),
            ("0 3 * * *", DELHI, "0 30 21 * * *"),
            ("15 * * * *", BERLIN, "0 15 * * * *"),
            ("*/30 * * * *", DELHI, "0 0,30 * * * *"),
            ("0 12 1 jan *", TOKYO, "0 0 3 1 1 *"),
        ],
    )
    def test_zones_are_shifted_where_that_is_exact(self, text: str, zone: ZoneInfo, wire: str) -> None:
        assert to_kfp(parse_cron(text), zone, UTC_ZONE, JANUARY, None) == wire

    @pytest.mark.parametrize(
        ("text", "zone", "reason"),
        [
            ("0 3 * * *", BERLIN, "changes with summer time"),
            ("0 3,12 * * 1", TOKYO, "on the day before or after"),
            ("0 3 1 * *", TOKYO, "into another month"),
            ("0 3 * 5 *", TOKYO, "begin on another day"),
            ("0 3 2 5 1", TOKYO, "begin on another day"),
            ("0,30 3 * * *", DELHI, "would not have the same minutes"),
        ],
    )
    def test_what_cannot_be_said_exactly_is_refused_with_the_ways_out(
        self, text: str, zone: ZoneInfo, reason: str
    ) -> None:
        with pytest.raises(UsageError, match=reason) as told:
            to_kfp(parse_cron(text), zone, UTC_ZONE, JANUARY, None)
        assert "cronScheduleTimezone" in str(told.value)
        assert "`kubernetes.cron_time_zone`" in str(told.value)

    def test_summer_time_is_no_obstacle_to_a_schedule_that_ends_before_it(self) -> None:
        end = datetime(2026, 3, 1, tzinfo=UTC)
        assert to_kfp(parse_cron("0 3 * * *"), BERLIN, UTC_ZONE, JANUARY, end) == "0 0 2 * * *"


class TestTimes:
    def test_a_time_that_the_clocks_skip_has_no_run(self) -> None:
        night = datetime(2026, 3, 28, 12, tzinfo=UTC)
        times = parse_cron("30 2 * * *").times(night, BERLIN)
        assert next(times) == datetime(2026, 3, 30, 2, 30, tzinfo=BERLIN)

    def test_a_time_that_they_repeat_has_two(self) -> None:
        night = datetime(2026, 10, 24, 12, tzinfo=UTC)
        times = parse_cron("30 2 * * *").times(night, BERLIN)
        assert [next(times).astimezone(UTC).hour for _ in range(3)] == [0, 1, 1]

    def test_restricted_days_both_count(self) -> None:
        days = [t.day for t in utc_times(parse_cron("0 0 13 * 5"), JANUARY, JANUARY + timedelta(days=31), UTC_ZONE)]
        assert days == [2, 9, 13, 16, 23, 30]
