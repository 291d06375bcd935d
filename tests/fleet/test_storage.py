"""The limit of stored sound in a whole fleet on PostgreSQL: a call that is being recorded uses up what its tenant may
keep; calls after it go on without a recording, in any cell and whichever gateway is asked, until something is erased.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.api.rest.test_events import following
from tests.fakes.until import eventually, until
from tests.fleet.test_rest import key_of
from tests.harness.fleet import FleetProcess
from tests.harness.records import Record
from tests.harness.routed_phone import RoutedPhone
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.peers

MOST = 200_000
"""Bytes: about three seconds."""
PLAN = """
tenant: acme
flows:
  main: [answer, record, {echo: {max_s: 600}}]
routes:
  - {match: {to: echo}, flow: main}
"""


class Office:
    def __init__(self, fleet: FleetProcess, key: str) -> None:
        self.fleet, self.key = fleet, key

    async def call(self, phone: RoutedPhone, recording: str) -> Record:
        """A call that hears its echo; its record once it says what became of its recording."""
        assert (await asyncio.to_thread(phone.invite, "echo")).code == 200
        phone.start_media()
        await until(lambda: len(phone.received) > 20, "the echo")

        async def look() -> Record | None:
            found = await asyncio.to_thread(self.fleet.records, phone.call_id)
            return found[0] if found and found[0].recording_status == recording else None

        found = await eventually(look, bool, f"a recording that is {recording}")
        assert found is not None
        return found

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any]]:
        """By a connection of its own, so that any gateway may take it."""
        url = f"http://127.0.0.1:{self.fleet.http_port}/api/v1{path}"
        headers = {"Authorization": f"Bearer {self.key}"}
        async with (
            aiohttp.ClientSession(headers=headers) as client,
            client.request(method, url, **more) as answer,
        ):
            return answer.status, await answer.json()

    async def stored(self) -> int:
        told: dict[str, Any] = (await self.ask("GET", "/tenant"))[1]["storage_bytes"]
        assert told["limit"] == MOST
        return int(told["used"])

    async def record(self, call: Record) -> tuple[int, str]:
        """What is said to `record`, and why."""
        path = f"/calls/{call.call_id}/record"
        status, told = await self.ask("POST", path, json={"action": "start"})
        return status, str(told.get("detail", ""))


@pytest.fixture
async def office(tmp_path: Path, postgres: Postgres) -> AsyncIterator[Office]:
    overrides = {
        "fleet": {"gateways": 2, "heartbeat_s": 0.3},
        "tenants": {"acme": {"storage_bytes": MOST}},
        "sip": {"inbound_calls": 1},
    }
    url = postgres.url(postgres.database(migrated=False))
    fleet = FleetProcess(tmp_path / "fleet", {"acme.yaml": PLAN}, overrides, calls=4, store_url=url)
    try:
        await asyncio.to_thread(fleet.start)
        scopes = ("calls:read", "calls:write", "config:read", "events:read", "privacy:write")
        yield Office(fleet, await asyncio.to_thread(key_of, fleet, *scopes))
    finally:
        await asyncio.to_thread(fleet.stop)
    assert "Traceback" not in fleet.log()


async def test_a_tenant_whose_storage_is_full_records_no_more_until_something_is_erased(office: Office) -> None:
    with RoutedPhone(office.fleet.sip_port) as first, RoutedPhone(office.fleet.sip_port) as second:
        async with following(office.fleet, office.key, kinds="limit.near") as follower:
            await follower.until("events.live")
            running = await office.call(first, "recording")
            await follower.until("limit.near")
        assert (follower.heard[-1]["call_id"], follower.heard[-1]["fields"]["limit"]) == ("", "storage_bytes")
        async with following(office.fleet, office.key, after=follower.heard[0]["cursor"], kinds="limit.near") as again:
            await again.until("events.live")
        assert again.heard[:-1] == follower.heard[1:], "it comes again to whoever was away, by any gateway"
        await eventually(office.stored, lambda used: used >= MOST, "a recording that runs uses it up")
        assert (await office.record(running))[0] == 202, "it is being recorded"
        await eventually(lambda: full(office), bool, "whoever counts has seen it")
        without = await office.call(second, "refused")
        (reason,) = [event["reason"] for event in without.of("recording.refused")]
        assert reason.startswith("the limit storage_bytes is reached: ")
        assert f" of {MOST}" in reason
        status, problem = await office.record(without)
        assert status == 507
        assert "storage_bytes" in problem
        heard = len(second.received)
        await until(lambda: len(second.received) > heard + 20, "the call goes on")
        assert not (await asyncio.to_thread(office.fleet.records, first.call_id))[0].reason
        for phone in (first, second):
            await asyncio.to_thread(phone.bye)
    for call_id, recording in ((first.call_id, "complete"), (second.call_id, "refused")):
        (record,) = await asyncio.to_thread(office.fleet.await_records, 1, sip_call_id=call_id)
        assert record.recording_status == recording
    assert await office.stored() > MOST, "what ran goes on to its end"
    status, erased = await office.ask("POST", "/privacy/erase", json={"number": "phone"})
    assert status == 200, erased
    assert await office.stored() == 0
    await eventually(lambda: full(office), lambda answer: not answer, "there is room again")
    with RoutedPhone(office.fleet.sip_port) as third:
        await office.call(third, "recording")
        await asyncio.to_thread(third.bye)


async def full(office: Office) -> bool:
    """Whether a call that begins now is not recorded."""
    with RoutedPhone(office.fleet.sip_port) as phone:
        assert (await asyncio.to_thread(phone.invite, "echo")).code == 200
        phone.start_media()

        async def look() -> str:
            found = await asyncio.to_thread(office.fleet.records, phone.call_id)
            return found[0].recording_status if found else ""

        status = await eventually(look, bool)
        await asyncio.to_thread(phone.bye)
        return status == "refused"
