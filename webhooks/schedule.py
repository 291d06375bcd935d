"""When a message is tried again, and when it is given up. Pure.

A receiver that is away for a weekend loses nothing: eleven attempts in about three days. Messages of one call wait for
one another, so those behind one that was given up are old when their turn comes: each of them is then tried EAGER times
within a quarter of an hour, and not for three days more.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import accumulate

MINUTE_S = 60
HOUR_S = 3600
PAUSES_S = (
    *(5, 30, 2 * MINUTE_S, 10 * MINUTE_S),
    *(HOUR_S, 3 * HOUR_S, 8 * HOUR_S, 12 * HOUR_S, 24 * HOUR_S, 24 * HOUR_S),
)
"""After the first, second, ... attempt that failed."""
TOTAL_S = tuple(accumulate(PAUSES_S))[-1]
EAGER = 5
"""Attempts that every message gets, however old it is."""
JITTER = 0.15
"""Pauses differ by so much of their length, so that what failed together does not come back together."""
RETRY_AFTER_MOST_S = 6 * HOUR_S
"""A receiver may put us off for so long."""


def pause_s(failed: int, waited_s: float, chance: float, asked_s: float = 0) -> float | None:
    """Seconds until the next attempt; None: there is none.

    failed: attempts so far, 1 or more. waited_s: since the message was put into the queue. chance: 0 to 1, by lot.
    asked_s: by Retry-After; it lengthens the pause and never shortens it: the attempts would be used up in no time.
    """
    if failed > len(PAUSES_S) or (failed >= EAGER and waited_s >= TOTAL_S):
        return None
    pause = PAUSES_S[failed - 1] * (1 + JITTER * (2 * chance - 1))
    return max(pause, min(asked_s, RETRY_AFTER_MOST_S))


def retry_after_s(status: int | None, headers: Mapping[str, str], now: datetime) -> float:
    """What a 429 or 503 asks for: seconds or a date (RFC 9110, 10.2.3). 0: nothing that can be read."""
    value = headers.get("Retry-After", "").strip()
    if status not in (429, 503) or not value:
        return 0
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now) / timedelta(seconds=1))
    except (ValueError, TypeError, OverflowError):
        return 0
