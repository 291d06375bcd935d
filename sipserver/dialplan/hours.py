"""`hours` of a route: `weekdays`, `weekends`, `always`, `mon-fri 09:00-17:00`, `sat,sun`, `22:00-06:00`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WORDS = {"always": range(7), "weekdays": range(5), "weekends": range(5, 7)}
_TIMES = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """days: 0 is Monday. first, last: minutes of the day, the last one excluded; last <= first goes past midnight."""

    days: frozenset[int]
    first: int = 0
    last: int = _DAY_MINUTES

    def open_at(self, local: datetime) -> bool:
        """Whether a local time lies inside. What goes past midnight belongs to the day on which it began."""
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.first < self.last:
            return day in self.days and self.first <= minute < self.last
        return (day in self.days and minute >= self.first) or ((day - 1) % 7 in self.days and minute < self.last)


@lru_cache(maxsize=1024)
def parse(text: str) -> Hours:
    """Raises ValueError with a reason that shows the forms that are understood."""
    words = text.lower().split()
    times = words.pop() if words and ":" in words[-1] else ""
    if len(words) > 1 or not (words or times):
        raise ValueError(f"`{text}` is no hours: write `weekdays`, `weekends`, `always` or `mon-fri 09:00-17:00`")
    days = _days(words[0]) if words else frozenset(range(7))
    return Hours(days, *_times(times)) if times else Hours(days)


def _days(text: str) -> frozenset[int]:
    if text in _WORDS:
        return frozenset(_WORDS[text])
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        for name in (first, last) if dash else (first,):
            if name not in DAYS:
                raise ValueError(f"`{name}` is no day: write {', '.join(DAYS)}, `weekdays`, `weekends` or `always`")
        start = DAYS.index(first)
        count = (DAYS.index(last) - start) % 7 + 1 if dash else 1
        days |= {(start + offset) % 7 for offset in range(count)}
    return frozenset(days)


def _times(text: str) -> tuple[int, int]:
    match = _TIMES.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is no time span: write `09:00-17:00`")
    first_hour, first_minute, last_hour, last_minute = map(int, match.groups())
    first, last = first_hour * 60 + first_minute, last_hour * 60 + last_minute
    if first_minute > 59 or last_minute > 59 or first >= _DAY_MINUTES or last > _DAY_MINUTES:
        raise ValueError(f"`{text}` is no time span: hours go from 00:00 to 24:00")
    if first == last:
        raise ValueError(f"`{text}` is empty; leave the times out for the whole day")
    return first, last
