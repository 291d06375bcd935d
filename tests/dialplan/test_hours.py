"""Opening hours: days, spans, nights."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.dialplan import hours

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def at(day: str, time: str) -> datetime:
    hour, minute = map(int, time.split(":"))
    return MONDAY + timedelta(days=hours.DAYS.index(day), hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("text", "day", "time", "is_open"),
    [
        ("always", "sun", "03:00", True),
        ("weekdays", "fri", "23:59", True),
        ("weekdays", "sat", "00:00", False),
        ("weekends", "sat", "00:00", True),
        ("mon-fri 09:00-17:00", "mon", "09:00", True),
        ("mon-fri 09:00-17:00", "mon", "08:59", False),
        ("mon-fri 09:00-17:00", "fri", "17:00", False),
        ("Mon-Fri 9:00-17:00", "fri", "16:59", True),
        ("fri-mon", "sun", "12:00", True),
        ("fri-mon", "tue", "12:00", False),
        ("mon,wed", "wed", "12:00", True),
        ("mon,wed", "tue", "12:00", False),
        ("08:00-24:00", "sun", "23:59", True),
        ("fri 22:00-06:00", "fri", "23:00", True),
        ("fri 22:00-06:00", "sat", "05:59", True),
        ("fri 22:00-06:00", "sat", "06:00", False),
        ("fri 22:00-06:00", "fri", "05:00", False),
        ("sun 22:00-06:00", "mon", "01:00", True),
    ],
)
def test_hours(text: str, day: str, time: str, is_open: bool) -> None:
    assert hours.parse(text).open_at(at(day, time)) is is_open


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no hours"),
        ("mon - fri 9:00-10:00", "is no hours"),
        ("mun-fri", "`mun` is no day"),
        ("mon-", "`` is no day"),
        ("mon 9-17", "is no hours"),
        ("mon 09:00", "is no time span"),
        ("mon 09:60-10:00", "00:00 to 24:00"),
        ("mon 24:00-25:00", "00:00 to 24:00"),
        ("mon 09:00-09:00", "is empty"),
    ],
)
def test_what_is_no_hours_says_how_to_write_it(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        hours.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_hours_or_a_value_error(text: str) -> None:
    try:
        hours.parse(text).open_at(MONDAY)
    except ValueError as problem:
        assert text.lower() in str(problem) or "`" in str(problem)  # noqa: PT017
