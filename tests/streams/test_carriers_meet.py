"""A caller of one carrier is bridged with somebody at the other: they hear each other, digits pass, one end ends it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.until import until
from tests.harness.records import record_of
from tests.harness.server import ServerProcess, free_port
from tests.servers.vonage import APPLICATION, SECRET, answer_url, event_url, keys, started
from tests.streams.test_twilio import ACCOUNT, FROM, TOKEN, level
from tests.streams.test_twilio import tone as ulaw_tone
from tests.streams.test_vonage_cloud import loudest
from tests.streams.test_vonage_cloud import tone as linear_tone
from tools.conformance.twilio_cloud import TwilioCloud, twilio_cloud
from tools.conformance.vonage_cloud import Cloud

OFFICE = "+493055512345"
PLAN = """
tenant: acme
targets: ["+49*"]
flows:
  by_vonage: [{bridge: {to: "+493055512345", trunk: main, on: {failed: lost}}}, hangup]
  by_twilio: [{bridge: {to: "+493055512345", trunk: other, on: {failed: lost}}}, hangup]
  lost: [answer, {wait: 1}]
routes:
  - {match: {to: "+4930000001"}, flow: by_vonage}
  - {match: {to: "+4930000002"}, flow: by_twilio}
"""


@asynccontextmanager
async def both(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[ServerProcess, TwilioCloud, Cloud]]:
    """One server with an account at each carrier, and the two."""
    monkeypatch.setenv("TEST_TWILIO_TOKEN", TOKEN)
    private, public = keys(folder)
    port = free_port(socket.SOCK_STREAM)
    async with twilio_cloud(ACCOUNT, TOKEN) as twilio:
        of_vonage = {
            "name": "main",
            "application_id": APPLICATION,
            "signature_secret_env": "TEST_VONAGE_SECRET",
            "private_key": str(private),
            "api_url": f"http://127.0.0.1:{port}",
            "from": "+4930000009",
        }
        of_twilio = {
            "name": "other",
            "account_sid": ACCOUNT,
            "auth_token_env": "TEST_TWILIO_TOKEN",
            "from": "+4930111",
            "api_url": twilio.url,
        }
        streams = {"vonage": [of_vonage], "twilio": [of_twilio]}
        with started(folder, PLAN, {}, {"streams": streams}) as server:
            vonage = Cloud(APPLICATION, SECRET, public)
            vonage.event_url = event_url(server)
            async with vonage.running(port):
                yield server, twilio, vonage
        assert not vonage.refused
        assert not twilio.faults
        for stream in (
            *(stream for call in twilio.calls.values() for stream in call.streams),
            *(stream for call in vonage.calls.values() for stream in call.streams),
        ):
            assert not stream.faults


async def test_a_caller_of_twilio_talks_to_vonage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with both(tmp_path, monkeypatch) as (server, twilio, vonage):
        webhook = f"http://127.0.0.1:{server.http_port}/webhooks/twilio/other/voice"
        caller = await twilio.call_in(webhook, "+4930000001", FROM)
        await until(lambda: len(vonage.calls) == 1, "the call at Vonage")
        (callee,) = vonage.calls.values()
        ours, theirs = await caller.stream(), await callee.stream()
        for _ in range(10):
            await asyncio.gather(ours.talk(ulaw_tone(0.5)), theirs.talk(linear_tone(0.5)))
            if level(bytes(ours.played[-1600:])) > 3000 and loudest(bytes(theirs.played)) > 6000:
                break
        assert level(bytes(ours.played[-1600:])) > 3000
        assert loudest(bytes(theirs.played)) > 6000
        await ours.digit("7")
        await until(lambda: callee.digits == ["7"], "the digit at Vonage")
        await twilio.hang_up(caller)
        await callee.ended()
        record = await record_of(server.database, caller.sid)
    assert record.reason == "caller_hangup"
    assert record.of("party.ended")[0]["outcome"] == "answered"


async def test_a_caller_of_vonage_talks_to_twilio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with both(tmp_path, monkeypatch) as (server, twilio, vonage):
        caller = await vonage.incoming(answer_url(server), "4930000002")
        callee = await asyncio.wait_for(twilio.placed.get(), 20)
        assert callee.to == OFFICE
        ours, theirs = await caller.stream(), await callee.stream()
        for _ in range(10):
            await asyncio.gather(ours.talk(linear_tone(0.5)), theirs.talk(ulaw_tone(0.5)))
            if loudest(bytes(ours.played)) > 6000 and level(bytes(theirs.played[-1600:])) > 3000:
                break
        assert loudest(bytes(ours.played)) > 6000
        assert level(bytes(theirs.played[-1600:])) > 3000
        await twilio.hang_up(callee)
        await caller.ended()
        record = await record_of(server.database, caller.uuid)
    assert record.reason == "callee_hangup"
