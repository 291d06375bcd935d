"""Events for programs, of a real server: the catalogue, and the WebSocket with an API key."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import jsonschema
import pytest
from typer.testing import CliRunner

from sipserver.cli import keys as keys_cli
from tests.api.rest.test_calls import OTHER, PLAN, a_call, asking, get, key_of
from tests.api.rest.test_webhooks import Receiver, send
from tests.fakes.until import until
from tests.harness.server import ServerProcess

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    made = ServerProcess(
        tmp_path_factory.mktemp("events"),
        {"acme.yaml": PLAN, "zenith.yaml": OTHER},
        {"webhooks": {"allow_private": True}},
    )
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()


@pytest.fixture(scope="module")
def key(server: ServerProcess) -> str:
    return key_of(server)


class Reachable(Protocol):
    """A server, or a fleet."""

    http_port: int


class Follower:
    """A client of the event WebSocket. heard: all messages up to the last that was waited for; cursor: of that one.

    It reads all the time: who does not answer pings is cut. closed: code and reason, when the server has closed.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._came: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.heard: list[dict[str, Any]] = []
        self.cursor = ""
        self.closed: tuple[int, str] | None = None

    async def read(self) -> None:
        while (message := await self._socket.receive()).type is aiohttp.WSMsgType.TEXT:
            self._came.put_nowait(json.loads(message.data))
        self.closed = (int(message.data or 0), str(message.extra)) if message.type is aiohttp.WSMsgType.CLOSE else None
        self._came.put_nowait(None)

    async def until(self, kind: str, call_id: str = "") -> None:
        """Until such a message has come."""
        async with asyncio.timeout(PATIENCE_S):
            while (message := await self._came.get()) is not None:
                self.heard.append(message)
                self.cursor = message["cursor"]
                if message["kind"] == kind and call_id in ("", message.get("call_id")):
                    return
        raise AssertionError(f"closed before {kind}: {self.closed}")

    async def until_closed(self) -> tuple[int, str]:
        async with asyncio.timeout(PATIENCE_S):
            while await self._came.get() is not None:
                pass
        assert self.closed is not None
        return self.closed

    def of(self, call_id: str) -> list[dict[str, Any]]:
        return [each for each in self.heard if each.get("call_id") == call_id]


@asynccontextmanager
async def following(server: Reachable, key: str, *, tenant: str = "acme", **query: str) -> AsyncIterator[Follower]:
    url = f"ws://127.0.0.1:{server.http_port}/ws/events/{tenant}"
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(url, params=query, headers={"Authorization": f"Bearer {key}"}) as socket,
    ):
        follower = Follower(socket)
        reading = asyncio.create_task(follower.read(), name="follower")
        try:
            yield follower
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def recorded(server: ServerProcess, key: str, call_id: str) -> list[dict[str, Any]]:
    async with asking(server, key) as client:
        return list((await get(client, f"/calls/{call_id}/events"))["events"])


async def refused(server: Reachable, key: str, status: int, *, tenant: str = "acme", **query: str) -> str:
    url = f"http://127.0.0.1:{server.http_port}/ws/events/{tenant}"
    headers = {
        "Authorization": f"Bearer {key}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with aiohttp.ClientSession() as client, client.get(url, params=query, headers=headers) as answer:
        assert answer.status == status
        return str((await answer.json())["error"]["message"])


# --- the catalogue ----------------------------------------------------------------------------------------------------


async def test_real_events_are_as_the_catalogue_says_on_every_way(server: ServerProcess, key: str) -> None:
    receiver = Receiver()
    async with asking(server, "") as nobody:
        catalogue = await get(nobody, "/events/catalogue")
    schemas = {each["kind"]: each["schema"] for each in catalogue["events"]}
    async with receiver.listening(), asking(server, key) as client, following(server, key) as follower:
        hook = await send(client, "POST", "/webhooks", 201, url=receiver.url)
        await follower.until("events.live")
        call_id = await asyncio.to_thread(a_call, server)
        await follower.until("call.ended", call_id)
        await until(lambda: [each["type"] for each in receiver.of(call_id)][-1:] == ["call.ended"], "the webhook")
        live, hooked, kept = follower.of(call_id), receiver.of(call_id), await recorded(server, key, call_id)
        async with client.delete(f"/api/v1/webhooks/{hook['id']}") as answer:
            assert answer.status == 204
    assert "events.live" in {message["kind"] for message in follower.heard}
    for message in (*follower.heard, *kept):
        jsonschema.validate(message, catalogue["message"])
    for message in (*live, *kept):
        jsonschema.validate(message["fields"], schemas[message["kind"]])
    for told in hooked:
        jsonschema.validate(told["data"]["fields"], schemas[told["type"]])
    shared = ("seq", "at_ms", "fields")
    assert len(live) > 10
    assert [{name: each[name] for name in ("kind", "timestamp", *shared)} for each in live] == kept[: len(live)]
    as_hooked = [{"kind": one["type"], **{name: one["data"][name] for name in shared}} for one in hooked]
    assert as_hooked == [{name: each[name] for name in ("kind", *shared)} for each in live][: len(as_hooked)]


# --- who may listen ---------------------------------------------------------------------------------------------------


async def test_who_may_not_listen_is_told_why(server: ServerProcess, key: str) -> None:
    reader = await asyncio.to_thread(key_of, server, "acme", "calls:read")
    assert "zenith" in await refused(server, key, 404, tenant="zenith")
    assert "nobody" in await refused(server, key, 404, tenant="nobody")
    assert "events:read" in await refused(server, reader, 403)
    assert "API key" in await refused(server, key[:-1] + ("x" if key[-1] != "x" else "y"), 401)
    assert "cursor" in await refused(server, key, 400, after="nonsense")
    assert "older than a day" in await refused(server, key, 410, after="e1.5af3107a4000")
    assert "patterns" in await refused(server, key, 400, kinds=",".join(["a"] * 33))
    assert "`dtmf.*`" in await refused(server, key, 400, kinds="call.*,dtmf.*")


async def test_a_key_may_come_as_browsers_send_it(server: ServerProcess, key: str) -> None:
    url = f"ws://127.0.0.1:{server.http_port}/ws/events/acme"
    async with aiohttp.ClientSession() as client, client.ws_connect(url, protocols=[f"token.{key}"]) as socket:
        assert (await socket.receive_json())["kind"] == "events.live"


async def test_following_stands_in_the_audit_log(server: ServerProcess, key: str) -> None:
    async with following(server, key) as follower:
        await follower.until("events.live")
    found = await asyncio.to_thread(_deeds, server)
    assert ("events.followed", "tenant:acme") in found


def _deeds(server: ServerProcess) -> list[tuple[str, str]]:
    with sqlite3.connect(server.database, timeout=5) as database:
        return list(database.execute("SELECT action, subject FROM audit"))


async def test_the_socket_of_a_key_that_is_revoked_is_closed(server: ServerProcess, key: str) -> None:
    doomed = await asyncio.to_thread(key_of, server)
    async with following(server, key) as other, following(server, doomed) as follower:
        await follower.until("events.live")
        words = ["revoke", doomed.split("_")[1], "--config", str(server.settings_file)]
        revoked = await asyncio.to_thread(CliRunner().invoke, keys_cli.app, words)
        assert revoked.exit_code == 0, revoked.output
        code, reason = await follower.until_closed()
        assert code == 4401
        assert "revoked" in reason
        assert other.closed is None
    await refused(server, doomed, 401)


# --- what is told -----------------------------------------------------------------------------------------------------


async def test_kinds_and_a_call_choose(server: ServerProcess, key: str) -> None:
    async with following(server, key, kinds="call.*") as by_kind:
        await by_kind.until("events.live")
        call_id = await asyncio.to_thread(a_call, server)
        await by_kind.until("call.ended", call_id)
    assert {each["kind"].partition(".")[0] for each in by_kind.of(call_id)} == {"call"}
    async with following(server, key, call=call_id, after=by_kind.heard[0]["cursor"]) as by_call:
        await by_call.until("events.live")
        assert [each["seq"] for each in by_call.of(call_id)] == [
            each["seq"] for each in await recorded(server, key, call_id)
        ]
        assert len(by_call.heard) == len(by_call.of(call_id)) + 1


async def test_another_tenant_hears_nothing(server: ServerProcess, key: str) -> None:
    theirs = await asyncio.to_thread(key_of, server, "zenith")
    async with following(server, key) as ours, following(server, theirs, tenant="zenith") as follower:
        await ours.until("events.live")
        await follower.until("events.live")
        call_id = await asyncio.to_thread(a_call, server)
        await ours.until("call.ended", call_id)
        other = await asyncio.to_thread(a_call, server, "zenith")
        await follower.until("call.ended", other)
    assert not follower.of(call_id)
    assert follower.of(other)


async def test_after_a_break_nothing_is_missing_and_nothing_comes_twice(server: ServerProcess, key: str) -> None:
    """The client breaks off in the middle of calls, again and again."""
    calls = asyncio.create_task(_calls(server, 3))
    heard: list[dict[str, Any]] = []
    cursor = ""
    async with following(server, key) as follower:
        await follower.until("events.live")
        cursor = follower.cursor
    while True:
        over = calls.done()
        async with following(server, key, after=cursor) as follower:
            await follower.until("events.live")
            if not over:
                await _entered_or(follower, calls)
            heard += follower.heard
            cursor = follower.cursor
        if over:
            break
    for call_id in await calls:
        kept = await recorded(server, key, call_id)
        assert [each["seq"] for each in heard if each.get("call_id") == call_id] == [each["seq"] for each in kept]


async def _entered_or(follower: Follower, calls: asyncio.Task[list[str]]) -> None:
    """Until a step was entered, or the calls are over: the last one may have been heard of before."""
    entered = asyncio.create_task(follower.until("step.entered"), name="entered")
    await asyncio.wait({entered, calls}, return_when=asyncio.FIRST_COMPLETED)
    if entered.done():
        await entered
    entered.cancel()
    await asyncio.gather(entered, return_exceptions=True)


async def _calls(server: ServerProcess, count: int) -> list[str]:
    return [await asyncio.to_thread(a_call, server) for _ in range(count)]


async def test_a_cursor_outlives_the_process(tmp_path: Path) -> None:
    own = ServerProcess(tmp_path, {"acme.yaml": PLAN})
    own.start()
    try:
        key = await asyncio.to_thread(key_of, own)
        async with following(own, key) as before:
            await before.until("events.live")
            first = await asyncio.to_thread(a_call, own)
            await before.until("call.started", first)
        await asyncio.to_thread(own.stop)
        await asyncio.to_thread(own.start)
        second = await asyncio.to_thread(a_call, own)
        async with following(own, key, after=before.cursor) as after:
            await after.until("events.live")
        for call_id in (first, second):
            kept = [each["seq"] for each in await recorded(own, key, call_id)]
            assert [each["seq"] for each in (*before.of(call_id), *after.of(call_id))] == kept
        assert json.dumps(after.of(second))
    finally:
        own.stop()
