"""A server that encrypts its recordings: a real call, the file on the disk, what is read of it, and what refuses."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import subprocess
import sys
import time
import wave
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from typer.testing import CliRunner

from sipserver.calls.sealing import BODY_AT
from sipserver.cli import recordings as recordings_cli
from tests.api.rest.test_audit import entries
from tests.api.rest.test_calls import PLAN, asking, get, key_of, post
from tests.fakes.until import eventually, until, wait_until
from tests.faults.fleet_calls import PLAN as PLAN_OF_THE_FLEET
from tests.harness.fleet import FleetProcess
from tests.harness.phone import Phone, tone
from tests.harness.records import ended, records
from tests.harness.server import ROOT, ServerProcess
from tests.harness.talk import Talker
from tests.peers.rtp import strongest_hz

HZ = 1000.0
VARIABLE = "SIPSERVER_RECORDING_KEYS"
OLD = f"old:{base64.b64encode(bytes(range(32))).decode()}"
NEW = f"new:{base64.b64encode(bytes(range(1, 33))).decode()}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    monkeypatch.setenv(VARIABLE, OLD)
    settings = {"calls": {"encryption": {"enabled": True}}, "retention": {"sweep_s": 0.5}}
    made = ServerProcess(tmp_path, {"acme.yaml": PLAN.replace("say: Good day.", "wait: 1")}, settings)
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()


def recorded(server: ServerProcess, seconds: float = 3) -> tuple[str, Path]:
    """A call with a tone, of so much sound; its id and its file."""
    with Phone(server.sip_port) as phone:
        assert phone.invite("echo").code == 200
        phone.start_media()
        phone.say(tone(round(seconds * 1000), HZ))
        wait_until(lambda: len(phone.heard()) > seconds * 8000, "the echo")
        phone.bye()
        (record,) = ended(server.database, phone.call_id)
    wait_until(lambda: records(server.database, phone.call_id)[0].recording_status == "complete", "the recording")
    return record.call_id, Path(record.recording)


def left_channel(content: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(content)) as file:
        assert file.getparams()[:3] == (2, 2, 16_000)
        assert len(content) == 44 + 4 * file.getnframes()
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)[:, 0]


@asynccontextmanager
async def reading(server: ServerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with asking(server, await asyncio.to_thread(key_of, server)) as client:
        yield client


async def test_what_lies_on_the_disk_is_no_sound_and_what_is_fetched_is(server: ServerProcess) -> None:
    call_id, path = await asyncio.to_thread(recorded, server)
    assert path.name == f"{call_id}.wav.enc"
    url = f"/api/v1/calls/{call_id}/recording"
    async with reading(server) as client:
        async with client.get(url) as answer:
            whole = await answer.read()
            assert (answer.status, answer.headers["Content-Type"]) == (200, "audio/x-wav")
            assert (answer.headers["Accept-Ranges"], answer.content_length) == ("bytes", len(whole))
            assert answer.headers["Content-Disposition"] == f'attachment; filename="{call_id}.wav"'
            tag = answer.headers["ETag"]
        sound = left_channel(whole)
        assert strongest_hz(sound, 16_000) == pytest.approx(HZ, abs=10)
        content = path.read_bytes()
        assert b"RIFF" not in content
        loud = np.flatnonzero(np.abs(sound.astype(int)) > 1000)
        for at in range(44 + 4 * int(loud[0]), len(whole) - 16, 4000):
            assert whole[at : at + 16] not in content or not any(whole[at : at + 16])
        for asked, part in {
            "bytes=10-19": slice(10, 20),
            "bytes=0-": slice(0, None),
            "bytes=32040-32050": slice(32040, 32051),
            f"bytes=40-{len(whole) + 5}": slice(40, None),
            "bytes=-1000": slice(-1000, None),
        }.items():
            async with client.get(url, headers={"Range": asked}) as answer:
                assert await answer.read() == whole[part]
                assert answer.status == (200 if part == slice(0, None) else 206)
        async with client.get(url, headers={"Range": "bytes=10-19"}) as answer:
            assert answer.headers["Content-Range"] == f"bytes 10-19/{len(whole)}"
        for beyond in (f"bytes={len(whole)}-", "bytes=5-2"):
            async with client.get(url, headers={"Range": beyond}) as answer:
                assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
        async with client.get(url, headers={"Range": "apples=1-2"}) as answer:
            assert (answer.status, await answer.read()) == (200, whole)
        async with client.get(url, headers={"If-None-Match": tag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
        for condition, status in ((tag, 206), ('"another"', 200)):
            async with client.get(url, headers={"Range": "bytes=1-2", "If-Range": condition}) as answer:
                assert answer.status == status


async def test_keys_are_changed_under_a_running_server_and_without_one_it_says_so(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_id, path = await asyncio.to_thread(recorded, server, 1)
    monkeypatch.setenv(VARIABLE, f"{NEW},{OLD}")
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    config = ["--config", str(server.settings_file)]
    async with reading(server) as client:
        before = await (await client.get(f"/api/v1/calls/{call_id}/recording")).read()
        done = await asyncio.to_thread(CliRunner().invoke, recordings_cli.app, ["rewrap", *config])
        assert (done.exit_code, done.output) == (0, "1 files got the key new, 0 had it\n")
        assert await (await client.get(f"/api/v1/calls/{call_id}/recording")).read() == before
    noted = await asyncio.to_thread(entries, server, "acme")
    assert [(each["actor"], each["action"]) for each in noted].count(("operator", "recordings.rewrapped")) == 1
    monkeypatch.setenv(VARIABLE, OLD)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    async with reading(server) as client:
        refusal = await get(client, f"/calls/{call_id}/recording", 503)
        assert refusal["detail"] == f"{path.name}: it needs the key new, which is not there"
    keeper = await asyncio.to_thread(key_of, server, "acme", "privacy:write")
    async with asking(server, keeper) as client:
        told = await post(client, "/api/v1/privacy/export", 503, number="phone")
        assert "needs the key new" in told["detail"]


async def test_damage_is_no_sound(server: ServerProcess) -> None:
    call_id, path = await asyncio.to_thread(recorded, server)
    content = path.read_bytes()
    async with reading(server) as client:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert "its end is missing" in (await get(client, f"/calls/{call_id}/recording", 500))["detail"]
        middle = BODY_AT + 3 * 32_016 + 5
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        async with client.get(f"/api/v1/calls/{call_id}/recording") as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        async with client.get(f"/api/v1/calls/{call_id}/recording", headers={"Range": "bytes=0-99"}) as answer:
            assert len(await answer.read()) == 100, "what is good is given"
    assert "chunk 3 was changed, moved or cut off" in server.log()
    assert "a recording cannot be opened" in server.log()


async def test_a_person_gets_sound_and_erasure_deletes_the_file_with_a_proof(server: ServerProcess) -> None:
    call_id, path = await asyncio.to_thread(recorded, server, 1)
    keeper = await asyncio.to_thread(key_of, server, "acme", "privacy:write", "audit:read")
    async with asking(server, keeper) as client:
        async with client.post("/api/v1/privacy/export", json={"number": "phone"}) as answer:
            with zipfile.ZipFile(io.BytesIO(await answer.read())) as archive:
                names = {f"calls/{call_id}.json", f"recordings/{call_id}.wav", "manifest.json"}
                assert set(archive.namelist()) == names
                sound = left_channel(archive.read(f"recordings/{call_id}.wav"))
        assert strongest_hz(sound, 16_000) == pytest.approx(HZ, abs=10)
        await post(client, "/api/v1/privacy/erase", 200, number="phone")
        await until(lambda: not path.exists(), "the recording's deletion")
        noted = await eventually(
            lambda: asyncio.to_thread(entries, server, "acme"),
            lambda found: found[-1]["action"] == "privacy.files_deleted",
        )
    detail = noted[-1]["detail"]
    assert isinstance(detail, dict)
    assert (detail["files"], detail["missing"]) == (1, 0)


async def test_killed_in_a_call_the_recording_is_there_but_for_its_last_second(server: ServerProcess) -> None:
    def until_killed() -> tuple[str, float]:
        with Phone(server.sip_port) as phone:
            assert phone.invite("echo").code == 200
            phone.start_media()
            began_s = time.monotonic()
            phone.say(tone(5000, HZ))
            wait_until(lambda: len(phone.heard()) > 3 * 8000, "the echo")
            lasted_s = time.monotonic() - began_s
            server.kill()
            phone.ended.set()
        return phone.call_id, lasted_s

    sip_call_id, lasted_s = await asyncio.to_thread(until_killed)
    await asyncio.to_thread(server.start)
    (record,) = records(server.database, sip_call_id)
    assert record.reason == "crash"
    assert record.recording.endswith(".wav.enc")
    await until(lambda: records(server.database, sip_call_id)[0].recording_status == "complete", "the repair")
    async with reading(server) as client, client.get(f"/api/v1/calls/{record.call_id}/recording") as answer:
        assert answer.status == 200
        sound = left_channel(await answer.read())
    assert len(sound) / 16_000 > lasted_s - 1
    assert strongest_hz(sound, 16_000) == pytest.approx(HZ, abs=10)


def test_without_keys_it_does_not_start_and_says_what_to_do(server: ServerProcess) -> None:
    command = [sys.executable, "-m", "sipserver", "run", "--config", str(server.settings_file)]
    without = {name: value for name, value in os.environ.items() if name != VARIABLE}
    for keys, said in (({}, f"the variable {VARIABLE}"), ({VARIABLE: "a:b"}, f"entry 1 of {VARIABLE} (a)")):
        ran = subprocess.run(
            command, cwd=ROOT, env={**without, **keys}, capture_output=True, text=True, timeout=30, check=False
        )
        assert ran.returncode == 2
        assert ran.stderr.startswith(f"error: calls.encryption: {said}")
        assert "openssl rand -base64 32" in ran.stderr


@pytest.mark.peers
def test_a_cell_of_a_fleet_that_is_killed_leaves_a_recording_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, OLD)
    settings = {"calls": {"encryption": {"enabled": True}}}
    with FleetProcess(tmp_path / "fleet", {"acme.yaml": PLAN_OF_THE_FLEET}, settings, calls=4) as fleet:
        with Talker(fleet.sip_port).call() as phone:
            phone.echo_for(2)
            fleet.signal("cell")
            phone.ended.set()
            (record,) = fleet.await_records(1, sip_call_id=phone.call_id, mended=True)
        assert (record.reason, record.recording_status) == ("crash", "complete")
        config = ["--config", str(fleet.settings_file)]
        out = tmp_path / "out.wav"
        words = ["decrypt", record.recording, "--output", str(out), *config]
        done = CliRunner().invoke(recordings_cli.app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    sound = left_channel(out.read_bytes())
    assert len(sound) > 16_000
    assert strongest_hz(sound, 16_000) == pytest.approx(440, abs=10)
