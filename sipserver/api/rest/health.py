"""Whether the server is up, for whoever watches it from outside: no key, and nothing about tenants.

Owns the words, and that strangers who ask often do not wear out the database. Refuses to know what is looked at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from sipserver.api.rest.models import Given

FRESH_S = 1.0


class Health(Given):
    """takes_calls: whether a call would be answered now. database and bus: whether they can be reached; calls go on
    without them."""

    status: str
    takes_calls: bool
    database: bool
    bus: bool


class Looks:
    """Loop thread. database: asks it, in bounded time; answers are told again for FRESH_S."""

    def __init__(
        self, takes_calls: Callable[[], bool], database: Callable[[], Awaitable[bool]], bus: Callable[[], bool]
    ) -> None:
        self._takes_calls, self._database, self._bus = takes_calls, database, bus
        self._turn = asyncio.Lock()
        self._seen: tuple[float, bool] | None = None

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/health", self._health)]

    async def _health(self, _request: web.Request) -> web.Response:
        """503 exactly when no calls are taken."""
        takes, bus, database = self._takes_calls(), self._bus(), await self._reached()
        status = "down" if not takes else "ok" if bus and database else "degraded"
        told = Health(status=status, takes_calls=takes, database=database, bus=bus)
        headers = {"Cache-Control": "no-store"}
        return web.json_response(told.model_dump(), status=200 if takes else 503, headers=headers)

    async def _reached(self) -> bool:
        async with self._turn:
            if self._seen is None or time.monotonic() - self._seen[0] >= FRESH_S:
                reached = await self._database()
                self._seen = (time.monotonic(), reached)
            return self._seen[1]
