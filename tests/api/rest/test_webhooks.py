"""Webhooks of a real server: made by REST, told what happens in calls, signed, in order, also after a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from tests.api.rest.test_calls import OTHER, PLAN, a_call, asking, get, key_of
from tests.fakes.until import eventually, until
from tests.harness.phone import Phone
from tests.harness.server import ServerProcess


class Receiver:
    """A server that is told. status: what it answers."""

    def __init__(self) -> None:
        self.status, self.url = 204, ""
        self.came: list[tuple[dict[str, str], bytes]] = []

    async def _take(self, request: web.Request) -> web.Response:
        self.came.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status, text="" if self.status == 204 else "no")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        app = web.Application()
        app.add_routes([web.post("/events", self._take)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/events"
        try:
            yield
        finally:
            await runner.cleanup()

    def of(self, call_id: str) -> list[dict[str, Any]]:
        """What was told of a call, each once, in the order in which it came first."""
        seen, found = set(), []
        for headers, body in self.came:
            told = json.loads(body)
            if told["data"]["call_id"] == call_id and headers["webhook-id"] not in seen:
                seen.add(headers["webhook-id"])
                found.append(told)
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: dict[str, Any]) -> Iterator[ServerProcess]:
    made = ServerProcess(
        tmp_path_factory.mktemp("hooks"),
        {"acme.yaml": PLAN, "zenith.yaml": OTHER},
        {"webhooks": {"allow_private": True}} | store,
    )
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    async with made.listening():
        yield made


@asynccontextmanager
async def hooked(
    server: ServerProcess, receiver: Receiver, tenant: str = "acme", **more: Any
) -> AsyncIterator[tuple[aiohttp.ClientSession, dict[str, Any]]]:
    """A client, and a webhook that it made."""
    key = await asyncio.to_thread(key_of, server, tenant)
    async with asking(server, key) as client:
        made = await send(client, "POST", "/webhooks", 201, url=receiver.url, **more)
        yield client, made
        async with client.delete(f"/api/v1/webhooks/{made['id']}") as answer:
            assert answer.status == 204


async def send(client: aiohttp.ClientSession, method: str, path: str, status: int = 200, **body: Any) -> Any:
    async with client.request(method, f"/api/v1{path}", json=body or None) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def test_a_call_is_told_signed_and_in_order(server: ServerProcess, receiver: Receiver) -> None:
    async with hooked(server, receiver) as (client, made):
        call_id = await asyncio.to_thread(a_call, server)
        await until(lambda: receiver.of(call_id)[-1:] != [] and receiver.of(call_id)[-1]["type"] == "call.ended")
        told = receiver.of(call_id)
        assert [each["data"]["seq"] for each in told] == list(range(len(told)))
        assert told[0]["type"] == "call.started"
        assert {each["data"]["tenant"] for each in told} == {"acme"}
        for headers, body in receiver.came:
            Webhook(made["secret"]).verify(body, headers)
        seen = await get(client, f"/webhooks/{made['id']}/deliveries?limit=3")
        assert [each["status"] for each in seen["deliveries"]] == [204] * 3
        assert "secret" not in await get(client, f"/webhooks/{made['id']}")


async def test_attempts_are_counted_for_the_operator(server: ServerProcess, receiver: Receiver) -> None:
    def counted(outcome: str) -> float:
        lines = server.get("/metrics").splitlines()
        name = f'sipserver_webhook_attempts_total{{outcome="{outcome}"}} '
        return float(next(line for line in lines if line.startswith(name)).removeprefix(name))

    before = await asyncio.to_thread(counted, "failed")
    async with hooked(server, receiver, kinds=["call.ended"]):
        receiver.status = 500
        call_id = await asyncio.to_thread(a_call, server)
        await until(lambda: bool(receiver.of(call_id)), "the first attempt")
        await eventually(lambda: asyncio.to_thread(counted, "failed"), lambda now: now > before, "the count")


async def test_only_the_kinds_that_are_wanted_and_only_of_the_tenant(server: ServerProcess, receiver: Receiver) -> None:
    other = Receiver()
    async with other.listening(), hooked(server, other, "zenith"), hooked(server, receiver, kinds=["call.*"]):
        call_id = await asyncio.to_thread(a_call, server)
        await until(lambda: any(each["type"] == "call.ended" for each in receiver.of(call_id)))
        assert {each["type"].partition(".")[0] for each in receiver.of(call_id)} == {"call"}
        assert not other.came


async def test_what_an_endpoint_wants_waits_for_no_batch(tmp_path: Path, receiver: Receiver) -> None:
    """Nothing is written here because its time has come."""
    hasty = {"webhooks": {"allow_private": True}, "store": {"flush_ms": 600_000}}
    own = ServerProcess(tmp_path, {"acme.yaml": PLAN}, hasty)
    own.start()
    try:
        async with asking(own, await asyncio.to_thread(key_of, own)) as client:
            await send(client, "POST", "/webhooks", 201, url=receiver.url, kinds=["call.*"])
            call_id = await asyncio.to_thread(a_call, own)
            await until(lambda: receiver.of(call_id)[-1:] != [] and receiver.of(call_id)[-1]["type"] == "call.ended")
    finally:
        own.stop()


async def test_a_receiver_that_was_away_is_told_after_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    own = ServerProcess(tmp_path, {"acme.yaml": PLAN}, {"webhooks": {"allow_private": True}})
    own.start()
    try:
        receiver.status = 503
        async with asking(own, await asyncio.to_thread(key_of, own)) as client:
            made = await send(client, "POST", "/webhooks", 201, url=receiver.url, kinds=["call.*"])
            call_id = await asyncio.to_thread(a_call, own)
            await until(lambda: bool(receiver.came), "the first try")
            waiting = await get(client, f"/webhooks/{made['id']}/deliveries")
            assert waiting["waiting"] > 1, "the rest of the call waits behind the first"
        await asyncio.to_thread(own.kill)
        receiver.status = 204
        await asyncio.to_thread(own.start)
        await until(lambda: any(each["type"] == "call.ended" for each in receiver.of(call_id)), "the end of the call")
        kinds = [each["type"] for each in receiver.of(call_id)]
        assert kinds[0] == "call.started"
        assert kinds[-1] == "call.ended"
    finally:
        own.stop()


async def test_a_webhook_is_tried_changed_and_given_a_new_secret(server: ServerProcess, receiver: Receiver) -> None:
    async with hooked(server, receiver) as (client, made):
        path = f"/webhooks/{made['id']}"
        tried = await send(client, "POST", f"{path}/test")
        assert (tried["status"], json.loads(receiver.came[-1][1])["type"]) == (204, "webhook.test")
        assert (await get(client, f"{path}/deliveries"))["deliveries"][0] == tried
        new = await send(client, "POST", f"{path}/rotate")
        assert new["secret"] != made["secret"]
        await send(client, "POST", f"{path}/test")
        headers, body = receiver.came[-1]
        for secret in (made["secret"], new["secret"]):
            Webhook(secret).verify(body, headers)
        off = await send(client, "PATCH", path, enabled=False)
        assert (off["enabled"], "API key" in off["disabled_reason"]) == (False, True)
        assert (await send(client, "PATCH", path, enabled=True, kinds=["call.ended"]))["kinds"] == ["call.ended"]


async def test_what_was_not_taken_is_seen_and_replayed(server: ServerProcess, receiver: Receiver) -> None:
    async with hooked(server, receiver, kinds=["call.*"]) as (client, made):
        path = f"/webhooks/{made['id']}"
        receiver.status = 410
        await asyncio.to_thread(a_call, server)
        gone = await eventually(lambda: get(client, path), lambda seen: not seen["enabled"])
        assert "410" in gone["disabled_reason"]
        letters = (await eventually(lambda: get(client, f"{path}/dead"), lambda told: bool(told["letters"])))["letters"]
        receiver.status = 204
        assert "enable" in (await send(client, "POST", f"{path}/replay", 400, message=letters[0]["id"]))["detail"]
        await send(client, "PATCH", path, enabled=True)
        before = len(receiver.came)
        assert (await send(client, "POST", f"{path}/replay", 202, since="2020-01-01T00:00:00Z"))["count"] == len(
            letters
        )
        await until(lambda: len(receiver.came) >= before + len(letters), "all of them")
        await send(client, "POST", f"{path}/replay", 400)
        await send(client, "POST", f"{path}/replay", 422, since="0001-01-01T00:00:00+14:00")
        for page in ("deliveries?before", "dead?after"):
            await get(client, f"{path}/{page}={(1 << 63) - 1}")
            await get(client, f"{path}/{page}={1 << 63}", 422)


async def test_urls_that_will_not_do_are_refused(server: ServerProcess) -> None:
    async with asking(server, await asyncio.to_thread(key_of, server)) as client:
        for url in ("ftp://example.com", "https://user:pass@example.com", "nonsense"):
            await send(client, "POST", "/webhooks", 400, url=url)


async def test_nobody_elses_webhooks(server: ServerProcess, receiver: Receiver) -> None:
    async with hooked(server, receiver) as (_, made):
        theirs = await asyncio.to_thread(key_of, server, "zenith")
        async with asking(server, theirs) as client:
            assert (await get(client, "/webhooks"))["webhooks"] == []
            for method, path in (
                ("GET", ""),
                ("PATCH", ""),
                ("DELETE", ""),
                ("POST", "/test"),
                ("POST", "/rotate"),
                ("GET", "/deliveries"),
                ("GET", "/dead"),
                ("POST", "/replay"),
            ):
                body = {"since": "2020-01-01T00:00:00Z"} if path == "/replay" else {}
                told = await send(client, method, f"/webhooks/{made['id']}{path}", 404, **body)
                assert "secret" not in told


async def test_the_end_of_a_call_whose_server_was_killed_is_told(
    tmp_path: Path, store: dict[str, Any], receiver: Receiver
) -> None:
    server = ServerProcess(tmp_path, {"acme.yaml": PLAN}, {"webhooks": {"allow_private": True}} | store)
    await asyncio.to_thread(server.start)
    try:
        async with hooked(server, receiver, kinds=["call.*"]) as (client, made):
            with Phone(server.sip_port) as phone:
                assert (await asyncio.to_thread(phone.invite, "echo")).code == 200
                await until(lambda: b"answered" in b"".join(body for _, body in receiver.came), "the answer")
                call_id = json.loads(receiver.came[0][1])["data"]["call_id"]
                path = f"/webhooks/{made['id']}/deliveries"  # what is on its way is claimed for a while
                await eventually(lambda: get(client, path), lambda seen: seen["waiting"] == 0)
                await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await until(lambda: [each["type"] for each in receiver.of(call_id)][-1:] == ["call.ended"], "the end")
            told = receiver.of(call_id)
            assert told[0]["type"] == "call.started"
            assert told[-1]["data"]["fields"]["reason"] == "crash"
            assert told[-1]["data"]["seq"] == (await get(client, f"/calls/{call_id}/events"))["events"][-1]["seq"]
            numbers = [each["data"]["seq"] for each in told]
            assert numbers == sorted(set(numbers))
    finally:
        await asyncio.to_thread(server.stop)
