"""Days that routes ask for by the name of a calendar: dates of the file, and public holidays of a country. Pure.

The public holidays are those of the package `holidays`, which is loaded only where a file names a country.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sipserver.dialplan.agents import Strict, Text
from sipserver.dialplan.globs import Some, listed

_DAY = re.compile(r"(?:(\d{4})-)?(\d{2})-(\d{2})")
_LEAP = 2024
"""A year that has every day."""


@dataclass(frozen=True, slots=True)
class Days:
    """From first to last, both included. yearly: both stand in a leap year, and last < first goes past New Year."""

    first: date
    last: date
    yearly: bool

    def holds(self, day: date) -> bool:
        if not self.yearly:
            return self.first <= day <= self.last
        day = day.replace(year=_LEAP)
        if self.first <= self.last:
            return self.first <= day <= self.last
        return day >= self.first or day <= self.last


@lru_cache(maxsize=4096)
def parse(text: str) -> Days:
    """`2026-12-24`, `12-24` (every year) or two of a kind with `..` between. Raises ValueError with the reason."""
    first_text, dots, last_text = (part.strip() for part in text.partition(".."))
    first, yearly = _day(first_text, text)
    last, also = _day(last_text, text) if dots else (first, yearly)
    if yearly != also:
        raise ValueError(f"`{text}`: write the year on both sides or on none")
    if not yearly and last < first:
        raise ValueError(f"`{text}` ends before it begins")
    return Days(first, last, yearly)


def _day(text: str, whole: str) -> tuple[date, bool]:
    found = _DAY.fullmatch(text)
    if found is None:
        raise ValueError(f"`{whole}` is no date: write `2026-12-24`, `12-24` for every year, or `12-24..12-26`")
    try:
        return date(int(found[1] or _LEAP), int(found[2]), int(found[3])), found[1] is None
    except ValueError:
        raise ValueError(f"`{whole}`: there is no such day") from None


def _dates(text: str) -> str:
    parse(text)
    return text


Dates = Annotated[Text, AfterValidator(_dates)]


class Calendar(Strict):
    """dates: days or spans of days. country: ISO 3166 code, whose public holidays belong to it too. subdivision: ISO
    3166-2 code without the country, such as BE for Berlin; without one, only what is a holiday in the whole country.
    """

    dates: Annotated[tuple[Dates, ...], BeforeValidator(listed, json_schema_input_type=Dates | Some[Dates])] = ()
    country: Text = Field(default="", pattern=r"^([A-Z]{2})?$")
    subdivision: Text = ""

    @model_validator(mode="after")
    def _some_days(self) -> Calendar:
        if self.subdivision and not self.country:
            raise ValueError("`subdivision` needs `country`")
        if not self.dates and not self.country:
            raise ValueError("a calendar needs `dates`, `country` or both")
        if self.country:
            _known(self.country, self.subdivision)
        return self

    def found(self, day: date) -> str:
        """What puts a day into the calendar: the date or span of the file, or the holiday's name; empty if nothing."""
        span = next((text for text in self.dates if parse(text).holds(day)), "")
        if span or not self.country:
            return span
        return str(_holidays(self.country, self.subdivision, day.year).get(day, ""))


def _known(country: str, subdivision: str) -> None:
    from holidays.utils import list_supported_countries  # 13 MB that only files with a country need

    countries = list_supported_countries()
    if country not in countries:
        raise ValueError(f"no public holidays are known for the country `{country}`")
    if subdivision and subdivision not in countries[country]:
        parts = countries[country]
        known = f"known are {', '.join(parts)}" if parts else "it has none"
        raise ValueError(f"`{subdivision}` is no subdivision of {country}; {known}")
    _holidays(country, subdivision, _LEAP)


@lru_cache(maxsize=256)
def _holidays(country: str, subdivision: str, year: int) -> Any:
    from holidays import country_holidays

    return country_holidays(country, subdiv=subdivision or None, years=(year,), expand=False)
