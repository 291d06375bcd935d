"""Transfers and calls that we place by Twilio's REST API, against a real server and a cloud that acts."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.fakes.until import until
from tests.harness.records import record_of, records
from tests.harness.server import ServerProcess, free_port
from tests.streams.test_twilio import ACCOUNT, FROM, TOKEN, level, tone
from tools.conformance.twilio_cloud import CloudCall, TwilioCloud, twilio_cloud

OFFICE = "+493055555"
PLAN = """
tenant: acme
targets: ["+49*", "bob@pbx.example"]
flows:
  blind:
    - transfer: {to: "+493055555", mode: blind, on: {busy: again, no_answer: again, declined: again, failed: again}}
  again: [answer, {echo: {max_s: 60}}]
  called: [{echo: {max_s: 60}}]
  bridge: [{bridge: {to: "+493055555", trunk: main, on: {failed: again}}}]
routes:
  - {match: {to: "+4930123456"}, flow: blind}
  - {match: {to: "+4930000009"}, flow: bridge}
  - {match: {direction: outbound}, flow: called}
"""


@pytest.fixture(scope="module")
def api_port() -> int:
    return free_port(socket.SOCK_STREAM)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, api_port: int) -> Iterator[ServerProcess]:
    os.environ["TEST_TWILIO_TOKEN"] = TOKEN
    folder = tmp_path_factory.mktemp("rest")
    made = ServerProcess(folder, {"acme.yaml": PLAN})
    account = {
        "name": "main",
        "account_sid": ACCOUNT,
        "auth_token_env": "TEST_TWILIO_TOKEN",
        "from": "+4930111",
        "api_url": f"http://127.0.0.1:{api_port}",
    }
    text = made.settings_file.read_text()
    made.settings_file.write_text(
        f"{text}\ngate: {{public_url: 'http://127.0.0.1:{made.http_port}'}}\nstreams: {{twilio: [{account}]}}\n"
    )
    yield made.start()
    del os.environ["TEST_TWILIO_TOKEN"]
    assert made.stop() == 0
    assert "Traceback" not in made.log()


@pytest.fixture
async def cloud(api_port: int) -> AsyncIterator[TwilioCloud]:
    async with twilio_cloud(ACCOUNT, TOKEN, api_port) as made:
        yield made
        assert not made.faults
        assert not [fault for call in made.calls.values() for stream in call.streams for fault in stream.faults]


async def calls_in(cloud: TwilioCloud, server: ServerProcess, to: str = "+4930123456") -> CloudCall:
    return await cloud.call_in(f"http://127.0.0.1:{server.http_port}/webhooks/twilio/main/voice", to, FROM)


@asynccontextmanager
async def dialling(server: ServerProcess, *more: str, to: str = OFFICE) -> AsyncIterator[asyncio.subprocess.Process]:
    """`sipserver dial` by the account."""
    command = (sys.executable, "-m", "sipserver", "dial", to, "--trunk", "main", *more)
    process = await asyncio.create_subprocess_exec(
        *command,
        "--config",
        str(server.settings_file),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


# --- transfers --------------------------------------------------------------------------------------------------------


async def test_a_caller_is_handed_over(server: ServerProcess, cloud: TwilioCloud) -> None:
    call = await calls_in(cloud, server)
    record = await record_of(server.database, call.sid)
    assert call.dialled == [OFFICE]
    assert record.of("transfer.ended")[0]["outcome"] == "answered"
    assert record.reason == "transferred"
    await asyncio.wait_for(call.ended.wait(), 60)
    assert len(call.streams) == 1


@pytest.mark.parametrize(
    ("what", "outcome"), [("busy", "busy"), ("no-answer", "no_answer"), ("failed", "failed"), ("canceled", "no_answer")]
)
async def test_a_caller_comes_back_when_nobody_answers(
    server: ServerProcess, cloud: TwilioCloud, what: str, outcome: str
) -> None:
    cloud.outcomes[OFFICE] = what
    call = await calls_in(cloud, server)
    stream = await call.stream(1)
    await stream.talk(tone(1.0))
    await stream.until(lambda: level(bytes(stream.played[-800:])) > 3000, "the echo of the flow that goes on")
    await stream.stop()
    record = await record_of(server.database, call.sid)
    assert record.of("transfer.ended")[0]["outcome"] == outcome
    assert "stream.resumed" in record.kinds
    assert record.reason == "caller_hangup"


async def test_a_cloud_that_says_no_leaves_the_caller_with_us(server: ServerProcess, cloud: TwilioCloud) -> None:
    call = await calls_in(cloud, server)
    cloud._auth_token = TOKEN + "!"  # our token was changed at Twilio
    stream = await call.stream(0)
    await stream.talk(tone(1.0))
    await stream.until(lambda: level(bytes(stream.played[-800:])) > 3000, "the echo of the flow that goes on")
    await stream.stop()
    assert (await record_of(server.database, call.sid)).of("transfer.ended")[0]["outcome"] in ("failed", "declined")
    cloud._auth_token = TOKEN


# --- calls that we place ----------------------------------------------------------------------------------------------


async def test_somebody_is_called_and_answers(server: ServerProcess, cloud: TwilioCloud) -> None:
    async with dialling(server) as process:
        call = await asyncio.wait_for(cloud.placed.get(), 60)
        assert (call.to, call.caller) == (OFFICE, "+4930111")
        stream = await call.stream()
        await stream.talk(tone(0.6))
        await stream.until(lambda: level(bytes(stream.played[-800:])) > 3000, "the echo")
        await stream.stop()
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, said.decode()
    assert call.history[:2] == ["ringing", "in-progress"]


async def test_headers_for_sip_targets_are_escaped(server: ServerProcess, cloud: TwilioCloud) -> None:
    cloud.outcomes["sip:bob@pbx.example?X-Account=a%26b%3D%201"] = "busy"
    async with dialling(server, "--header", "X-Account=a&b= 1", to="sip:bob@pbx.example") as process:
        call = await asyncio.wait_for(cloud.placed.get(), 60)
        await asyncio.wait_for(process.communicate(), 60)
    assert call.to in cloud.outcomes


@pytest.mark.parametrize(("what", "code"), [("busy", 486), ("no-answer", 480), ("failed", 503)])
async def test_somebody_who_does_not_answer(server: ServerProcess, cloud: TwilioCloud, what: str, code: int) -> None:
    cloud.outcomes[OFFICE] = what
    before = len(records(server.database))
    async with dialling(server) as process:
        await asyncio.wait_for(cloud.placed.get(), 60)
        await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode != 0
    await until(
        lambda: len(records(server.database)) > before and bool(records(server.database)[-1].reason), "a record"
    )
    assert records(server.database)[-1].of("leg.disconnected")[0]["code"] == code


async def test_one_that_rings_too_long_is_given_up(server: ServerProcess, cloud: TwilioCloud) -> None:
    cloud.ring.clear()
    async with dialling(server, "--ring-s", "1") as process:
        call = await asyncio.wait_for(cloud.placed.get(), 60)
        await asyncio.wait_for(call.ended.wait(), 60)
        await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode != 0
    assert call.history[-1] in ("completed", "canceled")
    cloud.ring.set()


async def test_a_caller_is_bridged_with_somebody_at_the_carrier(server: ServerProcess, cloud: TwilioCloud) -> None:
    caller = await calls_in(cloud, server, "+4930000009")
    callee = await asyncio.wait_for(cloud.placed.get(), 60)
    one, other = await caller.stream(), await callee.stream()
    await asyncio.gather(one.talk(tone(1.5, 440)), other.talk(tone(1.5, 700)))
    await one.until(lambda: len(one.played) > 8000 and level(bytes(one.played[-1600:])) > 3000, "the callee's tone")
    await other.until(lambda: level(bytes(other.played[-1600:])) > 3000, "the caller's tone")
    await one.stop()
    record = await record_of(server.database, caller.sid)
    assert record.reason == "caller_hangup"
    await asyncio.wait_for(callee.ended.wait(), 60)
