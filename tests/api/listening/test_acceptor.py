"""Connections of the HTTP server: their descriptors, a process that has none left, and the moment of the shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sipserver.api import acceptor
from sipserver.api.acceptor import bound
from sipserver.api.metrics import Metrics
from sipserver.api.server import HttpServer
from sipserver.api.settings import HttpSettings
from sipserver.errors import SettingsError
from sipserver.open_files import SELECT_FILES
from tests.fakes.until import until

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Seen:
    """A route that tells what it sees of its connection, and one that waits until the test lets it go."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self.options: list[tuple[int, int]] = []
        self.remotes: list[str | None] = []
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.routes = [web.get("/look", self.look), web.get("/wait", self.wait)]

    async def look(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        connection = request.transport.get_extra_info("socket")
        self.descriptors.append(connection.fileno())
        self.remotes.append(request.remote)
        if connection.family == socket.AF_INET:
            keeps_alive = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            self.options.append((connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), keeps_alive))
        return web.Response(text="seen")

    async def wait(self, _request: web.Request) -> web.Response:
        self.asked.set()
        await self.go_on.wait()
        return web.Response(text="done")


@pytest.fixture
async def seen() -> Seen:
    return Seen()


@pytest.fixture
async def server(seen: Seen, tmp_path: Path) -> AsyncIterator[HttpServer]:
    http = HttpServer(HttpSettings(port=0), lambda: [], Metrics(), routes=seen.routes, side_path=tmp_path / "side.sock")
    await http.start()
    yield http
    await http.stop()


@pytest.fixture
def limit() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def no_descriptor_left(hard: int) -> Iterator[None]:
    """Nobody in this process opens a file meanwhile."""
    top = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (top + 2, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(2))
        yield
    finally:
        for number in taken:
            os.close(number)


async def test_connections_are_high_and_have_the_options_that_aiohttp_gives(server: HttpServer, seen: Seen) -> None:
    async with aiohttp.ClientSession() as client:
        for _ in range(2):
            async with client.get(f"http://127.0.0.1:{server.port}/look") as answer:
                assert await answer.text() == "seen"
    assert len(seen.descriptors) == 2
    assert seen.descriptors[0] == seen.descriptors[1] >= SELECT_FILES, "kept alive, and out of the way"
    assert seen.remotes == ["127.0.0.1"] * 2
    assert [(nodelay > 0, alive > 0) for nodelay, alive in seen.options] == [(True, True)] * 2


async def test_so_are_those_of_the_side_door(server: HttpServer, seen: Seen, tmp_path: Path) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "side.sock"))) as client,
        client.get("http://side/look") as answer,
    ):
        assert await answer.text() == "seen"
    assert seen.descriptors[0] >= SELECT_FILES
    assert server.port


async def test_without_a_descriptor_it_rests_says_so_once_and_goes_on(
    server: HttpServer,
    limit: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_S", 0.02)
    rests: list[OSError] = []
    rest = acceptor.Acceptor._rest

    def counted(self: acceptor.Acceptor, listener: socket.socket, problem: OSError) -> None:
        rests.append(problem)
        rest(self, listener, problem)

    monkeypatch.setattr(acceptor.Acceptor, "_rest", counted)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(GET)
    assert b"200 OK" in await reader.readline()
    with socket.socket() as knocks:
        knocks.setblocking(False)
        with no_descriptor_left(limit[1]):
            await asyncio.get_running_loop().sock_connect(knocks, ("127.0.0.1", server.port))
            began_s = asyncio.get_running_loop().time()
            await until(lambda: len(rests) >= 3)
            assert asyncio.get_running_loop().time() - began_s >= 2 * 0.02 * 0.9, "it does not spin"
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        await asyncio.get_running_loop().sock_sendall(knocks, GET)
        assert b"200 OK" in await asyncio.get_running_loop().sock_recv(knocks, 100)
    writer.close()
    await writer.wait_closed()
    assert "".join(capfd.readouterr()).count("no new connections for now") == 1


async def test_when_only_low_descriptors_are_left_they_are_for_calls(
    server: HttpServer, limit: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_S", 0.02)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SELECT_FILES + 1, limit[1]))
    first = await asyncio.open_connection("127.0.0.1", server.port)
    first[1].write(GET)
    assert b"200 OK" in await first[0].readline()
    second = await asyncio.open_connection("127.0.0.1", server.port)
    assert await second[0].read() == b"", "closed unheard"
    first[1].write(GET)
    assert await first[0].readline()
    for _, writer in (first, second):
        writer.close()
        await writer.wait_closed()
    third = await asyncio.open_connection("127.0.0.1", server.port)
    third[1].write(GET)
    assert b"200 OK" in await third[0].readline()
    third[1].close()
    await third[1].wait_closed()


async def test_a_shutdown_waits_for_requests_and_ends_idle_connections(server: HttpServer, seen: Seen) -> None:
    idle = await asyncio.open_connection("127.0.0.1", server.port)
    idle[1].write(GET)
    assert b"200 OK" in await idle[0].readline()
    busy = await asyncio.open_connection("127.0.0.1", server.port)
    busy[1].write(GET.replace(b"/healthz", b"/wait"))
    await seen.asked.wait()
    await server.close_door()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)
    stopping = asyncio.create_task(server.stop())
    await idle[0].read()
    assert not stopping.done()
    seen.go_on.set()
    assert b"done" in await busy[0].read()
    await stopping
    for _, writer in (idle, busy):
        writer.close()
        await writer.wait_closed()


async def test_a_connection_that_comes_with_the_shutdown_is_not_forgotten(server: HttpServer) -> None:
    """It is accepted, and not yet aiohttp's, when the door closes."""
    site = server._site
    assert site is not None
    taken = site._acceptors[0]
    [listener] = taken.sockets
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        taken._accept(listener)
        assert taken._handing
        stopping = asyncio.create_task(server.stop())
        client.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(client, 100) == b"", "ended, not left open for ever"
        await stopping
        assert not taken._handing


async def test_a_client_that_is_gone_before_it_is_let_in(server: HttpServer) -> None:
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", server.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST
        client.close()
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}/healthz") as answer:
        assert answer.status == 200


async def test_a_host_of_two_families_and_an_address_that_is_not_ours() -> None:
    listeners = await bound("", 0)
    try:
        assert {listener.family for listener in listeners} == {socket.AF_INET, socket.AF_INET6}
    finally:
        for listener in listeners:
            listener.close()
    strange = HttpServer(HttpSettings(host="192.0.2.1", port=0), lambda: [], Metrics())
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1:0"):
        await strange.start()
    assert strange.port == 0
