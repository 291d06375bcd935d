"""Two machines of a fleet in one process: `one` has recordings, `two` is asked for them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from sipserver.api.rest.problems import as_problems
from sipserver.api.sounds.fetching import Fetching
from sipserver.api.sounds.giving import Giving
from sipserver.api.sounds.here import Sounds
from sipserver.api.sounds.tickets import Sound
from sipserver.bus.memory import Hub, MemoryBus
from tests.calls.test_sealed_file import RING
from tests.harness.web import Site, serving

CALL = "0190c2f4-0000-7000-8000-000000000001"


@dataclass(frozen=True, slots=True)
class Machines:
    """folder: of one's recordings. two, site: who asks, and a server on which `GET /{name}` is such a recording."""

    folder: Path
    one: Giving
    two: Fetching
    bus: MemoryBus
    site: Site

    @property
    def door(self) -> str:
        return f"http://127.0.0.1:{self.one.port}"

    def sound(self, name: str, *, node: str = "one", whole: bool = True) -> Sound:
        return Sound(node, "acme", CALL, str(self.folder / name), whole)


@asynccontextmanager
async def machines(folder: Path) -> AsyncIterator[Machines]:
    recordings = folder / "recordings"
    recordings.mkdir()
    hub = Hub()
    here, there = MemoryBus(node="one", run="g1", hub=hub), MemoryBus(node="two", run="g2", hub=hub)
    async with contextlib.AsyncExitStack() as stack:
        for bus in (here, there):
            await bus.open()
            stack.push_async_callback(bus.close)
        one = Giving(Sounds(recordings, RING), here.leases, node="one", run="g1", host="127.0.0.1", port=0)
        await one.start()
        stack.push_async_callback(one.stop)
        two = Fetching(there.leases, node="two")
        stack.push_async_callback(two.close)

        async def get(request: web.Request) -> web.StreamResponse:
            path = str(recordings / request.match_info["name"])
            return await two.answer(request, Sound("one", "acme", CALL, path, whole=True))

        async def through(request: web.Request) -> web.StreamResponse:
            return await as_problems(request, get)

        site = await stack.enter_async_context(serving([web.get("/{name}", through)]))
        yield Machines(recordings, one, two, there, site)
