"""Requests that are sent again, against a real server on both databases: what they ask for is done once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sipserver.client import Client
from sipserver.tenants.keys import ALL
from tests.api.rest.test_audit import entries
from tests.api.rest.test_calls import OTHER, PLAN, asking, callee, create, get, key_of, until_state
from tests.api.rest.test_client import url_of
from tests.fakes.party import Party
from tests.fakes.until import eventually
from tests.harness.phone import Phone
from tests.harness.records import execute
from tests.harness.server import ServerProcess

LONG_AGO = "claimed_at = '2026-01-01 00:00:00+00:00'"
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: dict[str, Any]) -> Iterator[ServerProcess]:
    made = ServerProcess(
        tmp_path_factory.mktemp("idempotency"),
        {"acme.yaml": PLAN.replace("say: Good day.", "wait: 1"), "zenith.yaml": OTHER},
        {
            "http": {"host": "127.0.0.1", "api_per_s": 500},
            "webhooks": {"allow_private": True},
        }
        | store,
    )
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()


@pytest.fixture(scope="module")
def key(server: ServerProcess) -> str:
    return key_of(server, "acme", *ALL)


async def ask(client: aiohttp.ClientSession, path: str, key: str, **body: Any) -> tuple[int, Any]:
    """Status and body, with `replayed` in it."""
    async with client.post(f"/api/v1{path}", json=body, headers={"Idempotency-Key": key}) as answer:
        return answer.status, {**await answer.json(), "replayed": answer.headers.get("Idempotency-Replayed", "")}


async def post(client: aiohttp.ClientSession, path: str, status: int, key: str, **body: Any) -> Any:
    got, told = await ask(client, path, key, **body)
    assert got == status, told
    return told


async def end(client: aiohttp.ClientSession, party: Party, call: Any) -> None:
    """A call that rings: it is answered and hung up."""
    await party.is_called()
    await party.accepts()
    async with client.delete(call["url"]) as answer:
        assert answer.status == 204
    party.peer.answer(await party.peer.receive("BYE"), "200 OK")
    await until_state(client, call["id"], "ended")


async def change(server: ServerProcess, what: str) -> None:
    """Of all keys, by hand."""
    await asyncio.to_thread(execute, server.store, f"UPDATE idempotency_keys SET {what}")


# --- calls ------------------------------------------------------------------------------------------------------------


async def test_after_a_restart_it_is_the_same_call(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"acme.yaml": PLAN.replace("say: Good day.", "wait: 1")})
    await asyncio.to_thread(server.start)
    try:
        key = await asyncio.to_thread(key_of, server)
        async with callee(server) as (party, uri):
            async with asking(server, key) as client:
                one = await create(client, to=uri, key="order-77")
                await end(client, party, one)
            assert await asyncio.to_thread(server.stop) == 0
            await asyncio.to_thread(server.start)
            async with asking(server, key) as client:
                assert await create(client, 200, to=uri, key="order-77") == one
                assert [call["id"] for call in (await get(client, "/calls"))["calls"]] == [one["id"]]
                assert not [text for text in party.peer.seen() if text.startswith("INVITE")]
    finally:
        assert await asyncio.to_thread(server.stop) == 0


async def test_after_a_day_it_is_another_call(server: ServerProcess, key: str) -> None:
    async with callee(server) as (party, uri), asking(server, key) as client:
        one = await create(client, to=uri, key="reminder-anna")
        await end(client, party, one)
        assert await create(client, 200, to=uri, key="reminder-anna") == one
        told = await get(client, f"/calls/{one['id']}/events?limit=500")
        await change(server, "until = '2026-01-01 00:00:00+00:00'")
        other = await create(client, to=uri, key="reminder-anna")
        assert other["id"] != one["id"]
        await end(client, party, other)
        assert await get(client, f"/calls/{one['id']}/events?limit=500") == told


@asynccontextmanager
async def no_room(server: ServerProcess, client: aiohttp.ClientSession) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """The server has as many calls as it can. What makes room again."""
    async with callee(server) as (party, uri):
        ringing = []
        while (await ask(client, "/calls/create", "", to=uri))[0] != 503:
            ringing.append(await party.peer.receive("INVITE"))
            party.peer.answer(ringing[-1], "100 Trying")

        async def make_room() -> None:
            while ringing:
                party.peer.answer(ringing.pop(), "486 Busy Here", tag="busy")
                await party.peer.receive("ACK")

        yield make_room
        await make_room()


async def test_what_is_refused_leaves_its_key_free(server: ServerProcess, key: str) -> None:
    async with callee(server) as (party, uri), asking(server, key) as client:
        for _ in range(2):
            assert "nowhere" in (await create(client, 404, to=uri, flow="nowhere", key="order-8"))["detail"]
        async with no_room(server, client) as make_room:
            for _ in range(2):
                assert "taken" in (await create(client, 503, to=uri, key="order-8"))["detail"]
            await make_room()
            await end(client, party, await eventually_placed(client, uri, "order-8"))


async def eventually_placed(client: aiohttp.ClientSession, uri: str, key: str) -> Any:
    """The places of calls that are over are free a moment later."""
    _, made = await eventually(
        lambda: ask(client, "/calls/create", key, to=uri), lambda told: told[0] != 503, "room for a call"
    )
    return made


async def test_a_program_that_finds_no_room_tries_again_with_its_key(server: ServerProcess, key: str) -> None:
    async with callee(server) as (party, uri), asking(server, key) as client:
        async with no_room(server, client) as make_room, Client(url_of(server), key) as program:
            ordering = asyncio.create_task(program.create_call(uri))
            await asyncio.sleep(0.5)  # it has been refused once
            await make_room()
            made = await ordering
        await end(client, party, {"id": made.id, "url": made.url})


async def test_a_key_is_for_one_request(server: ServerProcess, key: str) -> None:
    async with callee(server) as (party, uri), asking(server, key) as client:
        one = await create(client, to=uri, variables={"order": "7"}, key="order-9")
        for path, body in (
            ("/calls/create", {"to": uri, "variables": {"order": "8"}}),
            ("/calls/create", {"to": "sip:someone.else@127.0.0.1:9", "variables": {"order": "7"}}),
            ("/users", {"email": "anna@acme.example", "role": "viewer"}),
            (f"/calls/{one['id']}/say", {"text": "order 7"}),
        ):
            refusal = await post(client, path, 422, "order-9", **body)
            assert refusal["errors"][0]["where"] == "header.Idempotency-Key", path
        assert await create(client, 200, variables={"order": "7"}, to=uri, key="order-9") == one
        await end(client, party, one)


async def test_the_key_of_another_tenant_is_another_key(server: ServerProcess, key: str) -> None:
    other = await asyncio.to_thread(key_of, server, "zenith", *ALL)
    async with asking(server, key) as client, asking(server, other) as stranger:
        mine = await post(client, "/users", 201, "the-same", email="anna@acme.example", role="viewer")
        theirs = await post(stranger, "/users", 201, "the-same", email="anna@acme.example", role="viewer")
        assert mine["id"] != theirs["id"]


async def test_of_a_request_that_died_its_call_is_found(server: ServerProcess, key: str) -> None:
    async with callee(server) as (party, uri), asking(server, key) as client:
        one = await create(client, to=uri, key="order-10")
        await change(server, f"status = NULL, answer = NULL, {LONG_AGO}")
        assert await create(client, 200, to=uri, key="order-10") == one, "it lives"
        await end(client, party, one)
        assert await create(client, 200, to=uri, key="order-10") == one, "it has a record"


async def test_a_request_that_died_without_a_call_keeps_its_key_for_a_minute(server: ServerProcess, key: str) -> None:
    async with callee(server) as (party, uri), asking(server, key) as client:
        await end(client, party, await create(client, to=uri, key="order-11"))
        await change(server, f"status = NULL, answer = NULL, call_id = '{uuid.uuid4()}'")
        headers = {"Idempotency-Key": "order-11"}
        async with client.post("/api/v1/calls/create", json={"to": uri}, headers=headers) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (409, "1")
        await change(server, LONG_AGO)
        await end(client, party, await create(client, to=uri, key="order-11"))


# --- what else is made ------------------------------------------------------------------------------------------------


async def test_of_many_at_the_same_moment_one_makes_it_and_is_noted(server: ServerProcess, key: str) -> None:
    body = {"email": "berta@acme.example", "role": "viewer", "password": PASSWORD}
    async with asking(server, key) as client:
        found = await asyncio.gather(*(ask(client, "/users", "berta", **body) for _ in range(6)))
        (made,) = [told for status, told in found if status == 201]
        assert {status for status, _ in found} <= {200, 201, 409}
        again = await post(client, "/users", 200, "berta", **body)
        assert again == {**made, "replayed": "true"}
        assert made["id"] in {user["id"] for user in (await get(client, "/users"))["users"]}
    noted = [each["subject"] for each in await asyncio.to_thread(entries, server, "acme")]
    assert noted.count(f"user:{made['id']}") == 1


@pytest.mark.parametrize(
    ("path", "body", "told_once"),
    [
        ("/webhooks", {"url": "http://127.0.0.1:9/hook"}, "secret"),
        ("/keys", {"name": "crm", "scopes": ["calls:read"]}, "key"),
    ],
)
async def test_what_is_told_once_is_made_once_and_kept_nowhere(
    server: ServerProcess, key: str, path: str, body: dict[str, Any], told_once: str
) -> None:
    async with asking(server, key) as client:
        before = (await get(client, path))[path[1:]]
        made = await post(client, path, 201, f"once{path}", **body)
        again = await post(client, path, 409, f"once{path}", **body)
        assert (again["id"], again["replayed"]) == (made["id"], "true")
        assert len((await get(client, path))[path[1:]]) == len(before) + 1
        turned = await post(client, f"{path}/{made['id']}/rotate", 200 if path == "/webhooks" else 201, f"turn{path}")
        assert (await post(client, f"{path}/{made['id']}/rotate", 409, f"turn{path}"))["id"] == turned["id"]
    if not isinstance(server.store, str):
        kept = server.store.read_bytes() + server.store.with_name(f"{server.store.name}-wal").read_bytes()
        assert b'"id": "' + made["id"].encode() + b'"' in kept
        assert b'"' + made[told_once].encode() + b'"' not in kept


async def test_an_order_to_a_call_is_carried_out_once(server: ServerProcess, key: str) -> None:
    async with asking(server, key) as client:
        with Phone(server.sip_port) as phone:
            assert (await asyncio.to_thread(phone.invite, "echo")).code == 200
            page = await eventually(
                lambda: get(client, "/calls?to=echo"), lambda page: bool(page["calls"]), "the record"
            )
            (call,) = page["calls"]
            await until_state(client, call["id"], "answered")
            for replayed in ("", "true"):
                told = await post(client, f"/calls/{call['id']}/mute", 202, "mute")
                assert told == {"id": call["id"], "replayed": replayed}
            await asyncio.to_thread(phone.bye)
            await until_state(client, call["id"], "ended")
            told = await get(client, f"/calls/{call['id']}/events")
            assert [each["kind"] for each in told["events"]].count("call.muted") == 1
