"""Digits that nobody collects: typed into a conversation, they are the caller's turn once no further one comes."""

from __future__ import annotations

from collections.abc import Callable

from sipserver.agent.timer import Timer

PAUSE_S = 1.5
MAX_DIGITS = 64


class Keypad:
    """Loop thread. `typed` is called with all digits after the last one. Digits beyond 64 are dropped."""

    def __init__(self, typed: Callable[[str], None]) -> None:
        self._typed = typed
        self._digits = ""
        self._pause = Timer(self._over)

    def press(self, digit: str) -> None:
        self._digits = (self._digits + digit)[:MAX_DIGITS]
        self._pause.start(PAUSE_S)

    def stop(self) -> None:
        self._digits = ""
        self._pause.stop()

    def _over(self) -> None:
        digits, self._digits = self._digits, ""
        self._typed(digits)
