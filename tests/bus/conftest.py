"""Buses of several runs that see each other, on both backends."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from sipserver.bus import table
from sipserver.bus.contract import Bus
from sipserver.bus.memory import Hub, MemoryBus
from sipserver.bus.settings import BusSettings
from tests.servers.redis import RedisServer

MakeBus = Callable[..., Bus]


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 10) -> None:
    """Ask again and again until it holds."""
    async with asyncio.timeout(timeout_s):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests of a module that do not harm it; prefixes keep them apart."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), appendonly=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "redis"])
async def make_bus(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[MakeBus]:
    """`make_bus(run, node="one")`: a bus of that run, not yet open; closed after the test."""
    made: list[Bus] = []
    hub = Hub()
    settings = BusSettings(url=redis_server.url, prefix=uuid.uuid4().hex, spool=tmp_path / "spool")

    def make(run: str, node: str = "one") -> Bus:
        if request.param == "memory":
            made.append(MemoryBus(node=node, run=run, hub=hub))
        else:
            made.append(table.make(settings, node=node, run=run))
        return made[-1]

    yield make
    for bus in made:
        await bus.close()
