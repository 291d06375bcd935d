"""A real HTTP server on a free port for a few routes, and a client: what tests of WebSockets need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from sipserver.api.server import errors_as_json


@dataclass(frozen=True, slots=True)
class Site:
    """url: `http://127.0.0.1:PORT`."""

    url: str
    client: aiohttp.ClientSession

    @property
    def ws_url(self) -> str:
        return "ws" + self.url.removeprefix("http")


@asynccontextmanager
async def serving(routes: Sequence[web.RouteDef]) -> AsyncIterator[Site]:
    app = web.Application(middlewares=[errors_as_json])
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as client:
            yield Site(f"http://127.0.0.1:{runner.addresses[0][1]}", client)
    finally:
        await runner.cleanup()
