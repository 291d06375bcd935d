"""Carriers' calls when there is no room: new ones go elsewhere, those that are ours come back; and no order is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.fakes.until import until
from tests.harness.records import record_of, records
from tests.harness.server import ServerProcess
from tests.servers.vonage import APPLICATION, SECRET, SECRET_ENV, answer_url, started
from tests.streams.test_twilio import ACCOUNT, FROM, TOKEN, level, tone
from tools.conformance import vonage
from tools.conformance.twilio import TwilioCall, TwiML, ask_webhook, connected, sid
from tools.conformance.twilio_cloud import CloudCall, TwilioCloud, twilio_cloud

OFFICE, NUMBER = "+493055555", "+4930123456"
PLAN = """
tenant: acme
targets: ["+49*"]
flows:
  away: [{transfer: {to: "+493055555", mode: blind, on: {busy: back, failed: back}}}]
  back: [answer, {echo: {max_s: 60}}]
  called: [{echo: {max_s: 60}}]
routes:
  - {match: {to: "+4930123456"}, flow: away}
  - {match: {direction: outbound}, flow: called}
"""


@pytest.fixture
async def cloud() -> AsyncIterator[TwilioCloud]:
    async with twilio_cloud(ACCOUNT, TOKEN) as made:
        yield made


@pytest.fixture
def server(tmp_path: Path, cloud: TwilioCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    """It takes one call by WebSocket at a time."""
    monkeypatch.setenv("TEST_TWILIO_TOKEN", TOKEN)
    of_twilio = {
        "name": "ours",
        "account_sid": ACCOUNT,
        "auth_token_env": "TEST_TWILIO_TOKEN",
        "from": "+4930111",
        "api_url": cloud.url,
    }
    of_vonage = {"name": "main", "application_id": APPLICATION, "signature_secret_env": SECRET_ENV}
    streams = {"calls": 1, "twilio": [of_twilio], "vonage": [of_vonage]}
    with started(tmp_path, PLAN, {}, {"streams": streams}) as made:
        yield made


def webhook(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.http_port}/webhooks/twilio/ours/voice"


async def hears_themselves(stream: TwilioCall) -> None:
    await stream.talk(tone(1.0))
    await stream.until(lambda: level(bytes(stream.played[-800:])) > 3000, "the echo")


async def is_away(call: CloudCall) -> None:
    await until(lambda: call.dialled == [OFFICE], "the transfer")


async def test_a_caller_comes_back_though_no_new_call_is_taken(server: ServerProcess, cloud: TwilioCloud) -> None:
    cloud.outcomes[OFFICE] = "busy"
    cloud.ring.clear()
    call = await cloud.call_in(webhook(server), NUMBER, FROM)
    await is_away(call)
    async with aiohttp.ClientSession() as client:
        fields = {"CallSid": sid("CA"), "From": FROM, "To": NUMBER}
        assert (await ask_webhook(client, webhook(server), ACCOUNT, TOKEN, fields))[0] == 503
        asked = {"to": NUMBER[1:], "from": FROM[1:], "uuid": "u-1"}
        assert (await vonage.ask(client, answer_url(server), APPLICATION, SECRET, asked))[0] == 503
    cloud.ring.set()
    await hears_themselves(await call.stream(1))
    await cloud.hang_up(call)
    record = await record_of(server.database, call.sid)
    assert "stream.resumed" in record.kinds
    assert record.of("transfer.ended")[0]["outcome"] == "busy"


async def test_a_caller_comes_back_while_the_server_drains(server: ServerProcess, cloud: TwilioCloud) -> None:
    cloud.outcomes[OFFICE] = "failed"
    cloud.ring.clear()
    call = await cloud.call_in(webhook(server), NUMBER, FROM)
    await is_away(call)
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    await until(lambda: "draining" in server.log(), "the drain")
    cloud.ring.set()
    await hears_themselves(await call.stream(1))
    await cloud.hang_up(call)
    assert await asyncio.to_thread(server.process.wait, 20) == 0
    (record,) = records(server.database, call.sid)
    assert record.reason == "caller_hangup"


async def test_two_who_were_let_in_at_once_do_not_both_get_the_last_place(
    server: ServerProcess, cloud: TwilioCloud
) -> None:
    cloud.ring.clear()
    async with aiohttp.ClientSession() as client:
        found = []
        for _ in range(2):
            fields = {"CallSid": sid("CA"), "From": FROM, "To": NUMBER}
            status, text = await ask_webhook(client, webhook(server), ACCOUNT, TOKEN, fields)
            assert status == 200
            found.append(TwiML.parse(text, fields["CallSid"]))
        async with connected(client, found[0], ACCOUNT), connected(client, found[1], ACCOUNT) as second:
            assert await second.ended() == 1013
    await record_of(server.database, found[0].call_sid)
    assert len(records(server.database)) == 1


async def test_a_token_is_good_for_its_own_call_alone(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as client:
        fields = {"CallSid": sid("CA"), "From": FROM, "To": NUMBER}
        _, text = await ask_webhook(client, webhook(server), ACCOUNT, TOKEN, fields)
        async with connected(client, TwiML.parse(text), ACCOUNT, call_sid=sid("CA")) as other:
            assert await other.ended() == 4403
    assert not records(server.database)


async def test_a_call_that_is_called_off_while_it_is_ordered_does_not_ring_on(
    server: ServerProcess, cloud: TwilioCloud
) -> None:
    cloud.take.clear()
    cloud.ring.clear()
    command = (sys.executable, "-m", "sipserver", "dial", OFFICE, "--trunk", "ours")
    process = await asyncio.create_subprocess_exec(
        *command,
        "--config",
        str(server.settings_file),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=dict(os.environ),
    )
    await asyncio.wait_for(cloud.ordered.wait(), 30)
    process.send_signal(signal.SIGINT)
    cloud.take.set()
    call = await asyncio.wait_for(cloud.placed.get(), 10)
    await asyncio.wait_for(call.ended.wait(), 10)
    assert call.history[-1] in ("completed", "canceled")
    assert await asyncio.wait_for(process.wait(), 30) == 1
