"""A card number is typed in `secure`, and the caller is bridged or handed over: before it, behind it and within it.

On the wire, with real far ends: what the recording has on each side, who gets which digit, and where none is found.
"""

from __future__ import annotations

import asyncio
import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sipserver.audio.frame import Samples
from tests.api.rest.test_calls import asking, get, key_of
from tests.api.rest.test_events import Follower, following
from tests.api.rest.test_webhooks import Receiver, send
from tests.calls.test_parties_on_the_wire import FORBIDS_REFER, OFFERED, press, pressed
from tests.e2e.test_secure import CARD, kept, speaks, steps
from tests.fakes.party import TONES_HZ, Party, media_port, parties_at
from tests.fakes.sip_peer import PeerCall
from tests.fakes.until import until
from tests.harness.records import Record, record_of
from tests.harness.server import ServerProcess

RATE_HZ = 16_000
ON = "on: {busy: bad, declined: bad, no_answer: bad, failed: bad, answered: %s}"
JOINS = {
    "bridge": f"bridge: {{to: CALLEE, {ON % 'bye'}}}",
    "attended": f"transfer: {{to: CALLEE, mode: attended, {ON.replace(', answered: %s', '')}}}",
    "warm": f"transfer: {{to: CALLEE, mode: warm, announce: Somebody calls., {ON.replace(', answered: %s', '')}}}",
}
CARD_TYPED = "collect: {digits: 16, timeout_s: 60, between_s: 60, into: card, on: {none: bad, other: next}}"
HEAD = """
tenant: acme
targets: ["*@127.0.0.1:*"]
routes: [{flow: main}]
flows:
  bad: [hangup]
  bye: [hangup]
  main:
    - answer
    - record: start
    - say: {text: One two three four five.}
    - collect: {digits: 1, timeout_s: 60, into: menu, on: {none: bad, other: next}}
"""


def behind(join: str) -> str:
    secure = f"secure:\n        do:\n          - say: The word is marmalade.\n          - {CARD_TYPED}"
    return f"{HEAD}    - {secure}\n    - {join}\n"


def within() -> str:
    bridge = f"bridge: {{to: CALLEE, {ON % 'next'}}}"
    last = "collect: {digits: 1, timeout_s: 60, into: after, on: {none: bad, other: bye}}"
    return f"{HEAD}    - secure:\n        do:\n          - {bridge}\n    - {last}\n"


@dataclass
class Line:
    """A call that is up in its first `collect`, and what tells of it. told: what came by webhook, at the end."""

    server: ServerProcess
    caller: Party
    callee: Party
    call: PeerCall
    live: Follower
    transcript: str = ""
    told: bytes = b""

    async def at(self, step: str, count: int = 1) -> None:
        await until(lambda: steps(self.server, self.call.call_id).count(step) == count, step)

    async def types(self, digits: str) -> None:
        await self.caller.silence()
        for digit in digits:
            await press(self.caller, self.call.media_port, int(digit), payload_type=OFFERED)
        await self.caller.talk(self.call.media_port)
        await speaks(self.caller)


@asynccontextmanager
async def line(folder: Path, plan: str) -> AsyncIterator[Line]:
    """Everything is switched on that could keep what is typed. It is over, and the server gone, with the block."""
    tts = {"espeak": {"vendor": "espeak", "processes": 1}}
    server = ServerProcess(
        folder,
        {},
        {"speech": {"tts": tts}, "webhooks": {"allow_private": True}, "log": {"level": "debug", "private": True}},
    )
    receiver = Receiver()
    async with parties_at(server.sip_port, "caller", "callee") as (caller, callee), receiver.listening():
        (server.dialplans / "acme.yaml").write_text(
            plan.replace("CALLEE", f"'sip:callee@127.0.0.1:{callee.peer.port}'")
        )
        await asyncio.to_thread(server.start)
        try:
            key = await asyncio.to_thread(key_of, server)
            async with asking(server, key) as client, following(server, key) as live:
                await send(client, "POST", "/webhooks", 201, url=receiver.url)
                made = Line(server, caller, callee, await caller.dials("main", FORBIDS_REFER), live)
                await made.at("collect")
                await speaks(caller)
                yield made
                record = await record_of(server.database, made.call.call_id)
                await live.until("call.ended", record.call_id)
                await until(lambda: any(each["type"] == "call.ended" for each in receiver.of(record.call_id)))
                made.told = b"\n".join(body for _headers, body in receiver.came)
                made.transcript = json.dumps(await get(client, f"/calls/{record.call_id}/transcript"))
        finally:
            await asyncio.to_thread(server.stop)


async def is_called(there: Line, join: str) -> None:
    await there.callee.is_called()
    await there.callee.accepts()
    if join == "warm":
        await there.callee.silence()
        await press(there.callee, media_port(there.callee.invite), 1, payload_type=OFFERED)
        await there.callee.talk(media_port(there.callee.invite))


async def hear_each_other(there: Line) -> None:
    await asyncio.gather(there.caller.hears("callee"), there.callee.hears("caller"))


async def callee_hangs_up(there: Line) -> None:
    there.callee.peer.send(there.callee.request("BYE"))
    await there.callee.peer.receive(200)


def sides(path: Path) -> Samples:
    """The recording: a column of the caller, one of the other side."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, RATE_HZ)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)


def strength(samples: Samples, name: str) -> float:
    """Of a party's tone in the loudest 200 ms."""
    size = RATE_HZ // 5
    wave_of = np.exp(-2j * np.pi * TONES_HZ[name] * np.arange(size) / RATE_HZ)
    parts = [samples[at : at + size].astype(np.float64) for at in range(0, len(samples) - size + 1, size)]
    return max((2 * abs(part @ wave_of) / size for part in parts), default=0.0)


def secure_part(record: Record) -> tuple[Samples, Samples, Samples]:
    """The recording before `secure`, in it, and behind it."""
    (paused,), (resumed,) = record.of("recording.paused"), record.of("recording.resumed")
    whole = sides(Path(record.recording))
    begin, end = paused["at_sample"], resumed["at_sample"]
    assert end - begin > RATE_HZ // 2
    return whole[:begin], whole[begin:end], whole[end:]


def found_nowhere(there: Line, *parts: str) -> None:
    live = json.dumps(there.live.heard).encode()
    for written in (kept(there.server), there.told, live):
        assert b"secure.ended" in written
    for written in (kept(there.server), there.told, live, there.transcript.encode()):
        for part in parts:
            assert part.encode() not in written


@pytest.mark.parametrize("join", JOINS)
async def test_behind_secure_two_are_joined_and_only_that_is_heard_and_told(tmp_path: Path, join: str) -> None:
    async with line(tmp_path, behind(JOINS[join])) as there:
        await there.types("7")
        await there.at("collect", 2)
        await there.types(CARD)
        await is_called(there, join)
        await hear_each_other(there)
        there.callee.media.pending()
        await there.types("5")
        assert await pressed(there.callee) == 5
        await hear_each_other(there)
        await callee_hangs_up(there)
    record = await record_of(there.server.database, there.call.call_id)
    before, meanwhile, after = secure_part(record)
    assert strength(before[:, 0], "caller") > 1000
    assert before[:, 1].any(), "what the server said"
    assert not meanwhile.any()
    assert strength(after[:, 0], "caller") > 1000
    assert strength(after[:, 1], "callee") > 1000
    typed = [each["digit"] for each in record.of("digit.received") if not each.get("leg")]
    assert typed == ["7", "5"]
    assert [each["name"] for each in record.of("variable.set")] == ["menu"]
    found_nowhere(there, CARD, CARD[:8], CARD[8:], "marmalade")


async def test_two_who_are_bridged_within_secure_are_not_heard_and_digits_pass(tmp_path: Path) -> None:
    async with line(tmp_path, within()) as there:
        await there.types("7")
        await is_called(there, "bridge")
        await hear_each_other(there)
        for digit in CARD[:8]:
            there.callee.media.pending()
            await there.types(digit)
            assert await pressed(there.callee) == int(digit)
        await callee_hangs_up(there)
        await there.at("collect", 2)
        for _ in range(2):
            await speaks(there.caller)
        await there.types("9")
    record = await record_of(there.server.database, there.call.call_id)
    before, meanwhile, after = secure_part(record)
    assert strength(before[:, 0], "caller") > 1000
    assert not meanwhile.any()
    assert strength(after[:, 0], "caller") > 1000
    assert [each["digit"] for each in record.of("digit.received")] == ["7", "9"]
    assert not record.of("digit.sent")
    found_nowhere(there, CARD[:8])
