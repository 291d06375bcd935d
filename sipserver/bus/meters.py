"""What is used up within a time, counted in one process's memory.

Owns the counts. Refuses to know what is counted, and processes that share no memory: `redis_meters` counts for those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from sipserver.bus.contract import Draw, Drawn, Full

Kept = TypeVar("Kept")

MOST_SCOPES = 10_000
"""That a process remembers; beyond it those that run out first are forgotten."""


class MemoryMeters:
    """For one process, or for several buses of one hub. Loop thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._scopes: dict[str, tuple[int, float]] = {}
        """By scope: what is used, and until when that matters."""

    async def draw(self, wanted: Mapping[str, Draw]) -> Drawn:
        """See `contract.Meters`."""
        used = {scope: self._used(scope) for scope in wanted}
        for scope, draw in wanted.items():
            if refused(draw, used[scope], draw.limit):
                return Drawn(Full(scope, draw.limit, shared=True), used)
        for scope, draw in wanted.items():
            if draw.amount:
                used[scope] += draw.amount
                self._set(scope, used[scope], draw.lives_s)
        return Drawn(None, used)

    async def put(self, scope: str, used: int, lives_s: float, *, lower: bool = False) -> None:
        """See `contract.Meters`."""
        if lower or used > self._used(scope):
            self._set(scope, used, lives_s)

    def _used(self, scope: str) -> int:
        used, until_s = self._scopes.get(scope, (0, 0.0))
        return used if until_s > self._clock() else 0

    def _set(self, scope: str, used: int, lives_s: float) -> None:
        self._scopes[scope] = used, self._clock() + lives_s
        if len(self._scopes) > MOST_SCOPES:
            now_s = self._clock()
            living = {each: known for each, known in self._scopes.items() if known[1] > now_s}
            self._scopes = living if len(living) <= MOST_SCOPES else without_first(living)


def refused(draw: Draw, used: int, limit: int) -> bool:
    """Whether so much may not be drawn any more."""
    return not draw.always and draw.amount >= 0 and used + max(1, draw.amount) > limit


def without_first(scopes: dict[str, Kept]) -> dict[str, Kept]:
    """Without the tenth that came first."""
    return dict(list(scopes.items())[len(scopes) // 10 :])
