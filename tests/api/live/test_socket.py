"""Whoever follows events with a token instead of a key: noted by it, and only for as long as it is good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sipserver.api.live.socket import EventSocket
from sipserver.api.rest.access import Access
from sipserver.bus import table
from sipserver.bus.once import MemoryOnce
from sipserver.bus.settings import BusSettings
from sipserver.gate.close_codes import Close
from sipserver.gate.gate import Gate
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Claims, Tokens
from sipserver.store.feed_rows import FeedRow, Newest
from sipserver.tenants.principal import Principal


class NoRecords:
    """A database in which nothing happened."""

    async def after(self, tenant: str, after_us: int, limit: int) -> Sequence[FeedRow]:
        return []

    async def newest(self, tenant: str, after_us: int) -> Newest:
        return {}


async def nobody(text: str) -> None:
    return None


async def test_a_token_is_noted_and_its_socket_ends_with_it() -> None:
    noted: list[tuple[str, ...]] = []

    async def note(who: Principal, deed: str, subject: str, source: str) -> None:
        noted.append((who.tenant, who.actor, deed, subject))

    bus = table.make(BusSettings(), node="here", run="one")
    await bus.open()
    tokens = Tokens(b"a secret of at least thirty-two bytes", MemoryOnce())
    gate = Gate(GateSettings(), tokens)
    events = EventSocket(gate, Access(nobody, per_s=10), nobody, NoRecords(), bus.live, note)
    app = web.Application()
    app.add_routes(events.routes())
    token = tokens.issue(Claims("events", tenant="acme", once=False, serial="desk-7"), lives_s=1.5)
    try:
        async with TestClient(TestServer(app)) as client, client.ws_connect(f"/ws/events/acme?token={token}") as socket:
            last: Any = await socket.receive_json(timeout=10)
            assert last["kind"] == "events.live"
            while (last := await socket.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
                pass
            assert (last.data, last.extra) == (Close.KEY_OVER, "the token is over")
            assert noted == [("acme", "token:desk-7", "events.followed", "tenant:acme")]
    finally:
        await gate.close_all()
        await events.close()
        await bus.close()
