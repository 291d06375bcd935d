"""Calls over WebSockets and telephones in one: who hears whom, by tones, through a real server."""

from __future__ import annotations

import asyncio
import math
import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from sipserver.bus.once import MemoryOnce
from sipserver.gate.tokens import Claims, Tokens
from tests.fakes.party import TONES_HZ, Party, parties_at
from tests.harness.records import record_of
from tests.harness.server import ServerProcess
from tests.harness.voice import VoiceClient, voice_client

SECRET = "the secret of these tests, long enough"
PLAN = """
tenant: acme
targets: ["*@127.0.0.1*"]
flows:
  bridge: [{bridge: {to: "sip:callee@{callee}", record: true, on: {failed: lost}}}, hangup]
  attended: [{transfer: {to: "sip:callee@{callee}", mode: attended, on: {failed: lost, declined: echo, busy: echo}}}]
  room: [{conference: {room: all, on: {failed: lost}}}]
  echo: [answer, {echo: {max_s: 60}}]
  lost: [answer, {echo: {max_s: 1}}]
routes:
  - {match: {to: bridge}, flow: bridge}
  - {match: {to: attended}, flow: attended}
  - {match: {to: room}, flow: room}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    os.environ["TEST_TOKEN_SECRET"] = SECRET
    made = ServerProcess(
        tmp_path_factory.mktemp("across"), {"acme.yaml": PLAN}, {"gate": {"secret_env": "TEST_TOKEN_SECRET"}}
    )
    yield made.start()
    del os.environ["TEST_TOKEN_SECRET"]
    assert made.stop() == 0
    assert "Traceback" not in made.log()


class Caller:
    """A client that says a tone for ever."""

    def __init__(self, client: VoiceClient, hz: float) -> None:
        self.client = client
        count = 16_000
        tone = [round(6000 * math.sin(2 * math.pi * hz * at / 16_000)) for at in range(count)]
        self._tone = struct.pack(f"<{count}h", *tone)
        self.talking = asyncio.create_task(self._talk(), name="caller talks")

    async def _talk(self) -> None:
        while self.client.socket is not None and not self.client.socket.closed:
            await self.client.speak(self._tone)

    def tones(self) -> set[str]:
        """In the last 200 ms."""
        heard = np.frombuffer(bytes(self.client.sound[-6400:]), "<i2").astype(float)
        if len(heard) < 3200:
            return set()
        spectrum = 2 * np.abs(np.fft.rfft(heard * np.hanning(len(heard)))) / (len(heard) / 2)
        return {name for name, hz in TONES_HZ.items() if spectrum[round(hz / (16_000 / len(heard)))] > 500}

    async def hears(self, *names: str) -> None:
        """Exactly these, in what comes from now on."""
        before = len(self.client.sound)
        await self.client.until(
            lambda: len(self.client.sound) > before + 9600 and self.tones() == set(names), f"{names}, {self.tones()}"
        )


@asynccontextmanager
async def calling(server: ServerProcess, to: str, callee: Party | None = None) -> AsyncIterator[Caller]:
    token = Tokens(SECRET.encode(), MemoryOnce()).issue(Claims("voice", to=to, from_user="anna"))
    async with voice_client(f"ws://127.0.0.1:{server.http_port}", token) as client:
        variables = {"callee": f"127.0.0.1:{callee.peer.port}"} if callee is not None else {}
        await client.connect(variables=variables)
        caller = Caller(client, TONES_HZ["caller"])
        try:
            yield caller
        finally:
            caller.talking.cancel()
            await asyncio.gather(caller.talking, return_exceptions=True)


async def picks_up(callee: Party) -> None:
    await callee.is_called()
    await callee.accepts()


async def test_a_stream_is_bridged_with_a_telephone(server: ServerProcess) -> None:
    async with parties_at(server.sip_port, "callee") as (callee,), calling(server, "bridge", callee) as caller:
        await picks_up(callee)
        await callee.hears("caller")
        await caller.hears("callee")
        await caller.client.say("hangup")
        callee.peer.answer(await callee.peer.receive("BYE"), "200 OK")
        record = await record_of(server.database, caller.client.call_id)
    assert record.reason == "caller_hangup"
    assert record.recording_status == "complete"
    assert record.of("bridge.ended")[0]["reason"]


async def test_the_telephone_hangs_up(server: ServerProcess) -> None:
    async with parties_at(server.sip_port, "callee") as (callee,), calling(server, "bridge", callee) as caller:
        await picks_up(callee)
        await caller.hears("callee")
        callee.peer.send(callee.request("BYE"))
        assert await caller.client.ended() == 1000
        record = await record_of(server.database, caller.client.call_id)
    assert record.reason == "callee_hangup"


async def test_a_stream_is_transferred_to_a_telephone(server: ServerProcess) -> None:
    async with parties_at(server.sip_port, "callee") as (callee,), calling(server, "attended", callee) as caller:
        await picks_up(callee)
        await callee.hears("caller")
        await caller.hears("callee")
        await caller.client.say("hangup")
        callee.peer.answer(await callee.peer.receive("BYE"), "200 OK")
        record = await record_of(server.database, caller.client.call_id)
    assert record.of("transfer.ended")[0]["outcome"] == "answered"


async def test_one_that_is_refused_stays_with_us(server: ServerProcess) -> None:
    async with parties_at(server.sip_port, "callee") as (callee,), calling(server, "attended", callee) as caller:
        callee.peer.answer(await callee.is_called(), "486 Busy Here", tag="callee")
        await caller.hears("caller")
        await caller.client.say("hangup")
        record = await record_of(server.database, caller.client.call_id)
    assert record.of("transfer.ended")[0]["outcome"] == "busy"


async def test_two_streams_and_a_telephone_meet_in_a_room(server: ServerProcess) -> None:
    async with (
        parties_at(server.sip_port, "callee") as (phone,),
        calling(server, "room") as one,
        calling(server, "room") as other,
    ):
        other.talking.cancel()
        await phone.dials("room")
        await phone.hears("caller")
        await one.hears("callee")
        await other.hears("caller", "callee")
