"""Rooms, queues and messages with real far ends: parties on UDP, each with a tone, and who hears whom on each leg."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sipserver import yaml_file
from sipserver.audio.levels import rms_dbfs
from sipserver.calls.call import Call
from sipserver.calls.commands import CallCommands
from sipserver.calls.registry import Registry
from sipserver.codecs.g711 import G711Encoder
from sipserver.dialplan import load
from sipserver.dialplan.book import Book
from sipserver.errors import DialplanError
from sipserver.events import ConferenceJoined, QueueConnected, QueueEntered, QueueServed, VoicemailLeft
from sipserver.outbound import TrunkOutbound
from tests.calls.conftest import Stage
from tests.fakes.party import TONES_HZ, Party, parties
from tests.fakes.sip_peer import header, status_of
from tests.fakes.sip_rig import Rig, running
from tests.fakes.until import until
from tests.fakes.voice import voice

TEAM = """
  team: [{conference: {room: team, %s on: {kicked: out, failed: out}}}]
  out: [hangup]"""
SALES = """
  line: [{queue: {name: sales, position_say_every_s: 0, on: {failed: end}}}]
  desk: [{serve: {queue: sales}}]"""
BOX = """
  box: [{voicemail: {box: sales, silence_s: 1, transcript: false}}, {wait: 60}]"""


@dataclass
class Town:
    """A server and its far ends by name; calls to a flow's name run it."""

    rig: Rig
    stage: Stage
    registry: Registry
    parties: dict[str, Party]

    async def calls(self, name: str, to: str) -> Call:
        """A party calls and talks."""
        party = self.parties[name]
        party.call = party.peer.call(to)
        before = set(self.registry.calls)
        party.call.invite(party.sdp, f"X-Name: {name}\r\n")
        answer = await party.call.final()
        assert status_of(answer) == 200, answer
        party.call.ack()
        await party.talk(party.call.media_port)
        (call_id,) = set(self.registry.calls) - before
        return self.registry.calls[call_id]

    async def hear(self, **who: str) -> None:
        """Wait until each party hears exactly those (names with spaces between)."""
        await asyncio.gather(*(self.parties[name].hears(*heard.split()) for name, heard in who.items()))

    async def hangs_up(self, name: str) -> None:
        call = self.parties[name].call
        assert call is not None
        await call.transact("BYE")

    async def gone(self, call: Call) -> None:
        await until(lambda: call.id not in self.registry.calls, "the end of the call")


@asynccontextmanager
async def town(folder: Path, flows: str, *names: str, head: str = "", **settings: Any) -> AsyncIterator[Town]:
    """flows, head: with {name} for the URIs of the far ends. Everything ends with the block."""
    async with running(**settings) as rig, parties(rig, *names) as ends:
        stage = Stage(folder)
        stage.recorder.open()
        outbound = TrunkOutbound(rig.cell, (), "sipserver", own_address=lambda: f"127.0.0.1:{rig.port}")
        stage.outbound = outbound
        for party in ends:
            uri = f"'sip:{party.name}@127.0.0.1:{party.peer.port}'"
            head, flows = (text.replace(f"{{{party.name}}}", uri) for text in (head, flows))
        to = [line.split(":")[0].strip() for line in flows.splitlines() if line.strip()]
        routes = "".join(f"  - match: {{to: {name}}}\n    flow: {name}\n" for name in to)
        text = f"tenant: acme\n{head}\nflows:{flows}\nroutes:\n{routes}"
        report = load.check_document(yaml_file.parse_text(text, folder / "demo.yaml", DialplanError))
        assert report.plan is not None, report.errors
        stage.book = Book((report.plan,))
        registry = stage.registry()
        serving = asyncio.create_task(_serve(rig, registry), name="serving")
        try:
            yield Town(rig, stage, registry, {party.name: party for party in ends})
        finally:
            await registry.drain(0)
            serving.cancel()
            await asyncio.wait({serving})
            await outbound.close()
            await stage.close()


async def _serve(rig: Rig, registry: Registry) -> None:
    while True:
        registry.accept(await rig.legs.get())


def loud(samples: np.ndarray[Any, Any], name: str) -> float:
    """How loud a party's tone is in samples of 16 kHz, in int16 units."""
    wave_ = samples.astype(np.float64)
    at = 2j * np.pi * TONES_HZ[name] * np.arange(len(wave_)) / 16_000
    return float(2 * abs(np.mean(wave_ * np.exp(-at))))


# --- conference -------------------------------------------------------------------------------------------------------


async def test_three_members_hear_each_other_and_never_themselves(tmp_path: Path) -> None:
    async with town(tmp_path, TEAM % "", "caller", "callee", "third") as there:
        calls = [await there.calls(name, "team") for name in ("caller", "callee", "third")]
        await there.hear(caller="callee third", callee="caller third", third="caller callee")
        commands = CallCommands(there.registry)

        await commands.handle("conference.mute", {"call": calls[0].id})
        await there.hear(caller="callee third", callee="third", third="callee")
        await commands.handle("conference.unmute", {"call": calls[0].id})
        await there.hear(callee="caller third", third="caller callee")

        assert there.parties["callee"].call is not None
        await commands.handle("conference.kick", {"call": calls[1].id})
        bye = await there.parties["callee"].peer.receive("BYE")
        there.parties["callee"].peer.answer(bye, "200 OK")
        await there.gone(calls[1])
        await there.hear(caller="third", third="caller")

        await there.hangs_up("third")
        await there.hear(caller="")


async def test_the_key_mutes_on_the_wire(tmp_path: Path) -> None:
    async with town(tmp_path, TEAM % "", "caller", "callee") as there:
        await there.calls("caller", "team")
        await there.calls("callee", "team")
        await there.hear(caller="callee", callee="caller")
        call = there.parties["caller"].call
        assert call is not None
        for digit in "*6":
            body = f"Signal={digit}\r\nDuration=160\r\n"
            answer = await call.transact("INFO", headers="Content-Type: application/dtmf-relay\r\n", body=body)
            assert answer.startswith("SIP/2.0 200")
        await there.hear(callee="", caller="callee")


async def test_a_room_opens_with_its_moderator(tmp_path: Path) -> None:
    flows = """
  team: [{conference: {room: team, on: {failed: end}}}]
  lead: [{conference: {room: team, moderator: true, on: {failed: end}}}]"""
    async with town(tmp_path, flows, "caller", "callee", "third") as there:
        one, other = await there.calls("caller", "team"), await there.calls("callee", "team")
        await there.hear(caller="", callee="")
        await there.calls("third", "lead")
        await there.hear(caller="callee third", callee="caller third", third="caller callee")
        await there.hangs_up("third")
        for name, call in (("caller", one), ("callee", other)):
            peer = there.parties[name].peer
            peer.answer(await peer.receive("BYE"), "200 OK")
            await there.gone(call)


async def test_the_recording_of_a_room_has_what_was_said_left_and_what_was_heard_right(tmp_path: Path) -> None:
    async with town(tmp_path, TEAM % "record: true,", "caller", "callee", "third") as there:
        calls = {name: await there.calls(name, "team") for name in ("caller", "callee", "third")}
        await there.hear(caller="callee third", callee="caller third", third="caller callee")
        await asyncio.sleep(1)
        for name in calls:
            await there.hangs_up(name)
        for call in calls.values():
            await there.gone(call)
        for name, call in list(calls.items())[:1]:
            (path,) = there.stage.recorder.folder.rglob(f"{call.id}.wav")
            with wave.open(str(path)) as file:
                both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)[-16_000:-3_200]
            said, heard = both[:, 0], both[:, 1]
            assert {each for each in calls if loud(said, each) > 1000} == {name}
            assert {each for each in calls if loud(heard, each) > 1000} == set(calls) - {name}
        assert len(there.stage.records.of(ConferenceJoined)) == 3


# --- queue ------------------------------------------------------------------------------------------------------------


async def test_an_agent_who_is_called_talks_with_the_one_who_waited(tmp_path: Path) -> None:
    head = "queues:\n  sales: {agents: [{callee}, {third}], strategy: in_order}"
    async with town(tmp_path, SALES, "caller", "callee", "third", head=head) as there:
        call = await there.calls("caller", "line")
        busy = await there.parties["callee"].is_called()
        there.parties["callee"].peer.answer(busy, "486 Busy Here", tag="x")
        third = there.parties["third"]
        await third.is_called()
        await third.accepts()
        await there.hear(caller="third", third="caller")
        await there.hangs_up("caller")
        await there.gone(call)
        assert header(await third.peer.receive("BYE"), "Call-ID") == header(third.invite, "Call-ID")
        assert len(there.stage.records.of(QueueConnected)) == 1


async def test_an_agent_who_has_dialled_in_gets_one_caller_after_the_other(tmp_path: Path) -> None:
    head = "queues:\n  sales: {wrapup_s: 0.1}"
    async with town(tmp_path, SALES, "caller", "callee", "third", head=head) as there:
        await there.calls("third", "desk")
        first = await there.calls("caller", "line")
        await there.hear(caller="third", third="caller")
        await there.calls("callee", "line")
        await there.hear(callee="", third="caller")
        await there.hangs_up("caller")
        await there.gone(first)
        await there.hear(callee="third", third="callee")
        assert len(there.stage.records.of(QueueEntered)) == 2
        assert len(there.stage.records.of(QueueServed)) == 1


# --- voicemail --------------------------------------------------------------------------------------------------------


async def test_a_message_holds_the_caller_alone(tmp_path: Path) -> None:
    async with town(tmp_path, BOX, "caller") as there:
        call, caller = await there.calls("caller", "box"), there.parties["caller"]
        await caller.silence()
        said = G711Encoder.mu_law().encode(voice(2, seed=2, rate_hz=8000))
        frames = (said[start : start + 160] for start in range(0, len(said), 160))
        assert caller.call is not None
        async with caller.media.stream(caller.call.media_port, *frames):
            await asyncio.sleep(2)
        assert call.id in there.registry.calls
        await until(lambda: bool(there.stage.records.of(VoicemailLeft)), "the message")
        (left,) = there.stage.records.of(VoicemailLeft)
        assert left.ended_by == "silence"
        with wave.open(left.path) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert rms_dbfs(samples[8_000:24_000]) > -40
        for start in range(0, 16_000, 4_000):  # 250 ms: 4 Hz a step
            power = np.abs(np.fft.rfft(samples[start : start + 4_000].astype(np.float64))) ** 2
            assert power[247:254].sum() < 0.5 * power.sum() + 1, "our beep is not in the message"
