"""Whoever follows events with a token: noted by it, and for as long as it is good; and with nothing that is good."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sipserver.api.live.socket import EventSocket, Note
from sipserver.api.rest.access import Access
from sipserver.api.server import errors_as_json
from sipserver.bus import table
from sipserver.bus.once import MemoryOnce
from sipserver.bus.settings import BusSettings
from sipserver.gate.close_codes import Close
from sipserver.gate.gate import Gate
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Claims, Tokens
from sipserver.store.feed_rows import FeedRow, Newest
from sipserver.tenants.keys import PREFIX
from sipserver.tenants.principal import Principal
from tests.fakes.until import until

SECRET = b"a secret of at least thirty-two bytes"
URL = "/ws/events/acme"


class NoRecords:
    """A database in which nothing happened."""

    async def after(self, tenant: str, after_us: int, limit: int) -> Sequence[FeedRow]:
        return []

    async def newest(self, tenant: str, after_us: int) -> Newest:
        return {}


async def nobody(text: str) -> None:
    return None


@asynccontextmanager
async def listened(tokens: Tokens, note: Note) -> AsyncIterator[tuple[TestClient[Any, Any], Gate]]:
    bus = table.make(BusSettings(), node="here", run="one")
    await bus.open()
    gate = Gate(GateSettings(), tokens)
    events = EventSocket(gate, Access(nobody, per_s=10), nobody, NoRecords(), bus.live, note)
    app = web.Application(middlewares=[errors_as_json])
    app.add_routes(events.routes())
    try:
        async with TestClient(TestServer(app)) as client:
            yield client, gate
    finally:
        await gate.close_all()
        await events.close()
        await bus.close()


async def unnoted(who: Principal, deed: str, subject: str, source: str) -> None:
    pass


async def test_a_token_is_noted_and_its_socket_ends_with_it() -> None:
    noted: list[tuple[str, ...]] = []

    async def note(who: Principal, deed: str, subject: str, source: str) -> None:
        noted.append((who.tenant, who.actor, deed, subject))

    tokens = Tokens(SECRET, MemoryOnce())
    token = tokens.issue(Claims("events", tenant="acme", once=False, serial="desk-7"), lives_s=1.5)
    async with listened(tokens, note) as (client, _), client.ws_connect(f"{URL}?token={token}") as socket:
        last: Any = await socket.receive_json(timeout=10)
        assert last["kind"] == "events.live"
        while (last := await socket.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert (last.data, last.extra) == (Close.KEY_OVER, "the token is over")
        assert noted == [("acme", "token:desk-7", "events.followed", "tenant:acme")]


async def test_what_the_client_says_is_ignored() -> None:
    tokens = Tokens(SECRET, MemoryOnce())
    token = tokens.issue(Claims("events", tenant="acme"))
    async with listened(tokens, unnoted) as (client, gate), client.ws_connect(f"{URL}?token={token}") as socket:
        assert (await socket.receive_json(timeout=10))["kind"] == "events.live"
        await socket.send_bytes(b"\x00")
        await socket.send_str("more please")
        (connection,) = gate.connections
        await until(lambda: connection.received == 2)
        assert connection.open


@pytest.mark.parametrize("shown", [None, "Basic abc", "Bearer x", f"Bearer {PREFIX}_x"])
async def test_whoever_is_not_known_is_told_how_to_become_so(shown: str | None) -> None:
    headers = {} if shown is None else {"Authorization": shown}
    async with (
        listened(Tokens(SECRET, MemoryOnce()), unnoted) as (client, _),
        client.get(URL, headers=headers) as answer,
    ):
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="sipserver"')
        assert "API key" in (await answer.json())["error"]["message"]
