"""A server that will never take us is the operator's affair, and he is told what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sipserver.bus.redis_bus import RedisBus
from sipserver.bus.settings import BusSettings
from sipserver.errors import SettingsError
from tests.servers.redis import RedisServer

PASSWORD = "SIPSERVER_REDIS_PASSWORD"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), options=("--requirepass", "right"))
    server.start()
    yield server
    server.stop()


async def refused(url: str, spool: Path) -> str:
    bus = RedisBus(BusSettings(url=url, spool=spool), node="one", run="r1")
    try:
        with pytest.raises(SettingsError) as caught:
            await bus.open()
    finally:
        await bus.close()
    return str(caught.value)


async def test_a_password_that_is_missing(guarded: RedisServer, tmp_path: Path) -> None:
    assert f"environment variable {PASSWORD} is not set" in await refused(guarded.url, tmp_path)


async def test_a_password_that_is_wrong(guarded: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "wrong")
    assert f"environment variable {PASSWORD} is set but wrong" in await refused(guarded.url, tmp_path)


async def test_the_right_password_and_a_name_among_the_clients(
    guarded: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD, "right")
    bus = RedisBus(BusSettings(url=guarded.url, spool=tmp_path), node="one", run="r1")
    await bus.open()
    clients = await bus._link.client.client_list()
    assert "sipserver:one:r1" in {client["name"] for client in clients}
    await bus.close()


async def test_a_host_that_nobody_knows(tmp_path: Path) -> None:
    assert "check host" in await refused("redis://no.such.host.invalid:6379/0", tmp_path)


async def test_a_spool_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "bus.spool" in await refused("redis://127.0.0.1:1/0", tmp_path / "file" / "spool")


@pytest.fixture
async def old_server(free_port: int) -> AsyncIterator[str]:
    """Answers as Redis 6.0 does, as far as we get with it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = [(await reader.readline(), (await reader.readline()).strip())[1] for _ in range(int(line[1:]))]
            text = b"redis_version:6.0.16\r\nrun_id:abc\r\n"
            writer.write(b"$%d\r\n%s\r\n" % (len(text), text) if words[0].upper() == b"INFO" else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", free_port)
    yield f"redis://127.0.0.1:{free_port}/0"
    server.close()
    await server.wait_closed()


async def test_a_server_that_is_too_old(old_server: str, tmp_path: Path) -> None:
    assert "6.0.16 is too old; install 6.2" in await refused(old_server, tmp_path)
