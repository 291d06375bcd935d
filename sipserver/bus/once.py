"""What may happen once only, e.g. the use of a token: who was first, among all processes of a bus."""

from __future__ import annotations

import time
from collections.abc import Callable

from sipserver.bus.link import Link
from sipserver.errors import BusDown

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


class RedisOnce:
    """By SET with NX: one command, so that two cannot both be first."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def first(self, key: str, within_s: float) -> bool:
        """See `contract.Once`."""
        name, lives_ms = self._link.key("once", key), max(1, round(within_s * 1000))
        try:
            return bool(await self._link.do(lambda redis: redis.set(name, b"1", nx=True, px=lives_ms)))
        except BusDown:
            return False
