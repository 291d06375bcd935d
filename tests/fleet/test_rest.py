"""The REST API of a fleet: whichever gateway is asked, calls of all cells are reached."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from sipserver.cli import keys as keys_cli
from tests.fakes.party import parties_at
from tests.fakes.until import eventually
from tests.harness.fleet import FleetProcess
from tests.harness.routed_phone import RoutedPhone

pytestmark = pytest.mark.peers

PLAN = """
tenant: acme
targets: ["*"]
flows:
  main: [answer, {echo: {max_s: 60}}]
routes:
  - {match: {direction: outbound}, flow: main}
  - {match: {to: echo}, flow: main}
"""


@asynccontextmanager
async def fleet_at(folder: Path, callee_port: int = 9, **more: Any) -> AsyncIterator[tuple[FleetProcess, str]]:
    """It, and an API key."""
    pbx = {"name": "pbx", "host": f"127.0.0.1:{callee_port}", "number_format": "as_is", "sources": ["127.0.0.1/32"]}
    overrides = {
        "trunks": [pbx],
        "fleet": {"gateways": 2, "heartbeat_s": 0.3, "host": "127.0.0.9"},
        "sip": {"host": "127.0.0.9"},
        "edge": {"inside": "127.0.0.9"},
        **more,
    }
    fleet = FleetProcess(folder, {"acme.yaml": PLAN}, overrides, calls=4)
    try:
        await asyncio.to_thread(fleet.start)
        assert '"level": "error"' not in fleet.log(), "a first start, without tables"
        yield fleet, await asyncio.to_thread(key_of, fleet)
    finally:
        await asyncio.to_thread(fleet.stop)


def key_of(fleet: FleetProcess, *scopes: str) -> str:
    words = ["create", "--tenant", "acme", "--name", "tests", "--config", str(fleet.settings_file)]
    for scope in scopes:
        words += ["--scope", scope]
    made = CliRunner().invoke(keys_cli.app, words)
    assert made.exit_code == 0, made.output
    return made.output.strip().splitlines()[-1]


async def ask(fleet: FleetProcess, key: str, method: str, path: str, **more: object) -> tuple[int, dict[str, object]]:
    """By a connection of its own, so that any gateway may take it."""
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "one"}
    url = f"http://127.0.0.1:{fleet.http_port}/api/v1{path}"
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.request(method, url, **more) as answer,  # type: ignore[arg-type]
    ):
        return answer.status, await answer.json() if answer.content_length else {}


async def test_a_call_is_placed_by_one_gateway_and_ended_by_another(tmp_path: Path) -> None:
    async with parties_at(9, "callee") as (party,), fleet_at(tmp_path, party.peer.port) as (fleet, key):
        party.peer.server_port = fleet.sip_port
        order = {"to": "200", "trunk": "pbx"}
        found = await asyncio.gather(*(ask(fleet, key, "POST", "/calls/create", json=order) for _ in range(6)))
        made = [told for status, told in found if status == 201]
        assert len(made) == 1, "one call for one Idempotency-Key, whoever was asked"
        assert {status for status, _ in found} <= {201, 200, 409}
        call_id = made[0]["id"]
        await party.is_called()
        await party.accepts()

        async def seen() -> str:
            return str((await ask(fleet, key, "GET", f"/calls/{call_id}"))[1]["state"])

        await eventually(seen, lambda state: state == "answered", "the answer")
        for _ in range(6):
            assert (await ask(fleet, key, "GET", f"/calls/{call_id}/status"))[0] == 200
        assert (await ask(fleet, key, "DELETE", f"/calls/{call_id}"))[0] == 204
        party.peer.answer(await party.peer.receive("BYE"), "200 OK")
        await eventually(seen, lambda state: state == "ended", "the end")
        _, page = await ask(fleet, key, "GET", "/calls")
        assert [call["id"] for call in page["calls"]] == [call_id]  # type: ignore[attr-defined]


async def test_a_dialplan_that_one_gateway_takes_is_in_force_in_all_cells(tmp_path: Path) -> None:
    async with fleet_at(tmp_path) as (fleet, key):
        _, told = await ask(fleet, key, "GET", "/trunks")
        assert [trunk["name"] for trunk in told["trunks"]] == ["pbx"]  # type: ignore[attr-defined]
        healthy = (200, {"status": "ok", "takes_calls": True, "database": True, "bus": True})
        await eventually(lambda: ask(fleet, key, "GET", "/health"), lambda told: told == healthy, "health")
        writer = await asyncio.to_thread(key_of, fleet, "dialplans:write", "calls:write")
        url = f"http://127.0.0.1:{fleet.http_port}/api/v1"
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {writer}"}) as client:

            async def placed() -> int:
                order = {"to": "200", "trunk": "pbx", "flow": "fresh"}
                async with client.post(f"{url}/calls/create", json=order) as answer:
                    return answer.status

            assert await placed() == 404
            changed = PLAN.replace("routes:", "  fresh: [hangup]\nroutes:")
            async with client.put(f"{url}/dialplans/acme", data=changed, headers={"If-Match": "*"}) as answer:
                assert answer.status == 200, await answer.text()
            await eventually(placed, lambda status: status == 201, "a call by the new dialplan")


async def test_redis_that_is_away_is_told_and_records_are_read(tmp_path: Path) -> None:
    async with fleet_at(tmp_path) as (fleet, key):
        assert fleet.redis._process is not None
        os.kill(fleet.redis._process.pid, signal.SIGSTOP)
        try:
            assert (await ask(fleet, key, "GET", "/calls"))[0] == 200
            status, told = await ask(fleet, key, "POST", "/calls/create", json={"to": "200", "trunk": "pbx"})
            assert status in (409, 503), told
        finally:
            os.kill(fleet.redis._process.pid, signal.SIGCONT)


async def test_minutes_are_used_up_in_all_cells_together_and_a_bill_is_made(tmp_path: Path) -> None:
    prices = {"list": [{"part": "call.inbound", "price": 1, "per": "minute", "rounding": "60/60"}]}
    async with fleet_at(tmp_path, tenants={"acme": {"minutes_a_day": 2}}, prices=prices) as (fleet, key):

        def call() -> int:
            with RoutedPhone(fleet.sip_port) as phone:
                code = phone.invite("echo").code
                if code == 200:
                    phone.bye()
                return code

        async def tried() -> int:
            return await asyncio.to_thread(call)

        assert await tried() == 200
        await eventually(tried, lambda code: code == 403, "the minutes of the day are used up")
        status, told = await ask(fleet, key, "POST", "/calls/create", json={"to": "200", "trunk": "pbx"})
        assert status == 429, told

        async def bill() -> dict[str, object]:
            today = datetime.now(UTC)
            whole = (
                f"from={today - timedelta(days=1):%Y-%m-%dT00:00:00Z}&to={today + timedelta(days=1):%Y-%m-%dT00:00:00Z}"
            )
            return (await ask(fleet, key, "GET", f"/usage?{whole}"))[1]

        await eventually(bill, lambda found: float(str(found["total"])) >= 1, "what the calls cost")
