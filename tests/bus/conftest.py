"""Buses of several runs that see each other, on both backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from sipserver.bus.contract import Bus
from sipserver.bus.memory import Hub, MemoryBus

MakeBus = Callable[..., "Bus"]


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 10) -> None:
    """Ask again and again until it holds."""
    async with asyncio.timeout(timeout_s):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.005)


@pytest.fixture
async def make_bus() -> AsyncIterator[MakeBus]:
    """`make_bus(run, node="one")`: a bus of that run, not yet open; closed after the test."""
    hub, made = Hub(), list[Bus]()

    def make(run: str, node: str = "one") -> Bus:
        made.append(MemoryBus(node=node, run=run, hub=hub))
        return made[-1]

    yield make
    for bus in made:
        await bus.close()
