"""How often somebody may ask: a bucket for each name, into which so much drips a second. Pure but for its clock.

Owns what is left for whom. Refuses to know who asks, and for what.
"""

from __future__ import annotations

from collections.abc import Callable

MOST_NAMES = 10_000
"""Names that are remembered; beyond it those that were quiet longest are forgotten, so that their buckets are full."""


class Buckets:
    """per_s drip in, `most` fit. clock: monotonic seconds."""

    def __init__(self, per_s: float, most: float, clock: Callable[[], float]) -> None:
        self.per_s, self.most, self._clock = per_s, most, clock
        self._left: dict[str, tuple[float, float]] = {}

    def left(self, name: str) -> float:
        """What it may ask for now."""
        left, seen_s = self._left.get(name, (self.most, 0.0))
        return min(self.most, left + (self._clock() - seen_s) * self.per_s)

    def take(self, name: str) -> bool:
        """Whether it may ask once more; if so, that is taken."""
        left = self.left(name)
        allowed = left >= 1
        self._left.pop(name, None)
        self._left[name] = (left - 1 if allowed else left, self._clock())
        if len(self._left) > MOST_NAMES:
            del self._left[next(iter(self._left))]
        return allowed
