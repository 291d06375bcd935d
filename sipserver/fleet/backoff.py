"""What follows a crash: how long to wait, and when to call somebody. Pure; the caller brings the time."""

from __future__ import annotations

from collections import deque

MOST_DOUBLINGS = 32


class Backoff:
    """The pauses of one place in the fleet. The first crash after a stable life costs none; every further one doubles
    the pause from first_s to most_s. A life is stable when it lasted stable_s.
    """

    def __init__(self, first_s: float, most_s: float, stable_s: float) -> None:
        self._first_s, self._most_s, self._stable_s = first_s, most_s, stable_s
        self._crashes = 0

    def after(self, lived_s: float) -> float:
        """Seconds to wait before the next start, given how long the one that crashed had lived."""
        if lived_s >= self._stable_s:
            self._crashes = 0
        self._crashes += 1
        if self._crashes == 1:
            return 0.0
        doublings = min(self._crashes - 2, MOST_DOUBLINGS)
        return float(min(self._first_s * 2**doublings, self._most_s))


class CrashRate:
    """Crashes of one kind of process, wherever in the fleet: `alarming` from `most` within `within_s` on, until
    fewer are left in that time."""

    def __init__(self, most: int, within_s: float) -> None:
        self._most, self._within_s = most, within_s
        self._times: deque[float] = deque(maxlen=most)

    def crashed(self, now_s: float) -> None:
        self._times.append(now_s)

    def alarming(self, now_s: float) -> bool:
        while self._times and now_s - self._times[0] > self._within_s:
            self._times.popleft()
        return len(self._times) >= self._most
