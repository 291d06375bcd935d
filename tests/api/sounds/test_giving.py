"""The inside door: it gives what a ticket names, and to everybody else nothing, whatever they ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from sipserver.api.sounds import tickets
from sipserver.api.sounds.doors import of_machine
from sipserver.api.sounds.giving import NAMES, SOUND, Giving
from sipserver.api.sounds.tickets import Sound
from sipserver.errors import SettingsError
from tests.api.sounds.machines import CALL, Machines, machines
from tests.calls.test_sealed_file import noise, wav_of, write


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Machines]:
    async with machines(tmp_path) as made:
        yield made


async def asked(pair: Machines, secret: str, what: str = SOUND) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    async with aiohttp.ClientSession() as client, client.get(f"{pair.door}{what}", headers=headers) as answer:
        return answer.status, await answer.read()


async def shown(pair: Machines, sound: Sound, what: str = SOUND) -> tuple[int, bytes]:
    async with tickets.issued(pair.bus.leases, sound) as secret:
        return await asked(pair, secret, what)


async def test_a_ticket_is_good_for_its_file_until_its_block_ends(pair: Machines) -> None:
    (pair.folder / "a.wav").write_bytes(b"sound")
    async with tickets.issued(pair.bus.leases, pair.sound("a.wav")) as secret:
        assert await asked(pair, secret) == (200, b"sound")
        async with tickets.issued(pair.bus.leases, pair.sound("a.wav")) as other:
            assert other != secret
    assert (await asked(pair, secret))[0] == 404


async def test_whoever_has_no_ticket_learns_nothing(pair: Machines) -> None:
    (pair.folder / "a.wav").write_bytes(b"sound")
    await pair.bus.leases.hold("run/x", {"node": "one"})
    refusals = {
        await asked(pair, secret, what)
        for secret in ("", "x" * 43, "../run/x", "*", "x" * 42 + "*", "x" * 5000)
        for what in (SOUND, NAMES)
    }
    refusals |= {
        await shown(pair, pair.sound("gone.wav")),
        await shown(pair, pair.sound("a.wav", node="three")),
    }
    ((status, told),) = refusals
    assert status == 404
    assert b"a.wav" not in told


async def test_headers_that_are_no_text_do_no_harm(pair: Machines) -> None:
    (pair.folder / "a.wav").write_bytes(b"sound")
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.one.port)
    async with tickets.issued(pair.bus.leases, pair.sound("a.wav")) as secret:
        head = f"GET {SOUND} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {secret}\r\n"
        writer.write(head.encode() + b'Range: bytes=0-1\r\nIf-Range: "\xe9"\r\nIf-None-Match: "\xe9"\r\n\r\n')
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"sound")


async def test_nothing_outside_the_recordings_is_given(pair: Machines, tmp_path: Path) -> None:
    secret = tmp_path / f"{CALL}.wav"
    secret.write_bytes(b"secret")
    (pair.folder / "link.wav").symlink_to(secret)
    for path in (str(secret), f"{pair.folder}/../{CALL}.wav", str(pair.folder / "link.wav"), str(pair.folder), ""):
        sound = Sound("one", "acme", CALL, path, whole=True)
        assert (await shown(pair, sound))[0] == 404, path
        assert await shown(pair, sound, NAMES) == (200, b"[]"), path


async def test_encrypted_sound_is_opened_for_its_tenant_and_whole_if_that_is_asked(pair: Machines) -> None:
    payload = noise(100_000)
    write(pair.folder / "a.wav.enc", payload)
    assert await shown(pair, pair.sound("a.wav.enc")) == (200, wav_of(payload))
    other = Sound("one", "zenith", CALL, str(pair.folder / "a.wav.enc"), whole=True)
    assert (await shown(pair, other))[0] == 500
    (pair.folder / "a.wav.enc").write_bytes((pair.folder / "a.wav.enc").read_bytes()[:-1])
    assert (await shown(pair, pair.sound("a.wav.enc")))[0] == 500
    status, part = await shown(pair, pair.sound("a.wav.enc", whole=False))
    assert (status, part[44:]) == (200, payload[: len(part) - 44])


async def test_whoever_leaves_in_the_middle_is_no_damage(pair: Machines) -> None:
    write(pair.folder / "a.wav.enc", noise(30_000_000), part=1_000_000)
    gone = asyncio.Event()
    answer = pair.one._sounds.answer

    async def noted(*given: Any, **more: Any) -> web.StreamResponse:
        try:
            return await answer(*given, **more)
        finally:
            gone.set()

    with capture_logs() as logs, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair.one._sounds, "answer", noted)
        async with (
            tickets.issued(pair.bus.leases, pair.sound("a.wav.enc")) as secret,
            aiohttp.ClientSession() as client,
        ):
            async with client.get(f"{pair.door}{SOUND}", headers={"Authorization": f"Bearer {secret}"}) as told:
                await told.content.readexactly(1000)
                told.close()
            await asyncio.wait_for(gone.wait(), 10)
    assert not [each for each in logs if each["log_level"] == "error"]


async def test_all_recordings_of_a_call_are_named(pair: Machines) -> None:
    for name in (f"{CALL}.wav", f"{CALL}-2.wav", "other.wav"):
        (pair.folder / name).write_bytes(b"sound")
    status, told = await shown(pair, pair.sound(f"{CALL}.wav"), NAMES)
    assert (status, told.decode()) == (200, f'["{pair.folder}/{CALL}-2.wav", "{pair.folder}/{CALL}.wav"]')


async def test_its_address_stands_on_the_bus_while_it_is_open(pair: Machines) -> None:
    there = {"files/one/g1": {"host": "127.0.0.1", "port": pair.one.port}}
    assert await pair.bus.leases.find(of_machine("one")) == there
    await pair.one.stop()
    assert await pair.bus.leases.find(of_machine("one")) == {}


async def test_gateways_of_a_machine_share_a_port_and_a_taken_one_is_told(pair: Machines) -> None:
    made = [
        Giving(pair.one._sounds, pair.bus.leases, node="one", run=f"s{index}", host="127.0.0.1", port=port)
        for index, port in enumerate((pair.one.port, 0, 0))
    ]
    with pytest.raises(SettingsError, match="files_port"):
        await made[0].start()
    await made[1].start()
    await made[1].stop()
    shared = made[1].port
    pairs = [
        Giving(pair.one._sounds, pair.bus.leases, node="one", run=f"t{index}", host="127.0.0.1", port=shared)
        for index in range(2)
    ]
    for each in pairs:
        await each.start()
    assert {each.port for each in pairs} == {shared}
    for each in pairs:
        await each.stop()
