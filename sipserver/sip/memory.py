"""Memory that calls have left behind, given back to the system while a cell rests.

PJSIP frees what a call used when its transactions have timed out (32 s, RFC 3261 timer B and J), in pieces that glibc
keeps: about 30 KB a short call, used again by the next calls. One `malloc_trim` returns it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

IDLE_S = 40.0
"""How long a cell has had no call before it is worth while: then the last transaction is over."""


@cache
def _trim() -> Any | None:
    """glibc's; other C libraries have none and need none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Return free memory to the system. Takes a few milliseconds without the GIL; not while a call has media."""
    trim = _trim()
    if trim is not None:
        trim(0)


class Tidy:
    """Calls `give_back` once after each busy time. One thread."""

    def __init__(self, give_back: Callable[[], None] = give_back) -> None:
        self._give_back = give_back
        self._busy_s: float | None = None

    def look(self, now_s: float, calls: int) -> None:
        """Asked now and then. now_s: a monotonic clock. calls: those that live."""
        if calls:
            self._busy_s = now_s
        elif self._busy_s is not None and now_s - self._busy_s >= IDLE_S:
            self._busy_s = None
            self._give_back()
