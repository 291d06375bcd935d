"""Live events over Redis' publish and subscribe: a channel a tenant.

Owns that they go out in order, and that nothing goes out to a tenant whom nobody hears: `PUBLISH` says how many listen,
and where nobody does, one event a second asks again. Nothing is kept: whoever hears them notices what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from sipserver.bus.chain import Chain
from sipserver.bus.contract import Heard
from sipserver.bus.link import Link
from sipserver.bus.redis_commands import RedisCommands
from sipserver.errors import BusDown
from sipserver.journal import Entry

MUTE_S = 1.0
WAITING = 5_000
"""Events that wait for Redis; further ones are left out."""
AT_ONCE = 200
"""Events in one message at most."""


class RedisLive:
    """`open` and `close` with the bus."""

    def __init__(self, link: Link, commands: RedisCommands) -> None:
        self._link, self._commands, self._chain = link, commands, Chain()
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._muted: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._sender = asyncio.create_task(self._send(), name="live events")

    async def close(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)

    def tell(self, entry: Entry) -> None:
        link = self._chain.link(entry)
        if link is None or len(self._waiting) >= WAITING:
            return
        tenant, before_us = link
        if (until := self._muted.get(tenant)) is not None:
            if time.monotonic() < until:
                return
            del self._muted[tenant]
        self._waiting.append((tenant, b"%d " % before_us + entry.encode()))
        self._wake.set()

    async def hear(self, tenant: str, heard: Heard) -> _Hearing:
        def take(payload: bytes) -> None:
            for line in payload.splitlines():
                before, _, told = line.partition(b" ")
                heard(Entry.decode(told), int(before))

        channel = _channel(tenant)
        await self._commands.listen(channel, take)
        return _Hearing(lambda: self._commands.unlisten(channel))

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                tenant, lines = self._next()
                if time.monotonic() < self._muted.get(tenant, 0.0):
                    continue
                try:
                    if not await self._link.do(self._publish(_channel(tenant), b"\n".join(lines))):
                        self._muted[tenant] = time.monotonic() + MUTE_S
                except BusDown:
                    self._waiting.clear()

    def _next(self) -> tuple[str, list[bytes]]:
        """The oldest, and what follows it of the same tenant."""
        tenant, line = self._waiting.popleft()
        lines = [line]
        while self._waiting and self._waiting[0][0] == tenant and len(lines) < AT_ONCE:
            lines.append(self._waiting.popleft()[1])
        return tenant, lines

    def _publish(self, channel: str, payload: bytes) -> Callable[[Redis], Awaitable[Any]]:
        return lambda redis: redis.publish(self._link.key(channel), payload)


def _channel(tenant: str) -> str:
    return f"live:{tenant}"


@dataclass(frozen=True)
class _Hearing:
    end: Callable[[], Awaitable[None]]

    async def close(self) -> None:
        await self.end()
