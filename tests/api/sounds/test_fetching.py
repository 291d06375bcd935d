"""Sound of another machine is passed on as it is: parts and conditions, bounded memory, and what breaks off."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sipserver.api.sounds import doors, fetching
from sipserver.api.sounds.giving import Giving
from sipserver.api.sounds.here import Sounds
from sipserver.bus.contract import Json
from sipserver.errors import BusDown, MachineAway, NotFound, RemoteError
from tests.api.sounds.machines import CALL, Machines, machines
from tests.calls.test_sealed_file import RING, noise, wav_of, write
from tests.harness.web import serving


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Machines]:
    async with machines(tmp_path) as made:
        yield made


@pytest.mark.parametrize("sealed", [False, True])
async def test_ranges_and_conditions_are_those_of_the_machine_that_has_it(pair: Machines, sealed: bool) -> None:
    payload = noise(100_000)
    whole, name = wav_of(payload), "a.wav.enc" if sealed else "a.wav"
    if sealed:
        write(pair.folder / name, payload)
    else:
        (pair.folder / name).write_bytes(whole)
    url, client = f"{pair.site.url}/{name}", pair.site.client
    async with client.get(url) as answer:
        assert (answer.status, await answer.read()) == (200, whole)
        assert (answer.headers["Content-Type"], answer.content_length) == ("audio/x-wav", len(whole))
        assert answer.headers["Content-Disposition"] == 'attachment; filename="a.wav"'
        assert answer.headers["Accept-Ranges"] == "bytes"
        tag = answer.headers["ETag"]
    for wanted, part in {"bytes=10-19": slice(10, 20), "bytes=-100": slice(-100, None)}.items():
        async with client.get(url, headers={"Range": wanted}) as answer:
            assert (answer.status, await answer.read()) == (206, whole[part])
            assert answer.headers["Content-Range"].endswith(f"/{len(whole)}")
    async with client.get(url, headers={"Range": f"bytes={len(whole)}-"}) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
    async with client.get(url, headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read(), answer.headers["ETag"]) == (304, b"", tag)
    for condition, part in {tag: slice(1, 3), '"another"': slice(None), f"W/{tag}": slice(None)}.items():
        async with client.get(url, headers={"Range": "bytes=1-2", "If-Range": condition}) as answer:
            assert (answer.status, await answer.read()) == (206 if part.start else 200, whole[part])
    async with client.get(url, headers={"Range": "items=0-1"}) as answer:
        assert (answer.status, await answer.read()) == (200, whole)
    async with client.get(url, headers={"Range": "items=0-1", "If-None-Match": tag}) as answer:
        assert answer.status == 304
    assert not await pair.bus.leases.find("sound/"), "no ticket is left"


async def test_a_date_means_the_very_version_that_it_names(pair: Machines) -> None:
    path = pair.folder / "a.wav"
    path.write_bytes(b"sound")
    url, client = f"{pair.site.url}/a.wav", pair.site.client
    async with client.get(url) as answer:
        date = answer.headers["Last-Modified"]
    for told, status in ((date, 206), (format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True), 200)):
        async with client.get(url, headers={"Range": "bytes=1-2", "If-Range": told}) as answer:
            assert answer.status == status


async def test_a_file_that_is_gone_is_not_found_and_a_machine_that_is_gone_is_waited_for(pair: Machines) -> None:
    async with pair.site.client.get(f"{pair.site.url}/gone.wav") as answer:
        assert answer.status == 404
        assert "one" in (await answer.json())["detail"]
    with pytest.raises(NotFound):
        await pair.two.recordings("two", "acme", CALL, "x")  # its own: it would know
    await pair.one.stop()
    async with pair.site.client.get(f"{pair.site.url}/gone.wav") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert "one" in (await answer.json())["detail"]


async def test_a_machine_that_says_nothing_is_given_up(pair: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "HEAD_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        await pair.bus.leases.hold("files/three/x", {"host": "127.0.0.1", "port": silent.getsockname()[1]})
        with pytest.raises(MachineAway, match="three"):
            async with asyncio.timeout(5):
                await pair.two.fetch("three", "acme", CALL, "x", io.BytesIO())


async def test_another_gateway_of_it_is_tried(pair: Machines) -> None:
    (pair.folder / "a.wav").write_bytes(b"sound")
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    await pair.bus.leases.hold("files/one/dead", {"host": "127.0.0.1", "port": port})
    for _ in range(8):
        into = io.BytesIO()
        await pair.two.fetch("one", "acme", CALL, str(pair.folder / "a.wav"), into)
        assert into.getvalue() == b"sound"


async def test_a_machine_is_looked_for_once_for_many_files_and_again_when_its_gateways_are_others(
    pair: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pair.folder / "a.wav").write_bytes(b"sound")
    monkeypatch.setattr(doors, "KNOWN_S", 60.0)
    looked, find = [], pair.bus.leases.find

    async def counted(prefix: str) -> dict[str, Json]:
        looked.append(prefix)
        return await find(prefix)

    monkeypatch.setattr(pair.bus.leases, "find", counted)

    async def fetched() -> bytes:
        into = io.BytesIO()
        await pair.two.fetch("one", "acme", CALL, str(pair.folder / "a.wav"), into)
        return into.getvalue()

    assert [await fetched() for _ in range(3)] == [b"sound"] * 3
    assert looked == ["files/one/"]
    await pair.one.stop()
    sounds = Sounds(pair.folder, RING)
    back = Giving(sounds, pair.bus.leases, node="one", run="g3", host="127.0.0.1", port=0)
    await back.start()
    try:
        assert await fetched() == b"sound"
    finally:
        await back.stop()


@contextlib.asynccontextmanager
async def breaking_off(pair: Machines) -> AsyncIterator[None]:
    """A machine `three` that breaks off in the middle of an answer."""

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        await response.write(b"x" * 1000)
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving([web.get("/sound", serve)]) as site:
        port = int(site.url.rpartition(":")[2])
        await pair.bus.leases.hold("files/three/x", {"host": "127.0.0.1", "port": port})
        yield


async def test_what_breaks_off_there_breaks_off_here(pair: Machines) -> None:
    async def get(request: web.Request) -> web.StreamResponse:
        return await pair.two.answer(request, pair.sound("a.wav", node="three"))

    async with breaking_off(pair), serving([web.get("/", get)]) as site, site.client.get(site.url) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_copy_that_breaks_off_is_none(pair: Machines) -> None:
    async with breaking_off(pair):
        with pytest.raises(MachineAway):
            await pair.two.fetch("three", "acme", CALL, "x", io.BytesIO())


async def test_a_client_that_takes_nothing_holds_the_other_machine_back_and_may_leave(pair: Machines) -> None:
    (pair.folder / "a.wav").touch()
    size = 200_000_000
    with (pair.folder / "a.wav").open("wb") as file:
        file.truncate(size)
    answered = asyncio.Event()
    written = 0

    async def get(request: web.Request) -> web.StreamResponse:
        response = await pair.two.answer(request, pair.sound("a.wav"))
        nonlocal written
        written = response.body_length
        answered.set()
        return response

    async with serving([web.get("/", get)]) as site:
        async with site.client.get(site.url) as answer:
            assert len(await answer.content.readexactly(1000)) == 1000
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(answered.wait(), 0.5)
            assert not answered.is_set(), "it waits for whoever reads"
            answer.close()
        await asyncio.wait_for(answered.wait(), 10)
    assert written < size / 4


async def test_a_persons_copy_has_all_that_there_is(pair: Machines) -> None:
    for name in (f"{CALL}.wav", f"{CALL}-2.wav"):
        (pair.folder / name).write_bytes(name.encode())
    paths = await pair.two.recordings("one", "acme", CALL, str(pair.folder / f"{CALL}.wav"))
    assert [Path(path).name for path in paths] == [f"{CALL}-2.wav", f"{CALL}.wav"]
    payload = noise(40_000)
    write(pair.folder / "a.wav.enc", payload)
    into = io.BytesIO()
    await pair.two.fetch("one", "acme", CALL, str(pair.folder / "a.wav.enc"), into)
    assert into.getvalue() == wav_of(payload)
    with pytest.raises(RemoteError):
        await pair.two.fetch("one", "zenith", CALL, str(pair.folder / "a.wav.enc"), io.BytesIO())


async def test_a_bus_that_is_away_is_told(pair: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_prefix: str) -> None:
        raise BusDown("Redis is away")

    monkeypatch.setattr(pair.bus.leases, "find", away)
    async with pair.site.client.get(f"{pair.site.url}/a.wav") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
