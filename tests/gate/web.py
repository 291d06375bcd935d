"""A gate behind a real HTTP server, and clients of it: aiohttp's, or bare sockets for what no library would send."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web

from sipserver.api.metrics import Metrics
from sipserver.api.server import application
from sipserver.bus.once import MemoryOnce
from sipserver.gate.connection import Connection
from sipserver.gate.gate import Gate
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Tokens

SECRET = b"a secret of at least thirty-two bytes"

Serve = Callable[[Connection], Awaitable[None]]


async def echo(connection: Connection) -> None:
    async for message in connection:
        connection.send(message)


class Site:
    """`/ws` is guarded by `gate`; `/page` is a page of the same origin. connections: those that came, in order; also after their end."""

    def __init__(self, settings: GateSettings, serve: Serve, how: dict[str, Any]) -> None:
        self.tokens = Tokens(SECRET, MemoryOnce())
        self.gate = Gate(settings, self.tokens)
        self.came: asyncio.Queue[Connection] = asyncio.Queue()
        self.session = aiohttp.ClientSession()
        self._serve, self._how = serve, how
        routes = [web.get("/ws", self._handle), web.get("/page", _page)]
        self._runner = web.AppRunner(application(lambda: (), Metrics(), routes=routes), shutdown_timeout=1)
        self.port = 0

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self.gate.close_all()
        await self.session.close()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def connect(self, **how: Any) -> aiohttp.ClientWebSocketResponse:
        socket: aiohttp.ClientWebSocketResponse = await self.session.ws_connect(self.url, **how)
        return socket

    async def refusal(self, **how: Any) -> aiohttp.WSServerHandshakeError:
        """How an attempt to connect is refused, before the upgrade."""
        try:
            await self.connect(**how)
        except aiohttp.WSServerHandshakeError as refusal:
            return refusal
        raise AssertionError("it was let in")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        async with self.gate.open(request, kind="test", **self._how) as connection:
            self.came.put_nowait(connection)
            await self._serve(connection)
        return connection.response


async def _page(_request: web.Request) -> web.Response:
    """Empty; its scripts may connect anywhere."""
    return web.Response(text="<html></html>", content_type="text/html", headers={"Content-Security-Policy": ""})


@contextlib.asynccontextmanager
async def site(settings: GateSettings | None = None, serve: Serve = echo, **how: Any) -> AsyncIterator[Site]:
    made = Site(settings or GateSettings(), serve, how)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@contextlib.asynccontextmanager
async def bare(port: int, *, receive_buffer: int = 0) -> AsyncIterator[socket.socket]:
    """A WebSocket of which only the upgrade is done: the test reads and writes bytes, or does not."""
    loop = asyncio.get_running_loop()
    plain = socket.socket()
    try:
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.setblocking(False)
        await loop.sock_connect(plain, ("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ("GET /ws HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade")
        more = (f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", "")
        await loop.sock_sendall(plain, "\r\n".join((*lines, *more)).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await loop.sock_recv(plain, 1)
        assert answer.startswith(b"HTTP/1.1 101 ")
        yield plain
    finally:
        plain.close()
