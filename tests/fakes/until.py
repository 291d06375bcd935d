"""Waiting for what no event tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

PATIENCE_S = 20.0
"""For what real programs do, on a machine that may be busy."""

T = TypeVar("T")


def wait_until(happens: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Look again and again, blocking; for tests without a loop."""
    deadline = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        time.sleep(0.05)


async def until(happens: Callable[[], bool], what: str = "it") -> None:
    """Look again and again, the loop running meanwhile; fails after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < deadline, f"{what} does not happen"
        await asyncio.sleep(0.003)


async def eventually(look: Callable[[], Awaitable[T]], good: Callable[[T], bool], what: str = "it") -> T:
    """Ask again and again; what was seen once it is good. Fails after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not good(seen := await look()):
        assert time.monotonic() < deadline, f"{what} does not happen: {seen}"
        await asyncio.sleep(0.02)
    return seen
