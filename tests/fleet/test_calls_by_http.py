"""Calls that come to a gateway of a fleet over HTTP: they are there, they call telephones by the edge, and they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from sipserver.bus.once import MemoryOnce
from sipserver.gate.tokens import Claims, Tokens
from tests.fakes.party import parties_at
from tests.harness.fleet import FleetProcess
from tests.harness.voice import VoiceClient, voice_client
from tests.streams.test_twilio import ACCOUNT, TOKEN, level, tone
from tools.conformance.twilio_cloud import TwilioCloud, twilio_cloud

pytestmark = pytest.mark.peers

PATIENCE_S = 60
"""A rolling restart of a fleet, on a machine that does something else, too."""
SECRET = "the secret of these tests, long enough"
PLAN = """
tenant: acme
targets: ["*"]
flows:
  echo: [answer, {echo: {max_s: 120}}]
  bridge: [{bridge: {to: "200", trunk: pbx, on: {failed: lost}}}, hangup]
  lost: [answer, {echo: {max_s: 1}}]
  away: [{transfer: {to: "+493055555", mode: blind, on: {busy: echo, failed: lost}}}]
  office: [{bridge: {to: "+493055555", trunk: main, on: {failed: lost}}}, hangup]
routes:
  - {match: {to: echo}, flow: echo}
  - {match: {to: bridge}, flow: bridge}
  - {match: {to: office}, flow: office}
  - {match: {to: "+4930123456"}, flow: away}
"""


@asynccontextmanager
async def fleet_at(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    port: int = 9,
    streams: Mapping[str, Any] | None = None,
    drain_s: float = 5,
) -> AsyncIterator[FleetProcess]:
    monkeypatch.setenv("TEST_TOKEN_SECRET", SECRET)
    pbx = {"name": "pbx", "host": f"127.0.0.1:{port}", "number_format": "as_is", "sources": ["127.0.0.1/32"]}
    overrides = {
        "gate": {"secret_env": "TEST_TOKEN_SECRET"},
        "trunks": [pbx],
        "fleet": {"gateways": 2, "heartbeat_s": 0.3, "host": "127.0.0.9"},
        "sip": {"host": "127.0.0.9"},
        "edge": {"inside": "127.0.0.9"},
    }
    overrides |= {"streams": streams or {}, "calls": {"drain_s": drain_s}}
    fleet = FleetProcess(folder, {"acme.yaml": PLAN}, overrides, calls=3)
    fleet.settings["gate"]["public_url"] = f"http://127.0.0.1:{fleet.http_port}"
    fleet.settings_file.write_text(yaml.safe_dump(fleet.settings, sort_keys=False))
    try:
        await asyncio.to_thread(fleet.start)
        yield fleet
    finally:
        await asyncio.to_thread(fleet.stop)


@asynccontextmanager
async def calling(fleet: FleetProcess, to: str) -> AsyncIterator[VoiceClient]:
    token = Tokens(SECRET.encode(), MemoryOnce()).issue(Claims("voice", to=to, from_user="anna"))
    async with voice_client(f"ws://127.0.0.1:{fleet.http_port}", token) as client:
        await client.connect()
        yield client


async def echoed(client: VoiceClient) -> None:
    before = len(client.sound)
    await client.speak(b"\x10\x20" * 320 * 50, pace_s=0.01)
    await client.until(lambda: len(client.sound) > before + 640 * 30, "the echo")


async def test_gateways_have_calls_and_the_record_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet_at(tmp_path, monkeypatch) as fleet:
        async with calling(fleet, "echo") as one, calling(fleet, "echo") as other:
            await asyncio.gather(echoed(one), echoed(other))
            await asyncio.to_thread(fleet.await_that, lambda status: status["calls"] == 2, "two calls")
            for client in (one, other):
                await client.say("hangup")
                await client.ended()
        found = await asyncio.to_thread(fleet.await_records, 2)
        assert {record.reason for record in found} == {"caller_hangup"}
        assert {record.call_id for record in found} == {one.call_id, other.call_id}


async def test_a_token_is_good_for_one_call_on_all_gateways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet_at(tmp_path, monkeypatch) as fleet:
        token = Tokens(SECRET.encode(), MemoryOnce()).issue(Claims("voice", to="echo"))
        url = f"ws://127.0.0.1:{fleet.http_port}"
        taken = 0
        for _ in range(8):
            async with voice_client(url, token) as client:
                with contextlib.suppress(aiohttp.WSServerHandshakeError):
                    await client.connect()
                    taken += 1
        assert taken == 1


async def test_a_call_by_http_is_bridged_with_a_telephone_by_the_edge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties_at(9, "callee") as (callee,), fleet_at(tmp_path, monkeypatch, callee.peer.port) as fleet:
        callee.peer.server_port = fleet.sip_port
        async with calling(fleet, "bridge") as client:
            await callee.is_called()
            await callee.accepts()
            await client.until(lambda: len(client.sound) > 640 * 50, "the callee")
            await client.say("hangup")
            callee.peer.answer(await callee.peer.receive("BYE"), "200 OK")
        found = await asyncio.to_thread(fleet.await_records, 1)
        assert found[0].reason == "caller_hangup"


async def test_the_calls_of_a_gateway_that_dies_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet_at(tmp_path, monkeypatch) as fleet, calling(fleet, "echo") as client:
        await echoed(client)
        status = await asyncio.to_thread(
            fleet.await_that, lambda status: any(each["calls"] for each in status["children"]), "a gateway with a call"
        )
        (owner,) = [each for each in status["children"] if each["calls"]]
        assert owner["kind"] == "gateway"
        os.kill(owner["pid"], signal.SIGKILL)
        await client.ended()
        found = await asyncio.to_thread(fleet.await_records, 1)
        assert found[0].reason == "crash"
        await asyncio.to_thread(fleet.await_that, lambda now: len(gateways(now)) == 2, "a new gateway", PATIENCE_S)


async def test_a_client_comes_back_to_its_call_whichever_gateway_it_meets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet_at(tmp_path, monkeypatch) as fleet, calling(fleet, "echo") as client:
        for _ in range(6):
            client.break_line()
            await client.ended()
            await client.come_back()
        await echoed(client)
        assert not client.twice_said
        await client.say("hangup")
        await client.ended()
        (record,) = await asyncio.to_thread(fleet.await_records, 1)
    assert len(record.of("stream.resumed")) == 6
    assert record.reason == "caller_hangup"


async def test_a_client_comes_back_to_a_gateway_that_drains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet_at(tmp_path, monkeypatch, drain_s=PATIENCE_S) as fleet, calling(fleet, "echo") as client:
        before = {part.pid for part in fleet.of("gateway")}
        await asyncio.to_thread(fleet.ask, "restart")
        await asyncio.to_thread(
            fleet.await_that, lambda now: drains(now, before), "the drain of the old gateways, and new ones", PATIENCE_S
        )
        client.break_line()
        await client.ended()
        await client.come_back()
        await echoed(client)
        await client.say("hangup")
        await client.ended()
        (record,) = await asyncio.to_thread(fleet.await_records, 1)
    assert record.reason == "caller_hangup"


def gateways(status: Mapping[str, Any]) -> dict[int, str]:
    """State by process id."""
    return {each["pid"]: each["state"] for each in status["children"] if each["kind"] == "gateway"}


def drains(status: Mapping[str, Any], before: set[int]) -> bool:
    """Those of before take no more connections; two others do."""
    states = gateways(status)
    fresh = [state for pid, state in states.items() if pid not in before]
    return fresh == ["ready"] * 2 and all(states.get(pid, "draining") == "draining" for pid in before)


def account_at(cloud: TwilioCloud) -> Mapping[str, Any]:
    return {
        "name": "main",
        "account_sid": ACCOUNT,
        "auth_token_env": "TEST_TWILIO_TOKEN",
        "from": "+4930111",
        "api_url": cloud.url,
    }


async def test_callers_of_a_carrier_come_back_from_transfers_to_their_gateways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TWILIO_TOKEN", TOKEN)
    async with twilio_cloud(ACCOUNT, TOKEN) as cloud:
        async with fleet_at(tmp_path, monkeypatch, streams={"twilio": [account_at(cloud)]}) as fleet:
            cloud.outcomes["+493055555"] = "busy"
            webhook = f"http://127.0.0.1:{fleet.http_port}/webhooks/twilio/main/voice"
            calls = [await cloud.call_in(webhook, "+4930123456", "+4930999") for _ in range(4)]
            for call in calls:
                stream = await call.stream(1)
                await stream.talk(tone(1.0))
                await stream.until(lambda stream=stream: level(bytes(stream.played[-800:])) > 3000, "the echo")  # type: ignore[misc]
                await cloud.hang_up(call)
            found = await asyncio.to_thread(fleet.await_records, 4)
        assert not cloud.faults
    assert [record.of("transfer.ended")[0]["outcome"] for record in found] == ["busy"] * 4
    assert all("stream.resumed" in record.kinds for record in found)


async def test_calls_that_a_carrier_places_come_to_their_gateways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TWILIO_TOKEN", TOKEN)
    async with twilio_cloud(ACCOUNT, TOKEN) as cloud:
        async with fleet_at(tmp_path, monkeypatch, streams={"twilio": [account_at(cloud)]}) as fleet:
            for _ in range(4):
                async with calling(fleet, "office") as client:
                    call = await asyncio.wait_for(cloud.placed.get(), 20)
                    stream = await call.stream()
                    await stream.talk(tone(1.0))
                    await client.until(lambda client=client: len(client.sound) > 640 * 20, "the callee")  # type: ignore[misc]
                    await cloud.hang_up(call)
                    await client.ended()
            found = await asyncio.to_thread(fleet.await_records, 4)
        assert not cloud.faults
    assert [record.of("party.ended")[0]["outcome"] for record in found] == ["answered"] * 4


async def test_a_drain_lets_calls_by_http_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet_at(tmp_path, monkeypatch) as fleet, calling(fleet, "echo") as client:
        await echoed(client)
        fleet.process_signal(signal.SIGTERM)
        await asyncio.to_thread(fleet.await_log, "draining")
        await echoed(client)
        await client.say("hangup")
        await client.ended()
        found = await asyncio.to_thread(fleet.await_records, 1)
        assert found[0].reason == "caller_hangup"
