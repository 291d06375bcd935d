"""WebSockets over real sockets: who is let in, what ends a connection, and that nothing is buffered without bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from sipserver.bus.once import MemoryOnce
from sipserver.gate.close_codes import CloseCode
from sipserver.gate.connection import Connection
from sipserver.gate.gate import Gate
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Tokens
from tests.harness.web import Site, serving

Talk = Callable[[Connection], Awaitable[None]]


@dataclass
class Rig:
    gate: Gate
    site: Site
    ended: asyncio.Queue[Connection] = field(default_factory=asyncio.Queue)
    tokens: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    def connect(self, **options: Any) -> Any:
        return self.site.client.ws_connect(f"{self.site.ws_url}/ws", **options)

    async def refusal(self, **options: Any) -> int:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with self.connect(**options):
                pass
        return refused.value.status

    async def last(self) -> Connection:
        async with asyncio.timeout(10):
            return await self.ended.get()


async def echo(connection: Connection) -> None:
    async for message in connection:
        connection.send(message)


@asynccontextmanager
async def rig(settings: GateSettings | None = None, talk: Talk = echo) -> AsyncIterator[Rig]:
    gate = Gate(settings or GateSettings(), Tokens(b"x" * 32, MemoryOnce()))
    made: Rig

    async def handle(request: web.Request) -> web.StreamResponse:
        made.tokens.append(gate.token_of(request))
        made.urls.append(gate.public_url(request, websocket=True))
        async with gate.open(request, kind="test", tenant=request.query.get("tenant", "")) as connection:
            await talk(connection)
        made.ended.put_nowait(connection)
        return web.Response()

    async with serving([web.get("/ws", handle)]) as site:
        made = Rig(gate, site)
        try:
            yield made
        finally:
            await gate.close()


async def test_text_and_binary_go_both_ways() -> None:
    async with rig() as made:
        async with made.connect() as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            await socket.send_bytes(b"\0\1")
            assert await socket.receive_bytes() == b"\0\1"
        connection = await made.last()
        assert (connection.code, connection.by_peer) == (CloseCode.DONE, True)
        facts = made.gate.facts
        assert (facts.opened["test"], facts.received["test"], facts.sent["test"]) == (1, 2, 2)
        assert not facts.open


async def test_a_pong_answers_a_ping_and_ours_is_timed() -> None:
    async def talk(connection: Connection) -> None:
        connection.ping()
        await echo(connection)

    async with rig(talk=talk) as made, made.connect(autoping=False) as socket:
        ping = await socket.receive()
        assert ping.type is WSMsgType.PING
        await socket.pong(ping.data)
        await socket.ping(b"who")
        pong = await socket.receive()
        assert (pong.type, pong.data) == (WSMsgType.PONG, b"who")
        await socket.close()
        assert (await made.last()).round_trip_ms is not None


async def test_a_cut_line_is_told_as_broken() -> None:
    async with rig() as made:
        async with made.connect() as socket:
            await socket.send_str("hello")
            await socket.receive_str()
            assert socket._conn is not None
            assert socket._conn.transport is not None
            socket._conn.transport.abort()
            connection = await made.last()
        assert (connection.code, connection.by_peer) == (CloseCode.BROKEN, True)


async def test_a_message_that_is_too_long_ends_it() -> None:
    async with rig(GateSettings(message_bytes=4096)) as made, made.connect() as socket:
        await socket.send_bytes(bytes(1_000_000))
        assert (await socket.receive()).type is WSMsgType.CLOSE
        assert socket.close_code == CloseCode.TOO_BIG
        assert (await made.last()).code == CloseCode.TOO_BIG
        assert made.gate.facts.cut["too_big"] == 1


async def test_too_many_messages_end_it() -> None:
    async with rig(GateSettings(messages_per_s=10)) as made, made.connect() as socket:
        for _ in range(50):
            await socket.send_str("x")
        connection = await made.last()
        assert connection.code == CloseCode.REFUSED
        assert "10 messages a second" in connection.cause


async def test_a_client_that_does_not_read_is_paused_and_then_cut() -> None:
    settings = GateSettings(queue_bytes=8192, slow_s=60)

    async def talk(connection: Connection) -> None:
        for _ in range(10_000):  # what the kernel takes of it is not ours to bound
            if not connection.send(b"x" * 4096, droppable=True):
                break
            await asyncio.sleep(0)
        assert connection.dropped == 1, "paused: it was dropped, not buffered"
        waiting = connection.waiting_bytes
        assert waiting <= 8192 + 4096 + 16
        for _ in range(100):
            connection.send("y" * 4096)
        assert connection.waiting_bytes <= 5 * 8192
        assert connection.code == CloseCode.TOO_SLOW

    async with rig(settings, talk) as made, made.connect() as socket:
        connection = await made.last()  # the client reads nothing
        assert connection.code == CloseCode.TOO_SLOW
        assert made.gate.facts.cut["too_slow"] == 1
        await socket.close()


async def test_one_that_answers_no_ping_is_cut() -> None:
    async with rig(GateSettings(heartbeat_s=0.2)) as made, made.connect(autoping=False) as socket:
        connection = await made.last()
        assert connection.code == CloseCode.SILENT
        assert (await socket.receive()).type is WSMsgType.PING


@pytest.mark.parametrize(
    ("settings", "origin", "status"),
    [
        ({}, "https://evil.example", 403),
        ({}, "null", 403),
        ({"origins": ["https://shop.example"]}, "https://shop.example", 101),
        ({"origins": ["*"]}, "https://evil.example", 101),
        ({"public_url": "https://voice.example"}, "https://voice.example", 101),
    ],
)
async def test_pages_of_others_are_refused(settings: dict[str, object], origin: str, status: int) -> None:
    async with rig(GateSettings.model_validate(settings)) as made:
        headers = {"Origin": origin}
        if status == 101:
            async with made.connect(headers=headers) as socket:
                await socket.send_str("in")
                assert await socket.receive_str() == "in"
        else:
            assert await made.refusal(headers=headers) == status


async def test_our_own_page_may() -> None:
    async with rig() as made, made.connect(headers={"Origin": made.site.url}) as socket:
        await socket.send_str("in")
        assert await socket.receive_str() == "in"


@pytest.mark.parametrize(
    ("settings", "query"), [({"connections": 1}, ""), ({"per_address": 1}, ""), ({"per_tenant": 1}, "?tenant=acme")]
)
async def test_a_place_is_free_again_when_a_connection_ends(settings: dict[str, int], query: str) -> None:
    async with rig(GateSettings.model_validate(settings)) as made:
        url = f"{made.site.ws_url}/ws{query}"
        async with made.site.client.ws_connect(url):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await made.site.client.ws_connect(url)
        await made.last()
        async with made.site.client.ws_connect(url) as socket:
            await socket.send_str("in")
            assert await socket.receive_str() == "in"


async def test_an_address_that_connects_too_often_is_refused() -> None:
    async with rig(GateSettings(opens_per_s=1)) as made:
        async with made.connect():
            assert await made.refusal() == 503
        assert made.gate.facts.refused["pace"] == 1


async def test_where_a_token_may_stand() -> None:
    async with rig() as made:
        for options in ({"headers": {"Authorization": "Bearer abc"}}, {"params": {"token": "abc"}}):
            async with made.connect(**options):
                pass
        async with made.connect(protocols=("token.abc",)) as socket:
            assert socket.protocol == "token.abc"
        async with made.connect(protocols=("voice", "token.abc")) as socket:
            assert socket.protocol == "voice"
        assert made.tokens == ["abc"] * 4


async def test_the_public_address_counts() -> None:
    async with rig(GateSettings(public_url="https://voice.example")) as made, made.connect():
        pass
    async with rig() as local, local.connect(headers={"X-Forwarded-Proto": "https"}):
        pass
    assert made.urls == ["wss://voice.example"]
    assert local.urls == ["wss" + local.site.url.removeprefix("http")]


async def test_the_end_of_the_server_is_told() -> None:
    async with rig() as made, made.connect() as socket:
        await socket.send_str("in")
        await socket.receive_str()
        closing = asyncio.create_task(made.gate.close())
        assert (await socket.receive()).type is WSMsgType.CLOSE
        assert socket.close_code == CloseCode.GOING_AWAY
        await closing
        assert await made.refusal() == 503


async def test_a_fault_of_ours_is_told_as_one() -> None:
    async def talk(_connection: Connection) -> None:
        raise ValueError("broken")

    async with rig(talk=talk) as made, made.connect() as socket:
        assert (await socket.receive()).type is WSMsgType.CLOSE
        assert socket.close_code == CloseCode.OURS
