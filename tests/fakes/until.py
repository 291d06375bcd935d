"""Waiting for what no event tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

DEADLINE_S = 10.0


async def until(happens: Callable[[], bool], what: str = "it") -> None:
    """Look again and again, the loop running meanwhile; fails after 10 s."""
    deadline = time.monotonic() + DEADLINE_S
    while not happens():
        assert time.monotonic() < deadline, f"{what} does not happen"
        await asyncio.sleep(0.003)
