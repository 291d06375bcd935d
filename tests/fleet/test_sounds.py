"""Two machines with one Redis and one PostgreSQL, each with its own recordings: whichever is asked, it gives them."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from typer.testing import CliRunner

from sipserver import settings
from sipserver.api.sounds import tickets
from sipserver.api.sounds.doors import of_machine
from sipserver.api.sounds.giving import SOUND
from sipserver.api.sounds.tickets import Sound
from sipserver.audio.levels import rms_dbfs
from sipserver.bus.contract import Bus
from sipserver.cli import keys as keys_cli
from sipserver.cli import privacy as privacy_cli
from sipserver.cli.operator_bus import operator_bus
from sipserver.codecs.g711 import G711Encoder
from tests.fakes.until import eventually
from tests.fakes.voice import voice
from tests.harness.fleet import FleetProcess
from tests.harness.records import Record
from tests.harness.routed_phone import RoutedPhone
from tests.harness.talk import Talker
from tests.peers.rtp import strongest_hz
from tests.servers.postgres import Postgres
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.peers

PLAN = """
tenant: acme
flows:
  main: [answer, {record: {stereo: true}}, {echo: {max_s: 120}}]
  box: [{voicemail: {box: sales, silence_s: 1, transcript: false}}, hangup]
routes:
  - {match: {to: echo}, flow: main}
  - {match: {to: box}, flow: box}
"""
VARIABLE = "SIPSERVER_RECORDING_KEYS"
KEY = f"a:{base64.b64encode(bytes(range(32))).decode()}"
HZ = 440.0


@dataclass(frozen=True, slots=True)
class Pair:
    """one: where the calls were. two: which is asked. call: recorded; message: left in a box."""

    one: FleetProcess
    two: FleetProcess
    call: Record
    message: Record


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Pair]:
    """The second machine comes when the calls are over, so that none of them was there."""
    folder, database = tmp_path_factory.mktemp("machines"), postgres.url(postgres.database(migrated=False))
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv(VARIABLE, KEY)
        redis = RedisServer(folder / "redis")
        redis.start()
        stack.callback(redis.stop)
        common = {
            "bus": {"prefix": "shared", "lease_s": 2},
            "calls": {"encryption": {"enabled": True}},
        }
        one, two = (
            FleetProcess(
                folder / name,
                {"acme.yaml": PLAN},
                {**common, "fleet": {"node": name, "heartbeat_s": 0.3}, "edge": {"enabled": name == "one"}},
                calls=4,
                redis=redis,
                store_url=database,
                host=host,
            )
            for name, host in (("one", "127.0.0.1"), ("two", "127.0.0.2"))
        )
        stack.enter_context(one)
        made = Pair(one, two, recorded(one), left(one))
        stack.enter_context(two)
        yield made


def recorded(fleet: FleetProcess) -> Record:
    with Talker(fleet.sip_port).call() as phone:
        phone.echo_for(2)
        phone.bye()
    (record,) = fleet.await_records(1, sip_call_id=phone.call_id, mended=True)
    assert record.recording_status == "complete"
    return record


def left(fleet: FleetProcess) -> Record:
    with RoutedPhone(fleet.sip_port) as phone:
        assert phone.invite("box").code == 200
        phone.start_media()
        phone.say(G711Encoder.mu_law().encode(voice(3, seed=2, rate_hz=8000)))
        assert phone.ended.wait(20)
    (record,) = fleet.await_records(1, sip_call_id=phone.call_id)
    assert record.of("voicemail.left")
    return record


def key_of(fleet: FleetProcess, tenant: str = "acme", *scopes: str) -> str:
    words = ["create", "--tenant", tenant, "--name", "tests", "--config", str(fleet.settings_file)]
    for scope in scopes:
        words += ["--scope", scope]
    made = CliRunner().invoke(keys_cli.app, words)
    assert made.exit_code == 0, made.output
    return str(made.output.strip().splitlines()[-1])


@asynccontextmanager
async def asking(fleet: FleetProcess, tenant: str = "acme", *scopes: str) -> AsyncIterator[aiohttp.ClientSession]:
    key = await asyncio.to_thread(key_of, fleet, tenant, *scopes)
    url = f"http://{fleet.host}:{fleet.http_port}"
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


@asynccontextmanager
async def bus_of(fleet: FleetProcess) -> AsyncIterator[Bus]:
    async with operator_bus(settings.load(fleet.settings_file)) as bus:
        yield bus


def caller_of(content: bytes) -> np.ndarray:
    """What the caller said, at 16 kHz."""
    with wave.open(io.BytesIO(content)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())[:, 0]


async def test_a_recording_is_fetched_from_the_machine_that_has_it(pair: Pair) -> None:
    path = f"/api/v1/calls/{pair.call.call_id}/recording"
    assert not Path(pair.call.recording).is_relative_to(pair.two.folder)
    async with asking(pair.one) as near, near.get(path) as answer:
        expected, headers = await answer.read(), answer.headers
    async with asking(pair.two) as client:
        async with client.get(path) as answer:
            whole = await answer.read()
            assert (answer.status, whole) == (200, expected)
            for name in ("Content-Type", "Content-Length", "Content-Disposition", "ETag", "Accept-Ranges"):
                assert answer.headers.get(name) == headers.get(name), name
        assert strongest_hz(caller_of(whole), 16_000) == pytest.approx(HZ, abs=10)
        async with client.get(path, headers={"Range": "bytes=1000-1999"}) as answer:
            assert (answer.status, await answer.read()) == (206, whole[1000:2000])
            assert answer.headers["Content-Range"] == f"bytes 1000-1999/{len(whole)}"
        async with client.get(path, headers={"If-None-Match": headers["ETag"]}) as answer:
            assert answer.status == 304
    async with asking(pair.two, "zenith") as stranger, stranger.get(path) as answer:
        assert answer.status == 404
    async with asking(pair.two, "acme", "calls:read") as weak, weak.get(path) as answer:
        assert answer.status == 403


async def test_each_download_is_noted_once(pair: Pair) -> None:
    async with asking(pair.two, "acme", "recordings:read", "audit:read") as client:

        async def noted() -> int:
            async with client.get("/api/v1/audit?limit=500") as answer:
                entries = (await answer.json())["entries"]
            subject = f"call:{pair.call.call_id}"
            return sum((each["action"], each["subject"]) == ("recording.read", subject) for each in entries)

        before = await noted()
        async with client.get(f"/api/v1/calls/{pair.call.call_id}/recording") as answer:
            await answer.read()
        assert await eventually(noted, lambda count: count > before) == before + 1


async def test_a_ticket_is_needed_and_is_good_for_one_file(pair: Pair) -> None:
    async with bus_of(pair.two) as bus, aiohttp.ClientSession() as client:
        (door,) = (await bus.leases.find(of_machine("one"))).values()

        async def asked(secret: str) -> int:
            headers = {"Authorization": f"Bearer {secret}"}
            async with client.get(f"http://{door['host']}:{door['port']}{SOUND}", headers=headers) as answer:
                return answer.status

        sound = Sound("one", "acme", pair.call.call_id, pair.call.recording, whole=True)
        async with tickets.issued(bus.leases, sound) as secret:
            assert await asked(secret) == 200
            assert await asked("x" * 43) == 404
        await eventually(lambda: asked(secret), lambda status: status == 404, "the end of a ticket")
        outside = Sound("one", "acme", pair.call.call_id, str(pair.one.settings_file), whole=True)
        async with tickets.issued(bus.leases, outside) as secret:
            assert await asked(secret) == 404


async def export(client: aiohttp.ClientSession) -> bytes:
    async with client.post("/api/v1/privacy/export", json={"number": "phone"}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.read()


def manifest(content: bytes) -> dict[str, int]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return dict(json.loads(archive.read("manifest.json")))


def has_all_sound(content: bytes, pair: Pair) -> None:
    assert manifest(content) == {"calls": 2, "recordings": 2, "elsewhere": 0, "running": 0}
    (message,) = pair.message.of("voicemail.left")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for path in (pair.call.recording, str(message["path"])):
            name = Path(path).name.removesuffix(".enc")
            sound = caller_of(archive.read(f"recordings/{name}"))
            assert len(sound) > 16_000
            assert rms_dbfs(sound) > -40


async def test_a_person_is_given_sound_of_all_machines(pair: Pair, tmp_path: Path) -> None:
    async with asking(pair.two, "acme", "privacy:write") as client:
        has_all_sound(await export(client), pair)
    out = tmp_path / "given.zip"
    words = ["export", "phone", "--tenant", "acme", "--out", str(out), "--config", str(pair.two.settings_file)]
    done = await asyncio.to_thread(CliRunner().invoke, privacy_cli.app, words)
    assert (done.exit_code, done.output) == (0, f"2 calls, 2 sound files in {out}\n")
    has_all_sound(await asyncio.to_thread(out.read_bytes), pair)


async def test_a_machine_that_is_killed_is_named_and_gives_again_when_it_is_back(pair: Pair) -> None:
    path = f"/api/v1/calls/{pair.call.call_id}/recording"
    await asyncio.to_thread(pair.one.kill_all)
    async with asking(pair.two) as client:
        async with client.get(path) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert "machine one" in (await answer.json())["detail"]
        async with asking(pair.two, "acme", "privacy:write") as keeper:
            told = manifest(await export(keeper))
        assert told == {"calls": 2, "recordings": 0, "elsewhere": 2, "running": 0}
        pair.two.await_log("another machine")
        await asyncio.to_thread(pair.one.start_supervisor)

        async def status() -> int:
            async with client.get(path) as answer:
                await answer.read()
                return answer.status

        await eventually(status, lambda found: found == 200, "the machine that is back")
        await asyncio.to_thread(Path(pair.call.recording).unlink)
        assert await status() == 404
