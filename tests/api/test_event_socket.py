"""Live events over a real WebSocket: whose they are, which of them, and what a slow client misses."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import aiohttp
import jsonschema
import pytest

from sipserver import events
from sipserver.api.event_socket import LOST, EventHub, routes
from sipserver.api.metrics import Metrics
from sipserver.api.server import HttpServer
from sipserver.api.settings import HttpSettings
from sipserver.bus.once import MemoryOnce
from sipserver.events import Event, Stamped
from sipserver.events.catalogue import message_schema
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.gate.gate import Gate
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Claims, Tokens
from sipserver.tenants.principal import Principal
from tests.fakes.until import until

SECRET = b"a secret of at least thirty-two bytes"


class Server:
    """Events of a gate's WebSockets; a test tells what happens."""

    def __init__(self, settings: GateSettings) -> None:
        self.tokens = Tokens(SECRET, MemoryOnce())
        self.gate, self.hub = Gate(settings, self.tokens), EventHub()
        self.noted: list[tuple[str, str, str, str]] = []
        self.away = False
        made = routes(self.hub, self.gate, self.note)
        self.http = HttpServer(HttpSettings(port=0), lambda: (), Metrics(), routes=list(made))
        self.client = aiohttp.ClientSession()

    def token(self, tenant: str = "acme", **changes: Any) -> str:
        return self.tokens.issue(Claims(**{"use": "events", "tenant": tenant, "once": False, **changes}))

    async def note(self, who: Principal, deed: str, subject: str, source: str) -> None:
        if self.away:
            raise OSError("no database")
        self.noted.append((who.tenant, who.actor, deed, subject))

    async def listen(self, query: str = "", *, tenant: str = "acme", token: str | None = None) -> Any:
        """A client that is listening."""
        before = self.hub.listeners
        url = f"ws://127.0.0.1:{self.http.port}/ws/events/{tenant}{query}"
        given = self.token() if token is None else token
        client = await self.client.ws_connect(url, headers={"Authorization": f"Bearer {given}"})
        await until(lambda: self.hub.listeners == before + 1)
        return client

    def tell(self, event: Event, *, call_id: str = "c1", tenant: str = "acme", at_ms: int = 120) -> None:
        self.hub.observe(Stamped(call_id, tenant, at_ms, event))


async def made(settings: GateSettings) -> AsyncIterator[Server]:
    server = Server(settings)
    await server.http.start()
    yield server
    await server.gate.close_all()
    await server.client.close()
    await server.http.stop()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async for each in made(GateSettings()):
        yield each


@pytest.fixture
async def narrow() -> AsyncIterator[Server]:
    """Little may wait for a slow client, but for long."""
    async for each in made(GateSettings(queue_bytes=4096, slow_s=60)):
        yield each


ENDED = events.CallEnded(reason="caller_hangup")
DIGIT = events.DigitReceived(digit="7", method="info")
LONG = events.DigitReceived(digit="5" * 3000, method="info")


async def test_an_event_as_the_client_reads_it(server: Server) -> None:
    client = await server.listen()
    server.tell(DIGIT)
    told = await client.receive_json()
    assert told == {
        "kind": DIGIT.kind,
        "call_id": "c1",
        "tenant": "acme",
        "at_ms": 120,
        "fields": DIGIT.fields(),
    }
    jsonschema.validate(told, message_schema())
    await client.close()


async def test_a_tenant_hears_its_own_calls_only(server: Server) -> None:
    client = await server.listen()
    server.tell(ENDED, tenant="other")
    server.tell(ENDED, tenant="")
    server.tell(DIGIT)
    assert (await client.receive_json())["kind"] == DIGIT.kind
    await client.close()


async def test_kinds_and_a_call_choose(server: Server) -> None:
    by_kind = await server.listen("?kinds=call.*,voice.*&kinds=media.stalled")
    by_call = await server.listen("?call=c2")
    server.tell(DIGIT)
    server.tell(ENDED)
    server.tell(events.MediaStalled(silent_ms=600), call_id="c2")
    assert [(await by_kind.receive_json())["kind"] for _ in range(2)] == [ENDED.kind, "media.stalled"]
    assert (await by_call.receive_json())["call_id"] == "c2"
    await by_kind.close()
    await by_call.close()


async def test_who_has_gone_is_told_nothing(server: Server) -> None:
    client = await server.listen()
    await client.close()
    await until(lambda: server.hub.listeners == 0)
    server.tell(ENDED)
    assert server.gate.facts().messages["sent"] == 0


async def test_what_the_client_says_is_ignored(server: Server) -> None:
    client = await server.listen()
    await client.send_str("more please")
    await client.send_bytes(b"\x00")
    await until(lambda: [each.received for each in server.gate.connections] == [2])
    server.tell(ENDED)
    assert (await client.receive_json())["kind"] == ENDED.kind
    await client.close()


@pytest.mark.parametrize("pattern", ["nope", "dtmf.*", "call", "%1B[2J"])
async def test_a_pattern_that_nothing_matches_is_refused(server: Server, pattern: str) -> None:
    url = f"http://127.0.0.1:{server.http.port}/ws/events/acme?kinds=call.*,{pattern}&token={server.token()}"
    async with server.client.get(url) as answer:
        told = (await answer.json())["error"]["message"]
    assert (answer.status, "docs/events.md" in told) == (400, True)
    assert unquote(pattern) in told
    assert not server.noted


@pytest.mark.parametrize("shown", [None, "Basic abc", "Bearer", "Bearer x", "over", "used"])
async def test_whoever_shows_nothing_that_is_good_is_told_how_to(server: Server, shown: str | None) -> None:
    used = server.token(once=True)
    await server.tokens.claim(used, "events")
    over = server.tokens.issue(Claims("events", tenant="acme"), lives_s=-1)
    texts = {"over": f"Bearer {over}", "used": f"Bearer {used}"}
    headers = {} if shown is None else {"Authorization": texts.get(shown, shown)}
    async with server.client.get(f"http://127.0.0.1:{server.http.port}/ws/events/acme", headers=headers) as answer:
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="sipserver"')
        assert (await answer.json())["error"]["status"] == 401


@pytest.mark.parametrize("token", ["other tenant", "no tenant", "other use"])
async def test_a_token_that_is_good_for_something_else_is_refused(server: Server, token: str) -> None:
    tokens = {
        "other tenant": server.token("other"),
        "no tenant": server.token(""),
        "other use": server.token(use="voice"),
    }
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await server.listen(token=tokens[token])
    assert refusal.value.status == 403
    assert server.hub.listeners == 0


async def test_a_slow_client_is_told_how_many_events_it_missed(narrow: Server) -> None:
    client = await narrow.listen()
    (connection,) = narrow.gate.connections
    client._conn.transport.pause_reading()
    told = 0

    def misses_five() -> bool:
        nonlocal told
        told += 1
        narrow.tell(LONG)
        return connection.dropped >= 5

    await until(misses_five)
    client._conn.transport.resume_reading()
    await until(lambda: not connection.paused)
    narrow.tell(ENDED)
    heard = lost = 0
    while (said := await client.receive_json())["kind"] != ENDED.kind:
        jsonschema.validate(said, message_schema())
        heard += said["kind"] == LONG.kind
        lost += said.get("count", 0) if said["kind"] == LOST else 0
    assert (heard + lost, lost >= 5) == (told, True)
    await client.close()


async def test_one_that_stays_slow_is_cut() -> None:
    async for server in made(GateSettings(queue_bytes=4096, slow_s=0.1)):
        client = await server.listen()
        (connection,) = server.gate.connections
        client._conn.transport.pause_reading()
        await until(functools.partial(_told_until_it_ends, server, connection))
        assert connection.code == 4429
        client._conn.transport.resume_reading()
        await client.close()


def _told_until_it_ends(server: Server, connection: Connection) -> bool:
    server.tell(LONG)
    return not connection.open


# --- the token --------------------------------------------------------------------------------------------------------


async def test_who_listens_stands_in_the_audit_log(server: Server) -> None:
    await server.listen(token=server.token(serial="desk-7"))
    assert server.noted == [("acme", "token:desk-7", "events.followed", "tenant:acme")]


async def test_who_cannot_be_noted_hears_nothing(server: Server) -> None:
    server.away = True
    url = f"ws://127.0.0.1:{server.http.port}/ws/events/acme?token={server.token()}"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await server.client.ws_connect(url)
    assert refused.value.status == 503
    assert server.hub.listeners == 0


async def test_the_socket_ends_with_its_token(server: Server) -> None:
    token = server.tokens.issue(Claims("events", tenant="acme", once=False), lives_s=1.5)
    lasting, client = await server.listen(), await server.listen(token=token)
    message = await client.receive(timeout=10)
    assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, Close.KEY_OVER, "the token is over")
    await until(lambda: server.hub.listeners == 1)
    server.tell(ENDED)
    assert (await lasting.receive_json())["kind"] == "call.ended"
