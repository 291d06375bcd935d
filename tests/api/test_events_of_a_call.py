"""A real server, a real SIP call, and a client that follows it over the event WebSocket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sipserver.bus.once import MemoryOnce
from sipserver.gate.tokens import Claims, Tokens
from tests.harness.phone import Phone
from tests.harness.server import ServerProcess

SECRET = "a secret of at least thirty-two bytes"
DIALPLAN = "tenant: acme\nflows: {main: [answer, {wait: 0.2}, hangup]}\nroutes: [{flow: main}]\n"
LAST_WORD = (aiohttp.WSMsgType.CLOSE, 1001, "the server is shutting down")


def call(sip_port: int) -> None:
    """One that the server ends."""
    with Phone(sip_port) as phone:
        assert phone.invite("anyone").code == 200
        assert phone.ended.wait(20)


async def follow(server: ServerProcess, token: str) -> None:
    heard: list[dict[str, Any]] = []
    url = f"ws://127.0.0.1:{server.http_port}/ws/events/acme?kinds=call.*"
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=[f"token.{token}"]) as socket,
    ):
        calling = asyncio.create_task(asyncio.to_thread(call, server.sip_port))
        while not heard or heard[-1]["kind"] != "call.ended":
            heard.append(await socket.receive_json())
        await calling
        metrics = await asyncio.to_thread(server.get, "/metrics")
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        last = await socket.receive()
        assert (last.type, last.data, last.extra) == LAST_WORD
        assert await stopping == 0
    assert heard[0]["kind"] == "call.started"
    assert heard[0]["fields"]["to_uri"].startswith("sip:anyone@")
    assert {event["call_id"] for event in heard} == {heard[0]["call_id"]}
    assert {event["tenant"] for event in heard} == {"acme"}
    assert heard[-1]["fields"]["reason"] == "dialplan_hangup"
    assert 'sipserver_websockets{kind="events"} 1.0' in metrics
    assert 'sipserver_websocket_messages_total{direction="sent"}' in metrics


def test_a_call_can_be_followed_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIPSERVER_TOKEN_SECRET", SECRET)
    token = Tokens(SECRET.encode(), MemoryOnce()).issue(Claims("events", tenant="acme"))
    with ServerProcess(tmp_path, {"acme.yaml": DIALPLAN}) as server:
        asyncio.run(follow(server, token))
