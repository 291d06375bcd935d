"""What may happen once only: who was first, among all processes, over Redis."""

from __future__ import annotations

from sipserver.bus.link import Link
from sipserver.errors import BusDown


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
