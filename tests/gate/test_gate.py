"""Who may open a WebSocket: origins, limits, sub-protocols; and how all of them end."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import WSMsgType

from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.gate.settings import GateSettings
from tests.fakes.until import until
from tests.gate.web import site


async def hold(connection: Connection) -> None:
    await connection.receive()


# --- origins ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://shop.example.com.evil.example"])
async def test_pages_of_others_are_refused_before_the_upgrade(origin: str) -> None:
    async with site(GateSettings(origins=("https://shop.example.com",))) as there:
        assert (await there.refusal(headers={"Origin": origin})).status == 403
        assert there.gate.facts().refused == {"origin": 1}
        assert there.came.empty()


async def test_our_own_pages_and_those_that_are_named_may(request: pytest.FixtureRequest) -> None:
    settings = GateSettings(origins=("https://shop.example.com",), public_url="https://voice.example.com")
    async with site(settings) as there:
        own = f"http://127.0.0.1:{there.port}"
        for origin in (own, "https://voice.example.com", "https://Shop.example.com"):
            await (await there.connect(headers={"Origin": origin})).close()
        assert there.gate.facts().refused == {}


async def test_all_pages_may_if_an_operator_says_so() -> None:
    async with site(GateSettings(origins=("*",))) as there:
        await (await there.connect(headers={"Origin": "https://anywhere.example"})).close()


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "status", "why"),
    [
        (GateSettings(connections=2), 503, "connections"),
        (GateSettings(per_address=2), 429, "per_address"),
        (GateSettings(per_tenant=2), 429, "per_tenant"),
        (GateSettings(opens_per_s=2), 429, "rate"),
    ],
)
async def test_limits_refuse_before_the_upgrade_and_say_when_to_come_again(
    settings: GateSettings, status: int, why: str
) -> None:
    async with site(settings, serve=hold, tenant="acme") as there:
        clients = [await there.connect() for _ in range(2)]
        refusal = await there.refusal()
        assert refusal.status == status
        assert refusal.headers is not None
        assert int(refusal.headers["Retry-After"]) >= 1
        assert there.gate.facts().refused == {why: 1}
        for client in clients:
            await client.close()


async def test_places_come_back() -> None:
    async with site(GateSettings(connections=1), serve=hold) as there:
        for _ in range(3):
            client = await there.connect()
            await client.close()
            await until(lambda: not there.gate.connections)
        assert there.gate.facts().opened == {"test": 3}


async def test_a_place_comes_back_when_the_upgrade_fails() -> None:
    async with site(GateSettings(connections=1)) as there:
        for _ in range(3):
            async with there.session.get(f"http://127.0.0.1:{there.port}/ws") as answer:
                assert answer.status == 400
        await (await there.connect()).close()


async def test_behind_a_proxy_on_this_machine_clients_are_told_apart() -> None:
    async with site(GateSettings(per_address=1), serve=hold) as there:
        one = await there.connect(headers={"X-Forwarded-For": "203.0.113.1"})
        two = await there.connect(headers={"X-Forwarded-For": "198.51.100.7, 203.0.113.2"})
        assert (await there.refusal(headers={"X-Forwarded-For": "203.0.113.2"})).status == 429
        assert [connection.peer for connection in (await there.came.get(), await there.came.get())] == [
            "203.0.113.1",
            "203.0.113.2",
        ]
        await one.close()
        await two.close()


# --- sub-protocols ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoken", "offered", "agreed"),
    [
        (("a", "b"), ("c", "b", "a"), "a"),
        (("a",), ("token.x.y.z", "a"), "a"),
        ((), ("token.x.y.z",), "token.x.y.z"),
        (("a",), ("c", "token.x.y.z"), "token.x.y.z"),
        ((), (), None),
    ],
)
async def test_the_sub_protocol_that_is_agreed(
    spoken: tuple[str, ...], offered: tuple[str, ...], agreed: str | None
) -> None:
    async with site(protocols=spoken) as there:
        client = await there.connect(protocols=offered)
        assert client.protocol == agreed
        assert (await there.came.get()).protocol == (agreed or "")
        await client.close()


# --- the end of all ---------------------------------------------------------------------------------------------------


async def test_at_the_end_all_are_told_and_none_is_let_in() -> None:
    async with site(serve=hold) as there:
        clients = [await there.connect() for _ in range(3)]
        reading = [asyncio.create_task(client.receive()) for client in clients]
        await there.gate.close_all()
        for message in await asyncio.gather(*reading):
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
            assert message.extra == "the server is shutting down"
        assert (await there.refusal()).status == 503
        await until(lambda: not there.gate.connections)


async def test_messages_are_counted_over_connections_that_are_over() -> None:
    async with site() as there:
        for _ in range(2):
            client = await there.connect()
            await client.send_str("x")
            await client.receive()
            await client.close()
        client = await there.connect()
        await client.send_str("x")
        await client.receive()
        assert there.gate.facts().messages == {"received": 3, "sent": 3}
        await client.close()


async def test_addresses_that_we_call_are_named_without_keys() -> None:
    async with site() as there:
        url = there.url.replace("ws://", "ws://user:secret@") + "?key=secret#secret"
        async with there.gate.dial(there.session, url, kind="bot") as connection:
            assert connection.peer == there.url


async def test_a_server_that_cannot_be_reached_raises(free_port: int) -> None:
    async with site() as there:
        with pytest.raises(aiohttp.ClientError):
            async with there.gate.dial(there.session, f"ws://127.0.0.1:{free_port}/", kind="bot"):
                raise AssertionError("it is not there")
        assert there.gate.facts().opened == {}


def test_every_code_has_a_reason_that_fits() -> None:
    for code in Close:
        assert code is Close.DONE or code.reason
        assert len(code.reason.encode()) <= 123
