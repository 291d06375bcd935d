"""A caller of a carrier who goes on talking until they have heard enough.

What is said before the dialplan has come to listen comes back to nobody, and how much that is the machine decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from tools.conformance.kit import PATIENCE_S

LONGEST_S = round(PATIENCE_S)


@asynccontextmanager
async def talking(talk: Callable[[bytes], Coroutine[Any, Any, None]], second: bytes) -> AsyncIterator[bytes]:
    """Say a second of sound over and over for the length of the block; the value is all that there is to say."""
    words = second * LONGEST_S
    caller = asyncio.create_task(talk(words), name="caller")
    try:
        yield words
    finally:
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
