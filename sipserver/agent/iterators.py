"""Async iterators with a deadline and a certain end. Small helpers shared by the provider chains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

Item = TypeVar("Item")


async def next_within(iterator: AsyncIterator[Item], timeout_s: float) -> Item | None:
    """The next item, None at the end. Raises TimeoutError; the iterator is then unusable but for closing."""
    async with asyncio.timeout(timeout_s):
        try:
            return await anext(iterator)
        except StopAsyncIteration:
            return None


@asynccontextmanager
async def closing(iterator: AsyncIterator[Item]) -> AsyncIterator[AsyncIterator[Item]]:
    """Close the iterator on the way out, if it can be closed (generators and streams can)."""
    try:
        yield iterator
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
