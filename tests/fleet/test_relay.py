"""Two gateways in one process: what is asked of one, and is the other's, is passed on whole."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from sipserver.api.metrics import Metrics
from sipserver.api.server import HttpServer
from sipserver.api.settings import HttpSettings
from sipserver.fleet.relay import Relay
from sipserver.gate.requests import address_of, public_url
from sipserver.gate.settings import GateSettings

ONE, OTHER = "1" * 32, "2" * 32


class Gateway:
    """It tells what it was asked. ended: close codes of its WebSockets."""

    def __init__(self, name: str, runtime: Path, run: str) -> None:
        self.name, self.relay = name, Relay(runtime, run, GateSettings())
        self.ended: asyncio.Queue[int | None] = asyncio.Queue()
        routes = [
            web.route("*", "/words/{tail:.*}", self._word),
            web.get("/ws/{tail:.*}", self._talk),
            web.get("/refuses/{tail:.*}", self._refuse),
        ]
        self.http = HttpServer(
            HttpSettings(port=0),
            lambda: (),
            Metrics(),
            routes=routes,
            side_path=self.relay.socket,
            middlewares=(self.relay.middleware(),),
        )

    async def _word(self, request: web.Request) -> web.Response:
        told = {
            "gateway": self.name,
            "method": request.method,
            "path": request.path_qs,
            "host": request.host,
            "signature": request.headers.get("X-Signature"),
            "from": address_of(request),
            "url": public_url(request, GateSettings()),
            "body": await request.text(),
        }
        return web.json_response(told, status=207, headers={"ETag": '"7"', "Location": "/there"})

    async def _refuse(self, request: web.Request) -> web.Response:
        return web.Response(status=429)

    async def _talk(self, request: web.Request) -> web.WebSocketResponse:
        """Says its name, then back what it hears; `close` has it close."""
        socket = web.WebSocketResponse(protocols=("words",), autoping=True)
        await socket.prepare(request)
        await socket.send_str(self.name)
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.data == "close":
                await socket.close(code=4409, message=b"enough")
            else:
                await socket.send_str(message.data)
        self.ended.put_nowait(socket.close_code)
        return socket


@asynccontextmanager
async def two(runtime: Path) -> AsyncIterator[tuple[Gateway, Gateway, aiohttp.ClientSession]]:
    """Both, and a client whose paths go to the first one."""
    async with AsyncExitStack() as stack:
        found = []
        for name, run in (("one", ONE), ("other", OTHER)):
            gateway = Gateway(name, runtime, run)
            await stack.enter_async_context(gateway.relay.open())
            await gateway.http.start()
            stack.push_async_callback(gateway.http.stop)
            found.append(gateway)
        base = f"http://127.0.0.1:{found[0].http.port}"
        yield found[0], found[1], await stack.enter_async_context(aiohttp.ClientSession(base))


async def asked(client: aiohttp.ClientSession, path: str, **more: Any) -> dict[str, Any]:
    async with client.post(path, **more) as answer:
        assert answer.status == 207
        return dict(await answer.json())


async def test_a_request_and_its_answer_are_passed_on_whole(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, other, client):
        path = f"/words/a%20b?refer=key{other.relay.home}&x=%2B1"
        headers = {"X-Signature": "s", "X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}
        async with client.patch(path, data="v=0", headers=headers) as answer:
            told = await answer.json()
            assert (answer.status, answer.headers["ETag"], answer.headers["Location"]) == (207, '"7"', "/there")
        own = f"127.0.0.1:{client._base_url.port}"  # type: ignore[union-attr]
        assert told == {
            "gateway": "other",
            "method": "PATCH",
            "path": path,
            "host": own,
            "signature": "s",
            "from": "198.51.100.7",
            "url": f"https://{own}",
            "body": "v=0",
        }


@pytest.mark.parametrize("home", ["", f"@{ONE[:12]}", "@999999999999", "@22222222222", "@2222222222222"])
async def test_what_is_ours_or_nobodys_stays_here(tmp_path: Path, home: str) -> None:
    async with two(tmp_path) as (_, _, client):
        assert (await asked(client, f"/words/?call=1{home}"))["gateway"] == "one"


async def test_a_home_may_be_escaped_and_stand_in_the_path(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, other, client):
        for path in (f"/words/{other.relay.home}", f"/words/x%40{OTHER[:12]}", f"/words/?k=a%40{OTHER[:12]}&b=1"):
            assert (await asked(client, path))["gateway"] == "other"


async def test_nobody_is_asked_who_is_no_longer_there(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, other, client):
        await other.http.stop()
        other.relay.socket.touch()  # as a process that was killed leaves it
        assert (await asked(client, f"/words/{other.relay.home}"))["gateway"] == "one"


async def test_one_whose_door_is_closed_is_still_asked(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, other, client):
        await other.http.close_door()
        assert (await asked(client, f"/words/{other.relay.home}"))["gateway"] == "other"


async def test_a_websocket_goes_both_ways_and_ends_as_the_other_side_ends_it(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, other, client):
        async with client.ws_connect(f"/ws/x/{other.relay.home}", protocols=("words", "y"), autoping=False) as socket:
            assert socket.protocol == "words"
            assert (await socket.receive()).data == "other"
            await socket.send_str(json.dumps({"a": 1}))
            assert (await socket.receive()).data == '{"a": 1}'
            await socket.send_bytes(bytes(60_000))
            assert (await socket.receive()).data == bytes(60_000)
            await socket.ping(b"here")
            pong = await socket.receive()
            assert (pong.type, pong.data) == (WSMsgType.PONG, b"here")
            await socket.send_str("close")
            closing = await socket.receive()
            assert (closing.type, closing.data, closing.extra) == (WSMsgType.CLOSE, 4409, "enough")
        await other.ended.get()
        async with client.ws_connect(f"/ws/x/{other.relay.home}") as socket:
            await socket.close(code=4000)
        assert await other.ended.get() == 4000


async def test_a_client_whose_line_breaks_has_not_said_good_bye(tmp_path: Path) -> None:
    """A clean close would end a call that its client wants to come back to."""
    async with two(tmp_path) as (_, other, client), client.ws_connect(f"/ws/x/{other.relay.home}") as socket:
        assert socket._conn is not None
        assert socket._conn.transport is not None
        socket._conn.transport.abort()
        assert await asyncio.wait_for(other.ended.get(), 5) == 1001


async def test_a_refusal_before_the_upgrade_is_passed_on(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, other, client):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
            await client.ws_connect(f"/refuses/{other.relay.home}")


async def test_a_gateway_leaves_no_socket_behind(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, other, _client):
        assert other.relay.socket.stat().st_mode & 0o777 == 0o600
    assert not os.listdir(tmp_path)
