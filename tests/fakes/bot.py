"""A bot: a WebSocket server on loopback that writes down what it gets and says what a test makes it say."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web

from tests.fakes.until import until

Behaviour = Callable[["FakeBot", Any], Awaitable[None]]


class FakeBot:
    """got: messages in order, text as str, sound as bytes. socket: once somebody has connected."""

    def __init__(self, *, answer: Behaviour | None = None, protocols: tuple[str, ...] = ()) -> None:
        self._answer = answer
        self._protocols = protocols
        self.got: list[str | bytes] = []
        self.headers: dict[str, str] = {}
        self.socket: web.WebSocketResponse | None = None
        self.close_code: int | None = None
        self.refuse = 0
        self.reads = True
        self.connections = 0
        self.url = ""
        self._go = asyncio.Event()

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(message) for message in self.got if isinstance(message, str) and message.startswith("{")]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.told if message.get("event") == event]

    @property
    def sound(self) -> bytes:
        return b"".join(message for message in self.got if isinstance(message, bytes))

    async def say(self, *messages: dict[str, Any] | str | bytes) -> None:
        assert self.socket is not None
        for message in messages:
            if isinstance(message, bytes):
                await self.socket.send_bytes(message)
            else:
                await self.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    async def connected(self) -> None:
        await until(lambda: bool(self.got), "the greeting")

    def let_go(self) -> None:
        """A bot that does not read ends."""
        self._go.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        if self.refuse:
            return web.Response(status=self.refuse)
        self.socket = socket = web.WebSocketResponse(protocols=self._protocols, autoping=self.reads, timeout=1)
        await socket.prepare(request)
        if not self.reads:
            await self._go.wait()
            return socket
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.got.append(message.data)
                if self._answer is not None:
                    await self._answer(self, message.data)
        self.close_code = socket.close_code
        return socket


@asynccontextmanager
async def running(bot: FakeBot, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeBot]:
    app = web.Application()
    app.router.add_get("/bot", bot.serve)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    bot.url = f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/bot"
    try:
        yield bot
    finally:
        bot.let_go()
        await runner.cleanup()
