"""When an endpoint is held because its receiver is away, and when it is tried again. Pure.

A receiver that does not answer, or fails again and again, is one trouble and not one for each message: after HOLD_AFTER
such failures in a row its messages wait, their own schedule with them, and a single one at a time asks whether it is
back. What fails for the message's sake (a 400) is the schedule's alone.
"""

from __future__ import annotations

from sipserver.webhooks.schedule import JITTER, RETRY_AFTER_MOST_S

HOLD_AFTER = 5
PROBES_S = (5, 15, 30, 60, 120, 300, 600)
"""Until the first attempt, the second, ... of those that find out; the last pause repeats."""


def is_away(status: int | None) -> bool:
    """Whether an answer, or that there was none (None), speaks of the receiver rather than of the message."""
    return status is None or status in (408, 429) or status >= 500


def pause_s(failures: int, chance: float, asked_s: float = 0) -> float | None:
    """Seconds until a held endpoint is tried next; None: it is not held.

    failures: in a row, HOLD_AFTER of them open the hold. chance: 0 to 1, by lot. asked_s: by Retry-After.
    """
    if failures < HOLD_AFTER:
        return None
    pause = PROBES_S[min(failures - HOLD_AFTER, len(PROBES_S) - 1)] * (1 + JITTER * (2 * chance - 1))
    return max(pause, min(asked_s, RETRY_AFTER_MOST_S))
