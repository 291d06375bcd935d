"""What may happen once only, e.g. the use of a token: who was first, among those who share a memory. `redis_once` knows
it of processes."""

from __future__ import annotations

import time
from collections.abc import Callable

_SWEEP_S = 60.0


class MemoryOnce:
    """For one process, or for several buses of one hub. Forgets what is over. Loop thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._sweep_at_s = 0.0

    async def first(self, key: str, within_s: float) -> bool:
        """See `contract.Once`."""
        now_s = self._clock()
        if now_s >= self._sweep_at_s:
            self._until = {each: until_s for each, until_s in self._until.items() if until_s > now_s}
            self._sweep_at_s = now_s + _SWEEP_S
        if self._until.get(key, 0.0) > now_s:
            return False
        self._until[key] = now_s + within_s
        return True
