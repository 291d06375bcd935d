"""A timer that can be started, restarted and stopped; a thin name for `loop.call_later`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """Loop thread. The callback runs once a start."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        self.stop()
        self._handle = asyncio.get_running_loop().call_later(seconds, self._fire)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        self._callback()
