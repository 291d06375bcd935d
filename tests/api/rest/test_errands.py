"""What a running call is asked to do by REST, with real telephones: heard, or not, at the far end."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from tests.api.rest.test_calls import asking, create, get, key_of, kinds_of, post
from tests.fakes.party import TONES_HZ, Party, parties_at
from tests.fakes.until import eventually, until
from tests.harness.phone import Phone
from tests.harness.records import records
from tests.harness.server import ServerProcess
from tests.peers.rtp import strongest_hz

PLAN = """
tenant: acme
targets: ["*@127.0.0.1:*"]
flows:
  main: [answer, {echo: {max_s: 60}}]
  joined: [{bridge: {to: "{other}", on: {answered: end, failed: end}}}]
routes:
  - {match: {to: echo}, flow: main}
"""
SOUND_HZ, CALLER, CALLEE, NOBODY = 1500.0, "caller", "callee", "fourth"


def sound(path: Path, hz: float, seconds: int) -> None:
    samples = (8000 * np.sin(2 * np.pi * hz * np.arange(16_000 * seconds) / 16_000)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("errands")
    made = ServerProcess(folder, {"acme.yaml": PLAN}, {"http": {"host": "127.0.0.1", "api_per_s": 500}})
    (made.dialplans / "acme").mkdir()
    sound(made.dialplans / "acme" / "chime.wav", SOUND_HZ, 1)
    sound(made.dialplans / "acme" / "announcement.wav", TONES_HZ[NOBODY], 4)
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()


@pytest.fixture(scope="module")
def key(server: ServerProcess) -> str:
    return key_of(server)


@asynccontextmanager
async def on_the_line(server: ServerProcess) -> AsyncIterator[tuple[Phone, str]]:
    """A telephone in its echo, and the id of its call."""
    with Phone(server.sip_port) as phone:
        assert (await asyncio.to_thread(phone.invite, "echo")).code == 200
        phone.start_media()
        await until(lambda: bool(records(server.database, phone.call_id)), "the record")
        yield phone, records(server.database, phone.call_id)[0].call_id
        await asyncio.to_thread(phone.bye)


async def steps(client: aiohttp.ClientSession, call_id: str, count: int) -> list[str]:
    """The steps that were entered, once there are so many."""
    entered = await eventually(lambda: kinds_of(client, call_id, "step.entered"), lambda each: len(each) >= count)
    return [each["step"] for each in entered]


async def test_a_sound_is_played_and_the_flow_goes_on(server: ServerProcess, key: str) -> None:
    async with on_the_line(server) as (phone, call_id), asking(server, key) as client:
        await steps(client, call_id, 2)
        await post(client, f"/api/v1/calls/{call_id}/play", 202, file="acme/chime.wav")
        assert await steps(client, call_id, 4) == ["answer", "echo", "play", "echo"]
        assert strongest_hz(phone.heard(), 8000) == pytest.approx(SOUND_HZ, abs=10)
        refusal = await post(client, f"/api/v1/calls/{call_id}/play", 400, file="../../etc/hostname")
        assert "offers no sound" in refusal["detail"]


async def test_digits_reach_the_far_end(server: ServerProcess, key: str) -> None:
    async with on_the_line(server) as (phone, call_id), asking(server, key) as client:
        await steps(client, call_id, 2)
        await post(client, f"/api/v1/calls/{call_id}/digits", 202, digits="42")
        events = [0x04, 0x02]
        await until(lambda: [each for each in pressed(phone) if each in events][-1:] == [2], "the last digit")
        assert pressed(phone) == events
        told = await eventually(lambda: kinds_of(client, call_id, "digit.sent"), bool)
        assert told[0]["digits"] == "42"
        assert "digits" in str(await post(client, f"/api/v1/calls/{call_id}/digits", 422, digits="4x"))


def pressed(phone: Phone) -> list[int]:
    """The telephone events that came, each once (RFC 4733)."""
    codes = [packet.payload[0] for packet in list(phone.received) if packet.payload_type == 101]
    return [code for index, code in enumerate(codes) if index == 0 or codes[index - 1] != code]


async def test_the_recording_is_steered(server: ServerProcess, key: str) -> None:
    async with on_the_line(server) as (_, call_id), asking(server, key) as client:
        await steps(client, call_id, 2)
        for action, kind in (
            ("start", "recording.started"),
            ("pause", "recording.paused"),
            ("resume", "recording.resumed"),
            ("stop", "recording.stopped"),
        ):
            await post(client, f"/api/v1/calls/{call_id}/record", 202, action=action)
            assert await eventually(lambda kind=kind: kinds_of(client, call_id, kind), bool)  # type: ignore[misc]
        call = await eventually(
            lambda: get(client, f"/calls/{call_id}"), lambda call: bool(call["recording"] == "complete")
        )
        assert call["state"] == "answered"
        assert await steps(client, call_id, 2) == ["answer", "echo"], "nothing was interrupted"


async def test_each_recording_of_a_call_is_fetched_by_its_number(server: ServerProcess, key: str) -> None:
    async with on_the_line(server) as (_, call_id), asking(server, key) as client:
        await steps(client, call_id, 2)
        path = f"/api/v1/calls/{call_id}/recording"
        for count in (1, 2):
            await post(client, f"/api/v1/calls/{call_id}/record", 202, action="start")
            await eventually(lambda: kinds_of(client, call_id, "recording.started"), lambda each: len(each) == count)  # noqa: B023
            async with client.get(path) as answer:
                assert answer.status == 409, "the last one runs"
            await post(client, f"/api/v1/calls/{call_id}/record", 202, action="stop")
            await eventually(
                lambda: get(client, f"/calls/{call_id}"), lambda call: bool(call["recording"] == "complete")
            )
        for query, name in (
            ("", f"{call_id}-2.wav"),
            ("?number=1", f"{call_id}.wav"),
            ("?number=2", f"{call_id}-2.wav"),
        ):
            async with client.get(f"{path}{query}") as answer:
                assert (answer.status, (await answer.read())[:4]) == (200, b"RIFF")
                assert f'filename="{name}"' in answer.headers["Content-Disposition"]
        assert "no recording 3" in (await get(client, f"/calls/{call_id}/recording?number=3", 404))["detail"]


async def test_alone_a_hold_brings_music(server: ServerProcess, key: str) -> None:
    async with on_the_line(server) as (phone, call_id), asking(server, key) as client:
        await steps(client, call_id, 2)
        await post(client, f"/api/v1/calls/{call_id}/hold", 202)
        await until(lambda: any(packet.level > 100 for packet in list(phone.received)), "the music")
        await post(client, f"/api/v1/calls/{call_id}/resume", 202)
        assert await steps(client, call_id, 4) == ["answer", "echo", "hold", "echo"]


@asynccontextmanager
async def two_joined(
    server: ServerProcess, client: aiohttp.ClientSession
) -> AsyncIterator[tuple[Party, Party, dict[str, str]]]:
    """Caller and callee hear each other; and the call, which is ended by REST."""
    async with parties_at(server.sip_port, CALLER, CALLEE) as (caller, callee):
        made = await create(client, to=uri(caller), flow="joined", variables={"other": uri(callee)})
        for party in (caller, callee):
            await party.is_called()
            await party.accepts()
        await callee.hears(CALLER)
        await caller.hears(CALLEE)
        yield caller, callee, made
        async with client.delete(made["url"]) as answer:
            assert answer.status == 204
        for party in (caller, callee):
            party.peer.answer(await party.peer.receive("BYE"), "200 OK")


async def test_of_two_who_are_joined_one_is_muted_and_held(server: ServerProcess, key: str) -> None:
    async with asking(server, key) as client, two_joined(server, client) as (caller, callee, made):
        await post(client, f"{made['url']}/mute", 202)
        await callee.hears()
        await caller.hears(CALLEE)
        await post(client, f"{made['url']}/unmute", 202)
        await callee.hears(CALLER)
        await post(client, f"{made['url']}/hold", 202)
        await callee.hears()
        await caller.hears()
        await post(client, f"{made['url']}/resume", 202)
        await callee.hears(CALLER)
        await caller.hears(CALLEE)
        assert await steps(client, made["id"], 1) == ["bridge"]


async def test_one_of_two_who_are_joined_hears_an_announcement(server: ServerProcess, key: str) -> None:
    """Which is the tone of somebody who is not there."""
    async with asking(server, key) as client, two_joined(server, client) as (caller, callee, made):
        await post(client, f"{made['url']}/play", 202, file="acme/announcement.wav")
        await caller.hears(NOBODY)
        await callee.hears(CALLER)
        refusal = await post(client, f"{made['url']}/say", 409, text="One moment.")
        assert "already" in refusal["detail"]
        left = await eventually(lambda: kinds_of(client, made["id"], "step.left"), bool)
        assert [(step["step"], step["outcome"]) for step in left] == [("play", "done")]
        await caller.hears(CALLEE)
        await callee.hears(CALLER)
        assert await steps(client, made["id"], 2) == ["bridge", "play"]


def uri(party: Party) -> str:
    return f"sip:200@127.0.0.1:{party.peer.port}"
