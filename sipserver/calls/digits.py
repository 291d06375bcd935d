"""The digits that the caller pressed and nobody has asked for yet.

Owns a bounded buffer and the waiting for more. Refuses to know how a digit came (RFC 4733, INFO, tones).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BOUND = 64


class DigitBuffer:
    """Digits in the order they were pressed. Loop thread; one `collect` at a time.

    Overflow: a full buffer drops the new digit and counts it in `dropped`: what was typed first is what was meant.
    """

    def __init__(self, bound: int = BOUND) -> None:
        self._bound = bound
        self._digits: deque[str] = deque()
        self._waiting: set[asyncio.Future[None]] = set()
        self._taker: Callable[[str], None] | None = None
        self._collecting = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._digits)

    def press(self, digit: str) -> None:
        """A digit came (0-9, *, #, A-D)."""
        if self._taker is not None and not self._collecting:
            self._taker(digit)
            return
        if len(self._digits) >= self._bound:
            self.dropped += 1
            return
        self._digits.append(digit)
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    @contextmanager
    def handed_to(self, taker: Callable[[str], None]) -> Iterator[None]:
        """For the length of a `with` block, give new digits that nobody collects to `taker` instead of keeping them.

        Whoever took them before takes them again afterwards.
        """
        before, self._taker = self._taker, taker
        try:
            yield
        finally:
            self._taker = before

    def clear(self) -> None:
        """Forget what was typed ahead."""
        self._digits.clear()

    def pressed(self) -> asyncio.Future[None]:
        """Resolves with the next digit that is kept from now on, which stays in the buffer. Cancel it when done."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    async def collect(
        self, count: int, timeout_s: float, *, terminator: str = "", between_s: float | None = None
    ) -> str:
        """Up to `count` digits, typed ahead ones first; empty when none came within timeout_s.

        between_s: how long to wait for each further digit (timeout_s if absent). The terminator ends it early and is
        not part of the answer. Safe to cancel: the digits taken so far go back to the front of the buffer.
        """
        taken: list[str] = []
        self._collecting = True
        try:
            while len(taken) < count:
                if not self._digits:
                    limit = timeout_s if not taken or between_s is None else between_s
                    async with asyncio.timeout(limit):
                        await self.pressed()
                digit = self._digits.popleft()
                if terminator and digit == terminator:
                    break
                taken.append(digit)
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            self._digits.extendleft(reversed(taken))
            raise
        finally:
            self._collecting = False
        return "".join(taken)
