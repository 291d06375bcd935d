"""A card number is typed in a real call with everything switched on that could keep it, and is found nowhere."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np

from tests.api.rest.test_audit import entries as audit_entries
from tests.api.rest.test_calls import asking, key_of
from tests.api.rest.test_webhooks import Receiver, send
from tests.fakes.party import Party, parties_at
from tests.fakes.sip_peer import PeerCall
from tests.fakes.until import until
from tests.harness.records import record_of, records
from tests.harness.server import ServerProcess

CARD = "4012341230123412"
PIN = "8686"
"""By INFO. None of its digits is in what comes as RTP events, which would count as the same press told twice."""
PLAN = """
tenant: acme
flows:
  main:
    - answer
    - record: start
    - collect: {digits: 1, timeout_s: 60, into: menu, on: {none: bad, other: next}}
    - secure:
        do:
          - say: {text: The word is marmalade.}
          - collect: {digits: 16, timeout_s: 60, between_s: 60, into: card, on: {none: bad, other: next}}
          - collect: {digits: 4, timeout_s: 60, between_s: 60, into: pin, on: {none: bad, other: next}}
          - when: {var: pin, like: "86??", then: next, else: bad}
          - when: {var: card, like: "40123412????3412", then: next, else: bad}
    - collect: {digits: 1, timeout_s: 60, into: after, on: {none: bad, other: good}}
  good: [hangup]
  bad: [hangup]
routes: [{flow: main}]
"""


async def press(party: Party, call: PeerCall, digits: str) -> None:
    for digit in digits:
        await party.media.press(call.media_port, int(digit))


async def speaks(party: Party) -> None:
    """For 200 ms."""
    before = party.media.sequence
    await until(lambda: party.media.sequence >= before + 10)


async def info(call: PeerCall, digits: str) -> None:
    for digit in digits:
        await call.transact("INFO", body=f"Signal={digit}\r\n", headers="Content-Type: application/dtmf-relay\r\n")


def steps(server: ServerProcess, sip_call_id: str) -> list[str]:
    """The words of the steps that were entered so far."""
    return [each["step"] for record in records(server.database, sip_call_id) for each in record.of("step.entered")]


def kept(server: ServerProcess) -> bytes:
    """All that the server has written, its dialplans apart."""
    files = [path for path in server.folder.rglob("*") if path.is_file() and server.dialplans not in path.parents]
    assert {path.suffix for path in files} >= {".db", ".log", ".wav"}
    return b"\n".join(path.read_bytes() for path in files)


def silent(path: Path, begin: int, end: int) -> bool:
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
    assert samples[:begin].any(), "before it there is sound"
    assert end > begin
    return not samples[begin:end].any()


async def test_what_is_typed_and_said_in_a_secure_step_is_found_nowhere(tmp_path: Path) -> None:
    server = ServerProcess(
        tmp_path,
        {"acme.yaml": PLAN},
        {
            "speech": {"tts": {"espeak": {"vendor": "espeak", "processes": 1}}},
            "webhooks": {"allow_private": True},
            "log": {"level": "debug", "private": True},
        },
    )
    await asyncio.to_thread(server.start)
    receiver = Receiver()
    try:
        async with receiver.listening(), asking(server, await asyncio.to_thread(key_of, server)) as client:
            await send(client, "POST", "/webhooks", 201, url=receiver.url)
            async with parties_at(server.sip_port, "caller") as (caller,):
                call = await caller.dials("main")
                await until(lambda: steps(server, call.call_id).count("collect") == 1)
                await speaks(caller)
                await caller.silence()
                await press(caller, call, "7")
                await until(lambda: steps(server, call.call_id).count("collect") == 2)
                await press(caller, call, CARD)
                await until(lambda: steps(server, call.call_id).count("collect") == 3)
                await caller.talk(call.media_port)
                await speaks(caller)
                await caller.silence()
                await info(call, PIN)
                await until(lambda: steps(server, call.call_id).count("collect") == 4)
                await press(caller, call, "9")
                record = await record_of(server.database, call.call_id)
            await until(lambda: any(each["type"] == "call.ended" for each in receiver.of(record.call_id)))
            told = b"\n".join(body for _headers, body in receiver.came)
        entries = await asyncio.to_thread(audit_entries, server, "acme")
    finally:
        await asyncio.to_thread(server.stop)
    assert [each["flow"] for each in record.of("step.entered")][-1] == "good", "the card number was taken"
    assert [each["digit"] for each in record.of("digit.received")] == ["7", "9"]
    assert record.of("secure.ended")[0]["reason"] == "done"
    assert [each["name"] for each in record.of("variable.set")] == ["menu", "after"]
    (paused,), (resumed,) = record.of("recording.paused"), record.of("recording.resumed")
    assert silent(Path(record.recording), paused["at_sample"], resumed["at_sample"])
    for written in (kept(server), told):
        assert b"secure.ended" in written
        assert b"Signal=" not in written
        for part in (CARD, CARD[:8], CARD[8:], "marmalade"):
            assert part.encode() not in written
    assert [(each["action"], each["subject"]) for each in entries if "secure" in each["action"]] == [
        ("secure.started", f"call:{record.call_id}"),
        ("secure.ended", f"call:{record.call_id}"),
    ]
