"""Dates of the file and public holidays."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from sipserver.dialplan.calendars import Calendar


def calendar(**keys: Any) -> Calendar:
    return Calendar.model_validate(keys)


@pytest.mark.parametrize(
    ("dates", "day", "found"),
    [
        ("2026-12-24", date(2026, 12, 24), "2026-12-24"),
        ("2026-12-24", date(2027, 12, 24), ""),
        ("12-25", date(2031, 12, 25), "12-25"),
        ("12-25", date(2031, 12, 24), ""),
        ("02-29", date(2028, 2, 29), "02-29"),
        ("02-29", date(2027, 3, 1), ""),
        ("2026-12-24..2026-12-26", date(2026, 12, 24), "2026-12-24..2026-12-26"),
        ("2026-12-24..2026-12-26", date(2026, 12, 26), "2026-12-24..2026-12-26"),
        ("2026-12-24..2026-12-26", date(2026, 12, 27), ""),
        ("2026-12-24 .. 2027-01-06", date(2027, 1, 1), "2026-12-24 .. 2027-01-06"),
        ("12-24..01-02", date(2026, 12, 31), "12-24..01-02"),
        ("12-24..01-02", date(2027, 1, 2), "12-24..01-02"),
        ("12-24..01-02", date(2027, 1, 3), ""),
        (["01-01", "05-01"], date(2027, 5, 1), "05-01"),
    ],
)
def test_dates_of_the_file(dates: Any, day: date, found: str) -> None:
    assert calendar(dates=dates).found(day) == found


def test_public_holidays_of_a_country_and_of_its_parts() -> None:
    reunification, womens_day, plain = date(2026, 10, 3), date(2026, 3, 8), date(2026, 11, 23)
    germany, berlin = calendar(country="DE"), calendar(country="DE", subdivision="BE")
    assert [bool(germany.found(day)) for day in (reunification, womens_day, plain)] == [True, False, False]
    assert [bool(berlin.found(day)) for day in (reunification, womens_day, plain)] == [True, True, False]
    assert calendar(country="AT").found(date(2027, 10, 26))


def test_dates_and_holidays_together() -> None:
    both = calendar(country="DE", dates="12-24")
    assert both.found(date(2026, 12, 24)) == "12-24"
    assert both.found(date(2026, 12, 25))
    assert not both.found(date(2026, 12, 23))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "needs `dates`, `country` or both"),
        ({"dates": "Christmas"}, "`Christmas` is no date: write `2026-12-24`"),
        ({"dates": "2026-02-29"}, "`2026-02-29`: there is no such day"),
        ({"dates": "02-30"}, "there is no such day"),
        ({"dates": "2026-12-24..12-26"}, "the year on both sides or on none"),
        ({"dates": "2026-12-26..2026-12-24"}, "ends before it begins"),
        ({"country": "de"}, "pattern"),
        ({"country": "QQ"}, "no public holidays are known for the country `QQ`"),
        ({"country": "DE", "subdivision": "Berlin"}, "`Berlin` is no subdivision of DE; known are BB, BE"),
        ({"dates": "12-24", "subdivision": "BE"}, "`subdivision` needs `country`"),
    ],
)
def test_what_is_no_calendar_is_refused(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        calendar(**keys)
    assert reason in str(caught.value)


def test_the_package_of_holidays_is_loaded_only_for_a_country() -> None:
    code = (
        "import sys\n"
        "from sipserver.dialplan.calendars import Calendar\n"
        "Calendar.model_validate({'dates': '12-24'})\n"
        "assert 'holidays' not in sys.modules\n"
        "Calendar.model_validate({'country': 'DE'})\n"
        "assert 'holidays' in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
