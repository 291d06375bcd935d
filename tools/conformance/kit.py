"""What the kits of all carriers have in common: a stream as its carrier has it, and the report of a check."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

FRAME_S = 0.02
PATIENCE_S = 20.0
MOST_AHEAD_S = 2.0
"""So much sound may wait at the carrier: more of it is heard long after a caller has interrupted."""


@dataclass(kw_only=True)
class CarriersStream:
    """One WebSocket, from the carrier's side. Loop thread. faults: broken rules. events: names of what came, in order.
    played: what the caller heard, silence left out, and when. cleared: how often the buffer was thrown away.
    most_ahead_s: the most sound that waited to be played.
    """

    socket: aiohttp.ClientWebSocketResponse
    faults: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    played: bytearray = field(default_factory=bytearray)
    played_at_s: list[float] = field(default_factory=list)
    cleared: int = 0
    most_ahead_s: float = 0.0
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, true: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until it is so; raises AssertionError with what was seen."""
        try:
            async with asyncio.timeout(timeout_s):
                while not true():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            seen = f"{self._seen()}, {len(self.played)} bytes played"
            raise AssertionError(f"{what} did not come: {seen}; faults {self.faults}") from None

    async def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait until it is closed; the close code."""
        async with asyncio.timeout(timeout_s):
            await self._ended.wait()
        return self.socket.close_code or 0

    def _seen(self) -> str:
        return f"events {self.events[-20:]}"

    def _heard(self, sound: bytes) -> None:
        self.played += sound
        self.played_at_s.append(time.monotonic())
        self._news.set()

    def _over(self) -> None:
        self._ended.set()
        self._news.set()


async def code_after(stream: CarriersStream, timeout_s: float = 5.0) -> int | None:
    """The code with which the server closes; None: it does not."""
    try:
        return await stream.ended(timeout_s)
    except TimeoutError:
        return None


def report(arguments: argparse.ArgumentParser, check: Callable[[argparse.Namespace], Coroutine[Any, Any, Any]]) -> int:
    """Run a check, which gives rule -> what is wrong with it (empty: nothing), and print it; the exit code."""
    arguments.add_argument("--seconds", type=float, default=5.0, help="how long the caller talks")
    found: Mapping[str, str] = asyncio.run(check(arguments.parse_args()))
    for rule, fault in found.items():
        print(f"{'FAIL' if fault else 'ok':4}  {rule}{f': {fault}' if fault else ''}")
    return 1 if any(found.values()) else 0
