"""What needs Vonage's REST API: transfers, calls that we place, and the ends of calls; against a Vonage in small."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.fakes.until import until
from tests.harness.records import record_of
from tests.harness.server import ServerProcess, free_port
from tests.servers.vonage import APPLICATION, SECRET, answer_url, event_url, keys, started
from tools.conformance.vonage_cloud import Cloud, CloudCall

TARGET = "493055512345"
PLAN = """
tenant: acme
flows:
  transfer:
    - answer
    - transfer: {to: "+493055512345", mode: blind, ring_s: 20,
        on: {busy: busy, no_answer: nobody, declined: declined, failed: failed}}
  short:
    - answer
    - transfer: {to: "sip:200@pbx.example", mode: blind, ring_s: 1, on: {no_answer: nobody, failed: failed}}
  bridge:
    - answer
    - bridge: {to: "+493055512345", trunk: main, ring_s: 20, on: {answered: bye, busy: busy, no_answer: nobody,
        declined: declined, failed: failed}}
  bye: [answer, hangup]
  busy: [{wait: 0.1}, {set: {outcome: busy}}, {echo: {max_s: 60}}]
  nobody: [{wait: 0.1}, {set: {outcome: nobody}}, {echo: {max_s: 60}}]
  declined: [{wait: 0.1}, {set: {outcome: declined}}, {echo: {max_s: 60}}]
  failed: [{wait: 0.1}, {set: {outcome: failed}}, {echo: {max_s: 60}}]
routes:
  - {match: {to: "+4930000001"}, flow: transfer}
  - {match: {to: "+4930000002"}, flow: short}
  - {match: {to: "+4930000003"}, flow: bridge}
  - {match: {to: "+4930000004"}, flow: bye}
"""
BRANCHES = {
    "busy": "busy",
    "timeout": "no_answer",
    "unanswered": "no_answer",
    "rejected": "declined",
    "failed": "failed",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, int, str]]:
    """The server, the port at which it looks for Vonage's API, and the application's public key."""
    folder = tmp_path_factory.mktemp("vonage")
    private, public = keys(folder)
    port = free_port(socket.SOCK_STREAM)
    account = {"private_key": str(private), "api_url": f"http://127.0.0.1:{port}", "from": "+4930000009"}
    with started(folder, PLAN, account) as made:
        yield made, port, public


@asynccontextmanager
async def vonage(place: tuple[ServerProcess, int, str]) -> AsyncIterator[Cloud]:
    server, port, public = place
    cloud = Cloud(APPLICATION, SECRET, public)
    cloud.event_url = event_url(server)
    async with cloud.running(port):
        yield cloud
    assert not cloud.refused
    for call in cloud.calls.values():
        for stream in call.streams:
            assert not stream.faults


def tone(seconds: float) -> bytes:
    count = round(16_000 * seconds)
    return struct.pack(f"<{count}h", *(round(8000 * math.sin(2 * math.pi * 440 * at / 16_000)) for at in range(count)))


def loudest(sound: bytes) -> int:
    return max(map(abs, struct.unpack(f"<{len(sound) // 2}h", sound)), default=0)


async def hears_themselves(call: CloudCall, number: int) -> None:
    """Only the flow after a transfer that failed has an echo."""
    stream = await call.stream(number)
    for _ in range(10):
        await stream.talk(tone(0.4))
        if loudest(bytes(stream.played)) > 6000:
            return
    raise AssertionError(f"no echo: {stream.events[-10:]}")


@pytest.mark.parametrize("status", list(BRANCHES))
async def test_a_caller_whom_nobody_takes_comes_back_to_the_same_call(
    place: tuple[ServerProcess, int, str], status: str
) -> None:
    server = place[0]
    async with vonage(place) as cloud:
        cloud.targets[TARGET] = status
        call = await cloud.incoming(answer_url(server), "4930000001")
        await hears_themselves(call, 2)
        await cloud.hang_up(call)
        record = await record_of(server.database, call.uuid)
        (ended,) = record.of("transfer.ended")
        assert ended["outcome"] == BRANCHES[status]
        assert len(record.of("call.started")) == 1
        assert "stream.resumed" in record.kinds
        assert record.reason == "caller_hangup"
        connect = cloud.asked[0][2]["destination"]["ncco"][0]
        assert connect["endpoint"] == [{"type": "phone", "number": TARGET}]
        assert connect["from"] == "4930000009"


async def test_a_caller_whom_somebody_takes_stays_there(place: tuple[ServerProcess, int, str]) -> None:
    server = place[0]
    async with vonage(place) as cloud:
        call = await cloud.incoming(answer_url(server), "4930000001")
        record = await record_of(server.database, call.uuid)
        assert record.reason == "transferred"
        assert record.of("transfer.ended")[0]["outcome"] == "answered"
        assert not call.over.is_set(), "the two still talk"
        await cloud.hang_up(call)
        assert len(call.streams) == 1
    assert [method for method, _, _ in cloud.asked] == ["PUT"]


async def test_a_caller_comes_back_when_it_has_rung_long_enough(place: tuple[ServerProcess, int, str]) -> None:
    server = place[0]
    async with vonage(place) as cloud:
        cloud.released.clear()
        call = await cloud.incoming(answer_url(server), "4930000002")
        await hears_themselves(call, 2)
        await cloud.hang_up(call)
        record = await record_of(server.database, call.uuid)
    assert record.of("transfer.ended")[0]["outcome"] == "no_answer"
    assert cloud.asked[0][2]["destination"]["ncco"][0]["endpoint"][0]["uri"] == "sip:200@pbx.example"


async def test_a_caller_who_hangs_up_while_it_rings_ends_the_call(place: tuple[ServerProcess, int, str]) -> None:
    server = place[0]
    async with vonage(place) as cloud:
        cloud.released.clear()
        call = await cloud.incoming(answer_url(server), "4930000001")
        await until(lambda: bool(cloud.asked), "the transfer")
        await (await call.stream()).ended()
        await cloud.hang_up(call)
        record = await record_of(server.database, call.uuid)
    assert record.reason == "caller_hangup"
    assert record.of("transfer.ended")[0]["outcome"] == "caller_gone"


async def test_a_transfer_that_vonage_refuses_leaves_the_caller_with_us(place: tuple[ServerProcess, int, str]) -> None:
    server = place[0]
    async with vonage(place) as cloud:
        cloud.refuses = 400
        call = await cloud.incoming(answer_url(server), "4930000001")
        await hears_themselves(call, 1)
        await cloud.hang_up(call)
        record = await record_of(server.database, call.uuid)
    assert record.of("transfer.ended")[0]["outcome"] == "failed"
    assert record.reason == "caller_hangup"


async def test_a_call_that_closing_does_not_end_is_hung_up(place: tuple[ServerProcess, int, str]) -> None:
    server = place[0]
    async with vonage(place) as cloud:
        cloud.stays = True
        call = await cloud.incoming(answer_url(server), "4930000004")
        await call.ended()
        assert (await record_of(server.database, call.uuid)).reason == "dialplan_hangup"
        assert cloud.asked[-1] == ("PUT", f"/v1/calls/{call.uuid}", {"action": "hangup"})


async def test_two_calls_of_vonage_hear_each_other(place: tuple[ServerProcess, int, str]) -> None:
    server = place[0]
    async with vonage(place) as cloud:
        caller = await cloud.incoming(answer_url(server), "4930000003")
        await until(lambda: len(cloud.calls) == 2, "the call that we place")
        called = next(call for call in cloud.calls.values() if call is not caller)
        assert called.number == TARGET
        ours, theirs = await caller.stream(), await called.stream()
        for _ in range(10):
            await asyncio.gather(ours.talk(tone(0.5)), theirs.talk(tone(0.5)))
            if min(loudest(bytes(ours.played)), loudest(bytes(theirs.played))) > 6000:
                break
        assert min(loudest(bytes(ours.played)), loudest(bytes(theirs.played))) > 6000
        await ours.digit("5")
        await until(lambda: called.digits == ["5"], "the digit at the other end")
        await cloud.hang_up(called)
        await caller.ended()
        record = await record_of(server.database, caller.uuid)
    assert record.reason == "dialplan_hangup"


@pytest.mark.parametrize("status", list(BRANCHES))
async def test_what_becomes_of_calls_that_we_place(place: tuple[ServerProcess, int, str], status: str) -> None:
    server = place[0]
    async with vonage(place) as cloud:
        cloud.targets[TARGET] = status
        call = await cloud.incoming(answer_url(server), "4930000003")
        await hears_themselves(call, 1)
        await cloud.hang_up(call)
        record = await record_of(server.database, call.uuid)
    assert record.of("party.ended")[0]["outcome"] == BRANCHES[status]
