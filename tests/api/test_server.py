"""The HTTP server over a real socket: health, readiness, refusals, headers."""

from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sipserver.api.health import Check
from sipserver.api.metrics import Metrics
from sipserver.api.server import HEADERS, HttpServer, application
from sipserver.api.settings import HttpSettings
from sipserver.errors import Draining, SettingsError


class Server:
    """A running HttpServer whose checks a test may change, and a client for it."""

    def __init__(self) -> None:
        self.checks: list[Check] = [Check("sip", ok=True), Check("stt.whisper", ok=True)]
        self.http = HttpServer(HttpSettings(port=0), lambda: self.checks, Metrics())
        self.client = aiohttp.ClientSession()

    def get(self, path: str) -> aiohttp.client._RequestContextManager:
        return self.client.get(f"http://127.0.0.1:{self.http.port}{path}")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.http.start()
    yield server
    await server.client.close()
    await server.http.stop()


async def test_alive(server: Server) -> None:
    async with server.get("/healthz") as answer:
        assert answer.status == 200
        assert await answer.json() == {"status": "ok"}


async def test_ready_when_every_check_is_ok(server: Server) -> None:
    async with server.get("/readyz") as answer:
        assert answer.status == 200
        assert await answer.json() == {"ready": True, "reasons": []}


async def test_not_ready_says_why(server: Server) -> None:
    server.checks = [Check("sip", ok=True), Check("stt.whisper", ok=False, why="model tiny.en is not installed")]
    async with server.get("/readyz") as answer:
        assert answer.status == 503
        assert await answer.json() == {
            "ready": False,
            "reasons": [{"check": "stt.whisper", "why": "model tiny.en is not installed"}],
        }


async def test_not_ready_before_anything_could_be_checked(server: Server) -> None:
    server.checks = []
    async with server.get("/readyz") as answer:
        assert answer.status == 503


async def test_metrics_in_prometheus_text(server: Server) -> None:
    async with server.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert "sipserver_calls_started" in await answer.text()


async def test_unknown_path_is_json(server: Server) -> None:
    async with server.get("/nothing") as answer:
        assert answer.status == 404
        assert await answer.json() == {"error": {"status": 404, "message": "Not Found"}}


async def test_method_not_allowed_is_json_and_says_what_is(server: Server) -> None:
    async with server.client.post(f"http://127.0.0.1:{server.http.port}/readyz", data=b"x") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"
        assert (await answer.json())["error"]["message"] == "POST is not allowed here"


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/nothing"])
async def test_headers_of_every_answer(server: Server, path: str) -> None:
    async with server.get(path) as answer:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
        assert "aiohttp" not in str(answer.headers)


async def test_errors_of_handlers_do_not_leak(server: Server) -> None:
    async def broken(_request: web.Request) -> web.Response:
        raise RuntimeError("a secret")

    async def draining(_request: web.Request) -> web.Response:
        raise Draining("shutting down")

    app = application(lambda: [], Metrics())
    app.add_routes([web.get("/broken", broken), web.get("/draining", draining)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with server.client.get(f"{base}/broken") as answer:
        assert answer.status == 500
        assert "secret" not in await answer.text()
    async with server.client.get(f"{base}/draining") as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["message"] == "shutting down"
    await runner.cleanup()


async def test_port_in_use_is_the_operators_to_solve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        http = HttpServer(HttpSettings(port=port), lambda: [], Metrics())
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
            await http.start()


async def test_two_processes_may_share_a_port(server: Server) -> None:
    first = HttpServer(HttpSettings(port=0), lambda: [], Metrics(), reuse_port=True)
    await first.start()
    second = HttpServer(HttpSettings(port=first.port), lambda: [], Metrics(), reuse_port=True)
    await second.start()
    assert second.port == first.port
    await first.stop()
    async with server.client.get(f"http://127.0.0.1:{second.port}/healthz") as answer:
        assert answer.status == 200
    await second.stop()


async def test_a_unix_socket_is_for_its_owner_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    http = HttpServer(HttpSettings(), lambda: [], Metrics(), socket_path=path)
    await http.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client,
        client.get("http://local/metrics") as answer,
    ):
        assert "sipserver_calls_started" in await answer.text()
    await http.stop()
