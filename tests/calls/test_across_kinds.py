"""Calls over WebSockets and telephones in one process: transfers, rooms, queues and recordings, by who hears whom."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from sipserver.audio.clock import LegClock
from sipserver.calls.call import Call
from sipserver.events import DigitsSent, QueueConnected, QueueServed, TransferEnded, Unbridged
from sipserver.streams.contract import StreamOffer
from sipserver.streams.leg import StreamLeg
from tests.calls.test_gatherings_on_the_wire import Town, loud, town
from tests.calls.test_parties_on_the_wire import OFFERED, press, pressed, write_tone
from tests.fakes.party import TONES_HZ, media_port, payload_of, tones_in
from tests.fakes.sip_peer import sdp
from tests.fakes.stream_line import StreamLine
from tests.fakes.until import until

HEAD = "targets: ['*@127.0.0.1*']"
_WINDOW = 10  # messages: 200 ms


class PlayingLine(StreamLine):
    """Its far end plays what it gets at once, and says so."""

    leg: StreamLeg

    def mark(self, name: str) -> None:
        asyncio.get_running_loop().call_soon(self.leg.marked, name)


class StreamCaller:
    """A caller as Twilio brings one: mu-law, 20 ms a message, who says a tone of their own."""

    def __init__(self, name: str, leg: StreamLeg, line: StreamLine, call: Call) -> None:
        self.name, self.leg, self.line, self.call = name, leg, line, call
        self.talking = asyncio.create_task(self._talk(), name=f"{name} talks")

    async def _talk(self) -> None:
        loop, payload = asyncio.get_running_loop(), payload_of(TONES_HZ[self.name])
        due_s = loop.time()
        while not self.leg.is_gone:
            self.leg.heard(payload)
            due_s += 0.02
            await asyncio.sleep(max(0.0, due_s - loop.time()))  # the pace of a microphone

    async def hears(self, *names: str) -> None:
        """Wait until exactly the tones of these parties are sent to the caller, for 200 ms on end."""
        begin = len(self.line.payloads)
        heard: set[str] = set()

        def just_these() -> bool:
            nonlocal heard
            heard = tones_in(self.line.payloads[-_WINDOW:]) if len(self.line.payloads) >= begin + _WINDOW else set()
            return heard == set(names)

        try:
            await until(just_these)
        except AssertionError:
            raise AssertionError(f"{self.name} hears {heard or 'nothing'}, not {names}") from None

    def hangs_up(self) -> None:
        self.leg.gone(0, "hung up", by_peer=True)


@asynccontextmanager
async def streamed(there: Town, name: str = "caller", to: str = "main") -> AsyncIterator[StreamCaller]:
    """A caller of a WebSocket, who talks from the beginning on."""
    offer = StreamOffer(
        direction="inbound",
        from_uri=f"sip:{name}@stream.invalid",
        from_user=name,
        to_uri=f"sip:{to}@stream.invalid",
        to_user=to,
        source="127.0.0.1:1",
        sip_call_id=f"stream-{name}",
    )
    line = PlayingLine("mulaw8", lead_ms=60)
    leg = line.leg = StreamLeg(offer, line, CLOCK)
    call = there.registry.begin(leg)
    leg.connected()
    caller = StreamCaller(name, leg, line, call)
    try:
        yield caller
    finally:
        if not leg.is_gone:
            caller.hangs_up()
        await asyncio.wait({caller.talking})
        await there.gone(call)


CLOCK = LegClock()
"""One for all callers of the process, as a server has it; it stands still between two tests."""


async def picks_up(there: Town, name: str) -> None:
    await there.parties[name].is_called()
    await there.parties[name].accepts()


# --- bridge -----------------------------------------------------------------------------------------------------------

BRIDGE = """
  main: [{bridge: {to: {callee}, %s on: {failed: end}}}]"""


@asynccontextmanager
async def bridged(folder: Path, options: str = "") -> AsyncIterator[tuple[Town, StreamCaller]]:
    async with (
        town(folder, BRIDGE % options, "callee", head=HEAD) as there,
        streamed(there) as caller,
    ):
        await picks_up(there, "callee")
        await asyncio.gather(caller.hears("callee"), there.parties["callee"].hears("caller"))
        yield there, caller


async def test_music_while_the_telephone_holds(tmp_path: Path) -> None:
    """The music is the tone of the fourth, who is not there."""
    write_tone(tmp_path / "moh.wav", "fourth")
    async with bridged(tmp_path, "music: moh.wav,") as (there, caller):
        callee = there.parties["callee"]
        for sequence, direction in ((1, "sendonly"), (2, "sendrecv")):
            body = sdp(callee.media.port, direction=direction, version=1 + sequence)
            callee.peer.send(callee.request("INVITE", sequence=sequence, body=body))
            await callee.peer.receive(200)
            callee.peer.send(callee.request("ACK", sequence=sequence))
            await caller.hears("fourth" if direction == "sendonly" else "callee")
        await callee.hears("caller")


async def test_digits_pass_both_ways(tmp_path: Path) -> None:
    async with bridged(tmp_path) as (there, caller):
        callee = there.parties["callee"]
        caller.line.presses = True
        caller.leg.pressed("5")
        assert await pressed(callee) == 5
        await callee.silence()
        await press(callee, media_port(callee.invite), 11, payload_type=OFFERED)
        await until(lambda: "press #" in caller.line.said, "the key")
        assert {(sent.leg, sent.digits) for sent in there.stage.records.of(DigitsSent)} == {("party-1", "5"), ("", "#")}


async def test_the_recording_has_one_on_each_side_and_lasts_as_long_as_they_talked(tmp_path: Path) -> None:
    async with bridged(tmp_path, "record: true,") as (there, caller):
        for _ in range(5):
            await asyncio.gather(caller.hears("callee"), there.parties["callee"].hears("caller"))
        caller.hangs_up()
        await there.gone(caller.call)
        (path,) = there.stage.recorder.folder.rglob(f"{caller.call.id}.wav")
        (over,) = there.stage.records.of(Unbridged)
    with wave.open(str(path)) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert abs(len(both) / 16 - over.lasted_ms) < 400
    said, heard = both[-16 * 700 : -16 * 200, 0], both[-16 * 700 : -16 * 200, 1]
    assert (loud(said, "caller") > 3000, loud(said, "callee") > 100) == (True, False)
    assert (loud(heard, "callee") > 3000, loud(heard, "caller") > 100) == (True, False)


# --- transfer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accepts", [True, False])
async def test_warm_the_telephone_is_told_who_comes_and_decides(tmp_path: Path, accepts: bool) -> None:
    write_tone(tmp_path / "moh.wav", "fourth")
    flows = """
  main: [answer, {transfer: {to: {callee}, mode: warm, announce: Anna calls., music: moh.wav, on: %s}}]
  room: [{conference: {room: team, on: {failed: end}}}]""".replace("%s", "{declined: room, failed: room}")
    async with (
        town(tmp_path, flows, "callee", "third", head=HEAD) as there,
        streamed(there) as caller,
    ):
        callee = there.parties["callee"]
        await callee.is_called()
        await caller.hears("fourth")
        await callee.accepts()
        await until(lambda: "Anna calls." in there.stage.tts.texts, "the announcement")
        await callee.silence()
        await press(callee, media_port(callee.invite), 1 if accepts else 2, payload_type=OFFERED)
        if accepts:
            await callee.talk(media_port(callee.invite))
            await asyncio.gather(caller.hears("callee"), callee.hears("caller"))
        else:
            callee.peer.answer(await callee.peer.receive("BYE"), "200 OK")
            await there.calls("third", "room")
            await asyncio.gather(caller.hears("third"), there.parties["third"].hears("caller"))
        (ended,) = there.stage.records.of(TransferEnded)
        assert ended.outcome == ("answered" if accepts else "declined")


async def test_blind_the_carrier_cannot_and_the_caller_stays(tmp_path: Path) -> None:
    flows = """
  main: [answer, {transfer: {to: {callee}, mode: blind, on: {failed: room}}}]
  room: [{conference: {room: team, on: {failed: end}}}]"""
    async with (
        town(tmp_path, flows, "callee", "third", head=HEAD) as there,
        streamed(there) as caller,
    ):
        await there.calls("third", "room")
        await asyncio.gather(caller.hears("third"), there.parties["third"].hears("caller"))
        (ended,) = there.stage.records.of(TransferEnded)
        assert (ended.mode, ended.outcome, ended.code) == ("blind", "failed", 405)


# --- conference -------------------------------------------------------------------------------------------------------


async def test_streams_and_telephones_meet_and_part(tmp_path: Path) -> None:
    flows = """
  team: [{conference: {room: team, record: true, on: {failed: end}}}]"""
    async with (
        town(tmp_path, flows, "callee", "third", head=HEAD) as there,
        streamed(there, "caller", "team") as one,
        streamed(there, "fourth", "team") as other,
    ):
        await asyncio.gather(one.hears("fourth"), other.hears("caller"))
        phones = [await there.calls(name, "team") for name in ("callee", "third")]
        for _ in range(5):
            await asyncio.gather(
                one.hears("callee", "third", "fourth"),
                other.hears("caller", "callee", "third"),
                there.hear(callee="caller third fourth", third="caller callee fourth"),
            )
        other.hangs_up()
        await there.gone(other.call)
        await there.hangs_up("third")
        await there.gone(phones[1])
        await asyncio.gather(one.hears("callee"), there.hear(callee="caller"))
        for call, name in ((other.call, "fourth"), (phones[1], "third")):
            (path,) = there.stage.recorder.folder.rglob(f"{call.id}.wav")
            with wave.open(str(path)) as file:
                both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)[-16 * 700 : -16 * 300]
            assert {each for each in TONES_HZ if loud(both[:, 0], each) > 1000} == {name}
            for each in set(TONES_HZ) - {name, "fourth"}:
                assert 5000 < loud(both[:, 1], each) < 10_000, "everybody once"
            assert loud(both[:, 1], name) < 1000


# --- queue ------------------------------------------------------------------------------------------------------------


async def test_a_telephone_that_is_called_serves_one_who_waited_on_a_stream(tmp_path: Path) -> None:
    write_tone(tmp_path / "moh.wav", "fourth")
    flows = """
  line: [{queue: {name: sales, position_say_every_s: 0, music: moh.wav, on: {failed: end}}}]"""
    head = f"{HEAD}\nqueues:\n  sales: {{agents: [{{callee}}], strategy: in_order}}"
    async with town(tmp_path, flows, "callee", head=head) as there, streamed(there, "caller", "line") as caller:
        callee = there.parties["callee"]
        await callee.is_called()
        await caller.hears("fourth")
        await callee.accepts()
        await asyncio.gather(caller.hears("callee"), callee.hears("caller"))
        assert len(there.stage.records.of(QueueConnected)) == 1
        caller.hangs_up()
        callee.peer.answer(await callee.peer.receive("BYE"), "200 OK")


async def test_whoever_has_dialled_in_serves_streams_and_telephones_in_turn(tmp_path: Path) -> None:
    """At the desk once a telephone, once a stream: the kinds meet in either order."""
    flows = """
  line: [{queue: {name: sales, position_say_every_s: 0, on: {failed: end}}}]
  desk: [{serve: {queue: sales}}]"""
    head = f"{HEAD}\nqueues:\n  sales: {{wrapup_s: 0.1}}"
    async with town(tmp_path, flows, "callee", "third", head=head) as there:
        await there.calls("third", "desk")
        await until(lambda: _serves(there), "the desk's service")
        desk = there.parties["third"]
        async with streamed(there, "caller", "line") as caller:
            await asyncio.gather(caller.hears("third"), desk.hears("caller"))
        await there.calls("callee", "line")
        await there.hear(callee="third", third="callee")
        assert len(there.stage.records.of(QueueServed)) >= 1
        for name in ("callee", "third"):
            await there.parties[name].silence()
            await there.hangs_up(name)
        await until(lambda: not there.registry.calls, "the end of the calls")
        async with streamed(there, "fourth", "desk") as stream_desk:
            await until(lambda: _serves(there), "the desk's service")
            await there.calls("callee", "line")
            await asyncio.gather(stream_desk.hears("callee"), there.parties["callee"].hears("fourth"))


def _serves(there: Town) -> bool:
    """Whether a desk waits for callers: one who comes before is told that nobody is there."""
    return any(line.servers for line in there.registry.services.queues._lines.values())
