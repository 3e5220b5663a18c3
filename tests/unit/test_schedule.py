from __future__ import annotations

from datetime import UTC, datetime, time

import pytest

from batch_runner.manifest.form import Window
from batch_runner.pacing.window import is_open, next_time

NIGHT = Window(time(22), time(6), "Europe/Madrid")
DAY = Window(time(9), time(17, 30), "Europe/Madrid")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_without_a_window_it_is_always_open() -> None:
    assert is_open(None, utc("2026-03-02T12:00"))


@pytest.mark.parametrize(
    ("moment", "is_inside"),
    [
        ("2026-01-10T07:59:59.999999", False),
        ("2026-01-10T08:00", True),
        ("2026-01-10T16:29:59.999999", True),
        ("2026-01-10T16:30", False),
        ("2026-07-10T07:00", True),  # in summer the same wall clock is an hour earlier in UTC
        ("2026-07-10T15:30", False),
    ],
)
def test_a_window_by_day_is_open_from_its_first_moment_up_to_its_last(
    moment: str, is_inside: bool
) -> None:
    assert is_open(DAY, utc(moment)) is is_inside


@pytest.mark.parametrize(
    ("moment", "is_inside"),
    [
        ("2026-01-10T20:59:59", False),
        ("2026-01-10T21:00", True),
        ("2026-01-10T23:00", True),  # midnight on the wall
        ("2026-01-11T04:59:59", True),
        ("2026-01-11T05:00", False),
    ],
)
def test_a_window_may_cross_midnight(moment: str, is_inside: bool) -> None:
    assert is_open(NIGHT, utc(moment)) is is_inside


@pytest.mark.parametrize(
    ("moment", "is_inside"),
    [
        # 29 March 2026: at 02:00 the clock is put forward to 03:00; the night has seven hours.
        ("2026-03-28T20:59", False),
        ("2026-03-28T21:00", True),
        ("2026-03-29T00:59", True),
        ("2026-03-29T01:00", True),
        ("2026-03-29T03:59", True),
        ("2026-03-29T04:00", False),
        # 25 October 2026: at 03:00 the clock is put back to 02:00; the night has nine hours.
        ("2026-10-24T19:59", False),
        ("2026-10-24T20:00", True),
        ("2026-10-25T00:30", True),
        ("2026-10-25T01:30", True),
        ("2026-10-25T04:59", True),
        ("2026-10-25T05:00", False),
    ],
)
def test_the_clock_on_the_wall_counts_when_it_is_put_forward_or_back(
    moment: str, is_inside: bool
) -> None:
    assert is_open(NIGHT, utc(moment)) is is_inside


@pytest.mark.parametrize(
    ("moment", "is_inside"),
    [
        ("2026-03-29T00:59", False),
        ("2026-03-29T01:00", False),  # 03:00: the hour of the window is left out that night
        ("2026-10-24T23:59", False),
        ("2026-10-25T00:00", True),  # 02:00, for the first time
        ("2026-10-25T00:59", True),
        ("2026-10-25T01:00", True),  # 02:00, for the second time
        ("2026-10-25T01:59", True),
        ("2026-10-25T02:00", False),
    ],
)
def test_an_hour_that_is_skipped_or_repeated_is_so_for_the_window_too(
    moment: str, is_inside: bool
) -> None:
    assert is_open(Window(time(2), time(3), "Europe/Madrid"), utc(moment)) is is_inside


def test_without_a_zone_the_machines_own_clock_counts() -> None:
    moment = utc("2026-01-10T12:00")
    here = moment.astimezone()
    opens = here.time()
    closes = here.replace(minute=here.minute + 1).time()
    assert is_open(Window(opens, closes), moment)
    assert not is_open(Window(closes, opens), moment)


def test_the_same_moment_counts_in_whatever_zone_it_is_given() -> None:
    moment = utc("2026-01-10T22:30").astimezone()
    assert is_open(NIGHT, moment)


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-03-02T12:00+00:00", "2026-03-02T22:00+01:00"),
        ("2026-03-02T21:30+00:00", "2026-03-03T22:00+01:00"),
        ("2026-03-28T21:30+00:00", "2026-03-29T22:00+02:00"),  # the clocks go forward that night
        ("2026-10-24T21:30+00:00", "2026-10-25T22:00+01:00"),  # and back in that one
    ],
)
def test_the_next_opening_is_by_the_clock_on_the_wall(now: str, opens: str) -> None:
    window = Window(time(22), time(6), "Europe/Madrid")
    found = next_time(window.opens, window.timezone, datetime.fromisoformat(now))
    assert found == datetime.fromisoformat(opens)


def test_a_time_that_the_clocks_skip_or_repeat_is_still_one_moment() -> None:
    night = datetime.fromisoformat("2026-03-28T23:00+00:00")
    skipped = next_time(time(2, 30), "Europe/Madrid", night)
    assert skipped.astimezone(UTC) == datetime.fromisoformat("2026-03-29T01:30+00:00")
    night = datetime.fromisoformat("2026-10-24T22:00+00:00")
    first = next_time(time(2, 30), "Europe/Madrid", night)
    assert first.astimezone(UTC) == datetime.fromisoformat("2026-10-25T00:30+00:00")


def test_without_a_zone_the_next_time_is_by_the_machines_own_clock() -> None:
    now = datetime.now(UTC)
    found = next_time(time(12), None, now)
    assert found > now
    assert (found.astimezone().hour, found.astimezone().minute) == (12, 0)
