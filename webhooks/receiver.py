"""The other end of webhooks: a receiver for those who try them out.

Owns that every message is verified and told once. Refuses to keep anything: after its end it has forgotten all.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

PATH = "/webhooks"
REMEMBERED = 10_000

Told = Callable[[dict[str, Any]], None]
"""A message's JSON."""


class Receiver:
    """Loop thread. secret: set it before the first message comes. refused: messages whose signature was wrong."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._seen: dict[str, None] = {}
        self.secret: str | None = None
        self.refused = 0

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[str]:
        """For the length of an `async with` block; the URL that endpoints need. port: 0: any. Raises OSError."""
        app = web.Application()
        app.router.add_post(PATH, self._receive)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            yield f"http://{host}:{runner.addresses[0][1]}{PATH}"
        finally:
            await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        if self.secret is None:
            return web.Response(status=503)
        body = await request.read()
        try:
            Webhook(self.secret).verify(body, dict(request.headers))
            message = json.loads(body)
        except (WebhookVerificationError, ValueError):
            self.refused += 1
            return web.Response(status=400)
        name = request.headers["webhook-id"]
        if name not in self._seen:
            self._seen[name] = None
            if len(self._seen) > REMEMBERED:
                del self._seen[next(iter(self._seen))]
            self._told(message)
        return web.Response(status=204)
