"""Bridge and transfer with real far ends: three parties on UDP, each with a tone, and who hears whom on each leg."""

from __future__ import annotations

import asyncio
import struct
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipserver.calls.call import Call
from sipserver.calls.registry import Registry
from sipserver.codecs.g711 import G711Decoder
from sipserver.events import DigitsSent, Event, PartyEnded, Spoken, TransferEnded, Unbridged
from sipserver.outbound import TrunkOutbound
from tests.calls.conftest import SPOKEN, Stage
from tests.fakes.engines import FakeStt
from tests.fakes.party import TONES_HZ, Party, media_port, parties
from tests.fakes.sip_peer import header, sdp, status_of
from tests.fakes.sip_rig import Rig, running
from tests.fakes.until import until

REPLACES = "Supported: replaces\r\n"
OFFERED = 101
"""The payload type of telephone-event in what PJSIP offers."""
FORBIDS_REFER = "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n"


@dataclass
class Town:
    """A server whose calls run a flow, a caller, a callee and a third one. names: `sip:` URIs of the far ends."""

    rig: Rig
    stage: Stage
    registry: Registry
    caller: Party
    callee: Party
    third: Party

    @property
    def call(self) -> Call:
        (call,) = self.registry.calls.values()
        return call

    async def calls(self, headers: str = FORBIDS_REFER) -> None:
        """The caller's INVITE is out; nothing is answered."""
        self.caller.call = self.caller.peer.call("main")
        self.caller.call.invite(self.caller.sdp, headers)

    async def is_answered(self) -> None:
        """The caller gets its 200, acknowledges it and talks."""
        assert self.caller.call is not None
        answer = await self.caller.call.final()
        assert status_of(answer) == 200, answer
        self.caller.call.ack()
        await self.caller.talk(self.caller.call.media_port)

    async def hear_each_other(self) -> None:
        await asyncio.gather(self.caller.hears("callee"), self.callee.hears("caller"))

    async def event(self, kind: type[Event]) -> Any:
        await until(lambda: bool(self.stage.records.of(kind)), kind.kind)
        return self.stage.records.of(kind)[0]

    async def over(self) -> str:
        await until(lambda: not self.registry.calls, "the end of the call")
        return self.stage.records.reason

    async def hangs_up(self, party: Party) -> None:
        """BYE from a party that we called."""
        party.peer.send(party.request("BYE"))
        await party.peer.receive(200)


@asynccontextmanager
async def town(folder: Path, flows: str, **settings: Any) -> AsyncIterator[Town]:
    """flows: with {callee} and {third} for the far ends. Everything ends with the block."""
    async with (
        running(**settings) as rig,
        parties(rig, "caller", "callee", "third") as (caller, callee, third),
    ):
        stage = Stage(folder)
        stage.recorder.open()
        outbound = TrunkOutbound(rig.cell, (), "sipserver", own_address=lambda: f"127.0.0.1:{rig.port}")
        stage.outbound = outbound
        uris = {party.name: f"sip:{party.name}@127.0.0.1:{party.peer.port}" for party in (callee, third)}
        for name, uri in uris.items():
            flows = flows.replace(f"{{{name}}}", f"'{uri}'")
        stage.plan(flows)
        registry = stage.registry()
        serving = asyncio.create_task(_serve(rig, registry), name="serving")
        try:
            yield Town(rig, stage, registry, caller, callee, third)
        finally:
            await registry.drain(0)
            serving.cancel()
            await asyncio.wait({serving})
            await outbound.close()
            await stage.close()


async def _serve(rig: Rig, registry: Registry) -> None:
    while True:
        registry.accept(await rig.legs.get())


BRIDGE = "  main: [{bridge: {to: {callee}, %s on: {answered: end, busy: end, failed: end}}}]"


@asynccontextmanager
async def bridged(folder: Path, options: str = "", flows: str = BRIDGE) -> AsyncIterator[Town]:
    async with town(folder, flows % options) as there:
        await there.calls()
        await there.callee.is_called()
        await there.callee.accepts()
        await there.is_answered()
        await there.hear_each_other()
        yield there


def refer_to(refer: str) -> str:
    return header(refer, "Refer-To")


def notify(party: Party, line: str, state: str = "active;expires=60") -> None:
    assert party.call is not None
    headers = f"Event: refer\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag\r\n"
    party.peer.send(party.call.request("NOTIFY", headers=headers, body=f"{line}\r\n"))


# --- bridge -----------------------------------------------------------------------------------------------------------


async def test_the_callers_200_follows_the_partys_and_both_hear_each_other(tmp_path: Path) -> None:
    async with town(tmp_path, BRIDGE % "") as there:
        await there.calls()
        invite = await there.callee.is_called()
        there.callee.peer.answer(invite, "180 Ringing", tag="callee")
        assert status_of(await there.caller.peer.receive(180)) == 180
        assert not [text for text in there.caller.peer.seen() if status_of(text) == 200]
        await there.callee.accepts()
        await there.is_answered()
        await there.hear_each_other()
        await there.hangs_up(there.callee)
        await there.caller.peer.receive("BYE")
        assert await there.over() == "callee_hangup"


async def test_early_media_passes(tmp_path: Path) -> None:
    async with town(tmp_path, BRIDGE % "") as there:
        await there.calls()
        invite = await there.callee.is_called()
        there.callee.peer.answer(invite, "183 Session Progress", body=there.callee.sdp, tag="callee")
        await there.callee.talk(media_port(invite))
        early = await there.caller.peer.receive(183)
        assert "m=audio" in early
        await there.caller.hears("callee")
        there.callee.peer.answer(invite, "486 Busy Here", tag="callee")
        assert there.caller.call is not None
        assert status_of(await there.caller.call.final()) == 486
        assert await there.over() == "busy"


async def test_local_ringing_is_heard_until_the_answer(tmp_path: Path) -> None:
    async with town(tmp_path, BRIDGE % "progress: local,") as there:
        await there.calls()
        await there.callee.is_called()
        await there.caller.peer.receive(183)
        assert await loudest(there.caller) > 1_000
        await there.callee.accepts()
        await there.is_answered()
        await there.hear_each_other()


async def loudest(party: Party, packets: int = 20) -> int:
    """Peak of the next packets, each of which may be silence."""
    await party.media.receive()
    heard = [(await party.media.receive()).payload for _ in range(packets)]
    return int(np.abs(G711Decoder.mu_law().decode(b"".join(heard))).max())


@pytest.mark.parametrize(("status", "code"), [("486 Busy Here", 486), ("603 Decline", 603), ("404 Not Found", 404)])
async def test_a_refusal_reaches_the_caller(tmp_path: Path, status: str, code: int) -> None:
    flows = "  main: [{bridge: {to: {callee}, on: {busy: end, declined: end, no_answer: end, failed: end}}}]"
    async with town(tmp_path, flows) as there:
        await there.calls()
        there.callee.peer.answer(await there.callee.is_called(), status, tag="callee")
        assert there.caller.call is not None
        assert status_of(await there.caller.call.final()) == code
        await there.over()


async def test_a_caller_who_cancels_ends_the_partys_ringing(tmp_path: Path) -> None:
    async with town(tmp_path, BRIDGE % "") as there:
        await there.calls()
        invite = await there.callee.is_called()
        there.callee.peer.answer(invite, "180 Ringing", tag="callee")
        await there.caller.peer.receive(180)
        assert there.caller.call is not None
        there.caller.peer.send(there.caller.call.request("CANCEL", same_transaction=True))
        cancel = await there.callee.peer.receive("CANCEL")
        there.callee.peer.answer(cancel, "200 OK", tag="callee")
        there.callee.peer.answer(invite, "487 Request Terminated", tag="callee")
        assert await there.over() == "cancelled"
        assert [(end.outcome, end.by) for end in there.stage.records.of(PartyEnded)] == [("caller_gone", "us")]


async def test_a_party_that_never_answers_is_cancelled(tmp_path: Path) -> None:
    flows = "  main: [{bridge: {to: {callee}, ring_s: 1, on: {no_answer: end, failed: end}}}]"
    async with town(tmp_path, flows) as there:
        await there.calls()
        invite = await there.callee.is_called()
        there.callee.peer.answer(invite, "183 Session Progress", body=there.callee.sdp, tag="callee")
        cancel = await there.callee.peer.receive("CANCEL")
        there.callee.peer.answer(cancel, "200 OK", tag="callee")
        there.callee.peer.answer(invite, "487 Request Terminated", tag="callee")
        assert there.caller.call is not None
        assert status_of(await there.caller.call.final()) == 480
        assert await there.over() == "no_answer"


async def test_the_caller_hangs_up_and_the_party_gets_a_bye(tmp_path: Path) -> None:
    async with bridged(tmp_path) as there:
        assert there.caller.call is not None
        await there.caller.call.transact("BYE")
        bye = await there.callee.peer.receive("BYE")
        there.callee.peer.answer(bye, "200 OK", tag="callee")
        assert await there.over() == "caller_hangup"
        assert [end.reason for end in there.stage.records.of(Unbridged)] == ["caller_hangup"]


def write_tone(path: Path, name: str) -> None:
    """Ten seconds of the tone by which a far end is known."""
    samples = (8000 * np.sin(2 * np.pi * TONES_HZ[name] * np.arange(160_000) / 16_000)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())


async def test_hold_from_either_side_with_music(tmp_path: Path) -> None:
    """The music is the tone of the fourth, who is not there."""
    write_tone(tmp_path / "moh.wav", "fourth")
    async with bridged(tmp_path, "music: moh.wav,") as there:
        caller, callee = there.caller, there.callee
        assert caller.call is not None
        await caller.call.transact("INVITE", body=sdp(caller.media.port, direction="sendonly", version=2))
        await callee.hears("fourth")
        callee.peer.send(callee.request("INVITE", body=sdp(callee.media.port, direction="sendonly", version=2)))
        await callee.peer.receive(200)
        callee.peer.send(callee.request("ACK"))
        await asyncio.sleep(0.3)  # both hold: whatever is sent, nobody is listening
        await caller.call.transact("INVITE", body=sdp(caller.media.port, version=3))
        await caller.hears("fourth")
        callee.peer.send(callee.request("INVITE", sequence=2, body=sdp(callee.media.port, version=3)))
        await callee.peer.receive(200)
        callee.peer.send(callee.request("ACK", sequence=2))
        await there.hear_each_other()


async def test_digits_pass_as_events_both_ways(tmp_path: Path) -> None:
    async with bridged(tmp_path) as there:
        caller, callee = there.caller, there.callee
        assert caller.call is not None
        await caller.silence()
        await press(caller, caller.call.media_port, 5, payload_type=101)
        assert await pressed(callee) == 5
        await callee.silence()
        await press(callee, media_port(callee.invite), 11, payload_type=OFFERED)
        assert await pressed(caller) == 11
        assert [(sent.leg, sent.digits) for sent in there.stage.records.of(DigitsSent)] == [("party-1", "5"), ("", "#")]


async def press(party: Party, to_port: int, event: int, *, payload_type: int) -> None:
    """A key by RFC 4733, with the payload type that the one who listens there has named."""
    for index in range(8):
        duration, end = min(index + 1, 5) * 160, index >= 5
        payload = struct.pack("!BBH", event, (0x80 if end else 0) | 10, duration)
        party.media.send(to_port, payload, payload_type=payload_type, marker=index == 0, step=0)
        await asyncio.sleep(0.02)
    party.media.timestamp += 1600


async def pressed(party: Party) -> int:
    """The event of the next RFC 4733 packet that a far end gets."""
    async with asyncio.timeout(8):
        while (packet := await party.media.receive()).payload_type != 101:
            pass
    return packet.payload[0]


async def test_the_recording_has_one_of_them_on_each_side(tmp_path: Path) -> None:
    flows = "  main: [answer, record, {bridge: {to: {callee}, on: {answered: end, failed: end}}}]"
    async with town(tmp_path, flows) as there:
        await there.calls()
        await there.is_answered()
        await there.callee.is_called()
        await there.callee.accepts()
        await there.hear_each_other()
        await there.hear_each_other()
        await there.hangs_up(there.callee)
        await there.over()
        (path,) = there.stage.recorder.folder.rglob("*.wav")
    with wave.open(str(path)) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    end = both[-16 * 300 : -16 * 100].astype(float)
    spectrum = np.abs(np.fft.rfft(end * np.hanning(len(end))[:, None], axis=0))
    loudest_hz = spectrum.argmax(axis=0) * 16_000 / len(end)
    assert [round(hz / 50) * 50 for hz in loudest_hz] == [TONES_HZ["caller"], TONES_HZ["callee"]]


async def test_a_full_cell_keeps_the_caller(tmp_path: Path) -> None:
    """Every leg of the cell is taken: the flow goes on with the caller."""
    flows = "  main: [{bridge: {to: {callee}, on: {failed: sorry}}}]\n  sorry: [{say: one two three}, {wait: 60}]"
    async with town(tmp_path, flows) as there:
        others = [
            await there.rig.cell.dial(f"sip:x@127.0.0.1:{there.third.peer.port}")
            for _ in range(there.rig.cell.capacity - 1)
        ]
        await there.calls()
        await there.is_answered()
        await until(lambda: "one two three" in there.stage.tts.texts)
        assert [end.outcome for end in there.stage.records.of(PartyEnded)] == ["failed"]
        for leg in others:
            await leg.hangup()


# --- transfer ---------------------------------------------------------------------------------------------------------

TRANSFER = (
    "  main: [{transfer: {to: {third}, %s on: {busy: sorry, declined: sorry, no_answer: sorry, failed: sorry}}}]\n"
    "  sorry: [{say: one two three}, {wait: 60}]"
)


async def apologised(there: Town) -> None:
    """The flow goes on with the caller, who is told that it went wrong."""
    await until(lambda: bool(there.stage.records.of(Spoken)))
    assert there.stage.tts.texts == ["one two three"]
    assert not there.call.leg.is_gone  # type: ignore[attr-defined]


async def test_blind_the_caller_is_sent_to_the_target(tmp_path: Path) -> None:
    async with town(tmp_path, TRANSFER % "mode: blind,") as there:
        await there.calls(headers="")
        await there.is_answered()
        refer = await there.caller.peer.receive("REFER")
        assert f"sip:third@127.0.0.1:{there.third.peer.port}" in refer_to(refer)
        there.caller.peer.answer(refer, "202 Accepted")
        notify(there.caller, "SIP/2.0 100 Trying")
        notify(there.caller, "SIP/2.0 200 OK", "terminated;reason=noresource")
        bye = await there.caller.peer.receive("BYE")
        there.caller.peer.answer(bye, "200 OK")
        assert await there.over() == "transferred"
        ended = await there.event(TransferEnded)
        assert (ended.mode, ended.outcome, ended.how, ended.code) == ("blind", "answered", "refer", 200)


@pytest.mark.parametrize(
    ("answer", "last", "outcome"),
    [
        ("202 Accepted", "SIP/2.0 486 Busy Here", "busy"),
        ("202 Accepted", "SIP/2.0 603 Decline", "declined"),
        ("603 Decline", "", "failed"),
        ("405 Method Not Allowed", "", "failed"),
        ("501 Not Implemented", "", "failed"),
    ],
)
async def test_blind_a_caller_that_was_not_sent_stays(tmp_path: Path, answer: str, last: str, outcome: str) -> None:
    async with town(tmp_path, TRANSFER % "mode: blind,") as there:
        await there.calls(headers="")
        await there.is_answered()
        there.caller.peer.answer(await there.caller.peer.receive("REFER"), answer)
        if last:
            notify(there.caller, last, "terminated;reason=noresource")
        ended = await there.event(TransferEnded)
        assert (ended.outcome, ended.code) == (outcome, int((last or f"SIP/2.0 {answer}").split()[1]))
        await apologised(there)


async def test_attended_by_a_bridge(tmp_path: Path) -> None:
    write_tone(tmp_path / "moh.wav", "fourth")
    async with town(tmp_path, TRANSFER % "mode: attended, music: moh.wav,") as there:
        await there.calls()
        await there.is_answered()
        await there.third.is_called()
        await there.caller.hears("fourth")
        await there.third.accepts()
        await there.caller.hears("third")
        await there.third.hears("caller")
        ended = await there.event(TransferEnded)
        assert (ended.outcome, ended.how) == ("answered", "bridge")
        await there.hangs_up(there.third)
        await there.caller.peer.receive("BYE")
        assert await there.over() == "callee_hangup"


async def test_attended_a_busy_target_leaves_the_caller_here(tmp_path: Path) -> None:
    async with town(tmp_path, TRANSFER % "mode: attended,") as there:
        await there.calls()
        await there.is_answered()
        there.third.peer.answer(await there.third.is_called(), "486 Busy Here", tag="third")
        assert (await there.event(TransferEnded)).outcome == "busy"
        await apologised(there)


@asynccontextmanager
async def replacing(folder: Path) -> AsyncIterator[tuple[Town, str]]:
    """The target has answered, both hear each other, and the caller was asked to call it in our place."""
    async with town(folder, TRANSFER % "mode: attended,") as there:
        await there.calls(headers=REPLACES)
        await there.is_answered()
        await there.third.is_called()
        await there.third.accepts(headers=REPLACES)
        refer = await there.caller.peer.receive("REFER")
        await there.caller.hears("third")
        await there.third.hears("caller")
        there.caller.peer.answer(refer, "202 Accepted")
        yield there, refer


async def test_attended_by_refer_with_replaces(tmp_path: Path) -> None:
    async with replacing(tmp_path) as (there, refer):
        assert "Replaces=" in refer_to(refer)
        assert header(there.third.invite, "Call-ID").partition("@")[0] in refer_to(refer)
        await there.hangs_up(there.third)  # the dialog that was replaced
        notify(there.caller, "SIP/2.0 200 OK", "terminated;reason=noresource")
        await there.caller.peer.receive("BYE")
        assert await there.over() == "transferred"
        ended = await there.event(TransferEnded)
        assert (ended.outcome, ended.how) == ("answered", "replaces")


async def test_attended_a_replaces_that_fails_leaves_the_bridge(tmp_path: Path) -> None:
    async with replacing(tmp_path) as (there, _refer):
        notify(there.caller, "SIP/2.0 503 Service Unavailable", "terminated;reason=noresource")
        ended = await there.event(TransferEnded)
        assert (ended.outcome, ended.how) == ("answered", "bridge")
        await there.caller.hears("third")
        await there.third.hears("caller")


WARM = TRANSFER % "mode: warm, announce: One two three four., accept_s: 5,"


async def test_warm_the_target_is_told_who_comes_and_accepts(tmp_path: Path) -> None:
    async with town(tmp_path, WARM.replace("One two", " ".join(["word"] * 50))) as there:
        await there.calls()
        await there.is_answered()
        await there.third.is_called()
        await there.third.accepts()
        assert await loudest(there.third, packets=30) > SPOKEN // 2
        await there.third.silence()
        await press(there.third, media_port(there.third.invite), 1, payload_type=OFFERED)
        await there.third.talk(media_port(there.third.invite))
        await there.caller.hears("third")
        await there.third.hears("caller")
        assert (await there.event(TransferEnded)).outcome == "answered"


async def test_warm_the_target_accepts_by_voice(tmp_path: Path) -> None:
    async with town(tmp_path, WARM.replace("accept_s: 5", "accept_by: voice, accept_s: 60")) as there:
        there.stage.stt["whisper"] = stt = FakeStt("Yes, put them through.")
        await there.calls()
        await there.is_answered()
        await there.third.is_called()
        await there.third.accepts()
        await there.third.silence()
        await there.event(Spoken)  # it has heard the announcement
        while not stt.asked:
            await there.third.talk(media_port(there.third.invite))
            await asyncio.sleep(0.5)
            await there.third.silence()
            await asyncio.sleep(1)
        await there.third.talk(media_port(there.third.invite))
        await there.caller.hears("third")
        await there.third.hears("caller")
        assert (await there.event(TransferEnded)).outcome == "answered"
        assert 400 <= stt.asked[0][0] <= 5_000


@pytest.mark.parametrize("how", ["another key", "bye"])
async def test_warm_a_target_that_does_not_want_leaves_the_caller_here(tmp_path: Path, how: str) -> None:
    async with town(tmp_path, WARM) as there:
        await there.calls()
        await there.is_answered()
        await there.third.is_called()
        await there.third.accepts()
        await until(lambda: "One two three four." in there.stage.tts.texts)
        if how == "bye":
            await there.hangs_up(there.third)
        else:
            await there.third.silence()
            await press(there.third, media_port(there.third.invite), 2, payload_type=OFFERED)
            await there.third.peer.receive("BYE")
        assert (await there.event(TransferEnded)).outcome == "declined"
        await until(lambda: "one two three" in there.stage.tts.texts)


async def test_the_caller_hangs_up_while_the_target_rings(tmp_path: Path) -> None:
    async with town(tmp_path, TRANSFER % "mode: attended,") as there:
        await there.calls()
        await there.is_answered()
        invite = await there.third.is_called()
        there.third.peer.answer(invite, "180 Ringing", tag="third")
        assert there.caller.call is not None
        await there.caller.call.transact("BYE")
        there.third.peer.answer(await there.third.peer.receive("CANCEL"), "200 OK", tag="third")
        there.third.peer.answer(invite, "487 Request Terminated", tag="third")
        assert await there.over() == "caller_hangup"
        assert (await there.event(TransferEnded)).outcome == "caller_gone"
