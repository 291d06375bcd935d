"""Clients that do not end what they began to ask: they are seen off, whoever waits for an answer is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from sipserver.api import server
from sipserver.api.metrics import Metrics
from sipserver.api.server import HttpServer
from sipserver.api.settings import HttpSettings
from tests.fakes.until import PATIENCE_S

HALF_OF_A_HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "
HALF_OF_A_BODY = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"


async def read(request: web.Request) -> web.Response:
    return web.Response(text=(await request.read()).decode())


async def slow(_request: web.Request) -> web.Response:
    await asyncio.sleep(5 * server.KEEP_ALIVE_S)
    return web.Response(text="done")


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    http = HttpServer(
        HttpSettings(port=0), lambda: [], Metrics(), routes=[web.post("/read", read), web.get("/slow", slow)]
    )
    await http.start()
    try:
        yield http.port
    finally:
        await http.stop()


async def answer_to(port: int, request: bytes) -> bytes:
    """Until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()


@pytest.mark.parametrize("request_so_far", [b"", HALF_OF_A_HEAD], ids=["nothing", "half a head"])
async def test_a_request_that_never_comes_ends_its_connection(
    monkeypatch: pytest.MonkeyPatch, request_so_far: bytes
) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 0.1)
    async with serving() as port:
        assert await answer_to(port, request_so_far) == b""


async def test_an_answer_may_take_longer_than_a_connection_may_be_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 0.1)
    async with serving() as port:
        answer = await answer_to(port, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"done")


async def test_a_body_that_never_comes_gets_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_S", 0.1)
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 0.5)
    async with serving() as port:
        answer = await answer_to(port, HALF_OF_A_BODY)
        whole = await answer_to(port, HALF_OF_A_BODY + b"defghij")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"status": 408' in answer
    assert whole.startswith(b"HTTP/1.1 200")
    assert whole.endswith(b"abcdefghij")
