"""A bounded way in for engines that are not threads: so many at work, so many waiting, the rest refused.

Owns the count and the order (speculative work yields). Loop only. Local models use `work.py` instead.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sipserver.errors import ProviderBusy, ProviderTimeout


class Gate:
    """`at_once` may be inside, `bound` may wait. refused: how many found no room."""

    def __init__(self, engine: str, *, at_once: int, bound: int, timeout_s: float) -> None:
        self.refused = 0
        self._engine, self._free, self._bound, self._timeout_s = engine, at_once, bound, timeout_s
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._speculative: deque[asyncio.Future[None]] = deque()

    @property
    def depth(self) -> int:
        """How many wait."""
        return sum(not turn.done() for line in (self._urgent, self._speculative) for turn in line)

    @asynccontextmanager
    async def passage(self, *, speculative: bool = False) -> AsyncIterator[int]:
        """Wait for a place and hold it; yields the milliseconds waited. Safe to cancel.

        Raises ProviderBusy when too many wait (an urgent one then takes the place of the youngest speculative one), and
        ProviderTimeout after timeout_s in the queue.
        """
        asked_at = time.monotonic()
        if self._free:
            self._free -= 1
        else:
            await self._wait(speculative)
        try:
            yield round((time.monotonic() - asked_at) * 1000)
        finally:
            self._leave()

    async def _wait(self, speculative: bool) -> None:
        if self.depth >= self._bound:
            self.refused += 1
            guesses = [turn for turn in self._speculative if not turn.done()]
            if speculative or not guesses:
                raise ProviderBusy(self._engine, f"{self.depth} requests wait already")
            guesses[-1].set_exception(ProviderBusy(self._engine, "speculative work made room"))
        line = self._speculative if speculative else self._urgent
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except (asyncio.CancelledError, TimeoutError) as problem:
            if turn.done() and not turn.cancelled() and not turn.exception():
                self._leave()
            if isinstance(problem, TimeoutError):
                raise ProviderTimeout(self._engine, f"no place within {self._timeout_s:g} s") from problem
            raise
        finally:
            if turn in line:
                line.remove(turn)

    def _leave(self) -> None:
        """Hand the place to whoever is next."""
        for line in (self._urgent, self._speculative):
            while line:
                turn = line.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1
