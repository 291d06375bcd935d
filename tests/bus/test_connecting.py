"""How a bus finds its server: a password, TLS, and what an operator is told when it will never take us."""

from __future__ import annotations

import asyncio
import subprocess
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


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signed by itself, for 127.0.0.1; the key beside it."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "certificate.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "certificate.pem"


@pytest.fixture
def tls_server(certificate: Path, tmp_path: Path, free_port: int) -> Iterator[str]:
    key = certificate.with_name("key.pem")
    options = ("--tls-port", str(free_port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    server = RedisServer(tmp_path / "redis", options=(*options, "--tls-auth-clients", "no"))
    server.start()
    yield f"rediss://127.0.0.1:{free_port}/0"
    server.stop()


async def test_a_certificate_that_nobody_vouches_for(tls_server: str, tmp_path: Path) -> None:
    assert "check host and certificate" in await refused(tls_server, tmp_path)


async def test_tls_with_the_right_authority(tls_server: str, certificate: Path, tmp_path: Path) -> None:
    bus = RedisBus(
        BusSettings(url=f"{tls_server}?ssl_ca_certs={certificate}", spool=tmp_path / "spool"), node="one", run="r1"
    )
    await bus.open()
    assert bus.up
    await bus.leases.hold("run/r1", {})
    assert await bus.leases.get("run/r1") == {}
    await bus.close()
