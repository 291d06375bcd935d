"""PostgreSQL goes away and comes back under a running server: REST says 503, calls go on, their records follow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from sipserver.tenants.keys import ALL
from tests.api.rest.test_calls import OTHER, PLAN, a_call, asking, create, get, key_of
from tests.api.rest.test_events import following
from tests.fakes.until import eventually, until
from tests.harness.phone import Phone, tone
from tests.harness.records import records
from tests.harness.server import ServerProcess
from tests.servers.postgres import Postgres

READS = ("/calls", "/keys", "/users", "/webhooks", "/audit", "/usage?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z")


async def status_of(client: aiohttp.ClientSession, path: str) -> int:
    async with client.get(f"/api/v1{path}") as answer:
        return answer.status


async def hears_its_echo(phone: Phone) -> None:
    began = len(phone.received)
    phone.say(tone(300))
    await until(lambda: any(packet.level > 3000 for packet in phone.received[began:]), "the echo")


async def test_database_gone_in_the_middle_rest_says_503_calls_go_on_and_records_follow(
    tmp_path: Path, postgres: Postgres
) -> None:
    store = {"store": {"url": postgres.url(postgres.database(migrated=False))}}
    server = ServerProcess(tmp_path, {"acme.yaml": PLAN, "zenith.yaml": OTHER}, store)
    await asyncio.to_thread(server.start)
    try:
        key = await asyncio.to_thread(key_of, server, "acme", *ALL)
        before = await asyncio.to_thread(a_call, server)
        async with asking(server, key) as client, following(server, key) as follower:
            await follower.until("events.live")
            with Phone(server.sip_port) as phone, Phone(server.sip_port) as late:
                assert (await asyncio.to_thread(phone.invite, "echo")).code == 200
                phone.start_media()
                await hears_its_echo(phone)
                await asyncio.to_thread(postgres.stop)
                try:
                    for path in READS:
                        async with client.get(f"/api/v1{path}") as answer:
                            told: Any = await answer.json()
                            assert (answer.status, answer.content_type) == (503, "application/problem+json"), path
                            assert (told["status"], bool(answer.headers["Retry-After"])) == (503, True)
                    await create(client, 503, to="sip:1@127.0.0.1:9")
                    await hears_its_echo(phone)
                    assert (await asyncio.to_thread(late.invite, "echo")).code == 200
                    late.start_media()
                    await hears_its_echo(late)
                    await asyncio.to_thread(late.bye)
                finally:
                    await asyncio.to_thread(postgres.start)
                assert await eventually(lambda: status_of(client, "/calls"), lambda seen: seen == 200)
                await hears_its_echo(phone)
                await asyncio.to_thread(phone.bye)

            def ended() -> set[str]:
                return {each.sip_call_id for each in records(server.store) if each.reason == "caller_hangup"}

            await until(lambda: {phone.call_id, late.call_id} <= ended(), "the records")
            for each in (phone, late):
                (record,) = records(server.store, each.call_id)
                assert record.numbers == tuple(range(len(record.numbers)))
                assert record.kinds[-1] == "call.ended"
                await get(client, f"/calls/{record.call_id}/transcript")
            await get(client, f"/calls/{before}")
            assert follower.closed is None
    finally:
        assert await asyncio.to_thread(server.stop) == 0
    assert "Traceback" not in server.log()
