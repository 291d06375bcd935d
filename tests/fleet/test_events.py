"""Events of a real fleet by WebSocket: whichever gateway is asked, calls of all cells are told."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.api.rest.test_events import Follower, following, refused
from tests.fakes.until import eventually
from tests.fleet.test_rest import ask, fleet_at
from tests.harness.fleet import FleetProcess
from tests.harness.phone import Phone

pytestmark = pytest.mark.peers


def a_call(fleet: FleetProcess) -> None:
    """One that is answered, and ended by the caller."""
    with Phone(fleet.sip_port) as phone:
        assert phone.invite("echo").code == 200
        phone.bye()


async def ended(follower: Follower, count: int) -> list[str]:
    """Until so many calls have ended; their ids."""
    while len(found := [each["call_id"] for each in follower.heard if each["kind"] == "call.ended"]) < count:
        await follower.until("call.ended")
    return found


async def kept(fleet: FleetProcess, key: str, call_id: str) -> list[int]:
    """The numbers of the call's events, once its record is whole."""

    async def look() -> Any:
        return (await ask(fleet, key, "GET", f"/calls/{call_id}/events"))[1].get("events", [])

    found = await eventually(look, lambda told: any(each["kind"] == "call.ended" for each in told), "the record")
    return [each["seq"] for each in found]


async def test_calls_of_all_cells_are_told_once_and_in_order_by_every_gateway(tmp_path: Path) -> None:
    async with fleet_at(tmp_path) as (fleet, key):
        assert "zenith" in await refused(fleet, key, 404, tenant="zenith")
        async with following(fleet, key) as one, following(fleet, key) as two:
            async with following(fleet, key) as broken:
                for each in (one, two, broken):
                    await each.until("events.live")
                await asyncio.gather(*(asyncio.to_thread(a_call, fleet) for _ in range(3)))
                await broken.until("call.started")
            calls = await ended(one, 3)
            assert sorted(await ended(two, 3)) == sorted(calls)
        await asyncio.to_thread(a_call, fleet)
        async with following(fleet, key, after=broken.cursor) as back:
            await back.until("events.live")
            await ended(back, 4 - sum(each["kind"] == "call.ended" for each in broken.heard))
        for call_id in calls:
            written = await kept(fleet, key, call_id)
            for heard in (one.of(call_id), two.of(call_id)):
                seqs = [each["seq"] for each in heard]
                assert seqs == list(range(len(seqs))), "nothing is missing, nothing comes twice"
            assert [each["seq"] for each in (*broken.of(call_id), *back.of(call_id))] == written


async def test_the_end_of_a_call_whose_cell_is_killed_is_told(tmp_path: Path) -> None:
    async with fleet_at(tmp_path) as (fleet, key), following(fleet, key, kinds="call.*") as follower:
        await follower.until("events.live")
        with Phone(fleet.sip_port) as phone:
            assert (await asyncio.to_thread(phone.invite, "echo")).code == 200
            await follower.until("call.routed")
            await asyncio.to_thread(_kill_cells, fleet)
            await follower.until("call.ended")
        assert follower.heard[-1]["fields"]["reason"] == "crash"


def _kill_cells(fleet: FleetProcess) -> None:
    for index in range(len(fleet.of("cell"))):
        fleet.signal("cell", signal.SIGKILL, index)
