"""One attempt over a real socket: its limits, and the addresses that it refuses."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from sipserver.webhooks.sender import LONGEST_ANSWER, SHOWN_BYTES, Answer, Sender
from sipserver.webhooks.settings import WebhookSettings
from tests.servers.certificate import Certificate
from tests.webhooks.test_targets import Lookup

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
QUICK = WebhookSettings(allow_private=True, connect_timeout_s=0.5, timeout_s=0.5)
HERE = WebhookSettings(allow_private=True)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _post(sender: Sender, url: str) -> Answer:
    try:
        return await sender.post(url, b'{"a":1}', {"webhook-id": "msg_1"})
    finally:
        await sender.close()


async def test_a_post_arrives_as_it_was_signed() -> None:
    seen: list[tuple[str, str, str, bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append((request.method, headers["webhook-id"], headers["Content-Type"], await request.read()))
        return web.Response(text="thank you", headers={"Retry-After": "7"})

    async with serving(handler) as port:
        answer = await _post(Sender(HERE), f"http://127.0.0.1:{port}/in")
    assert (answer.status, answer.body, answer.error) == (200, "thank you", "")
    assert answer.headers["retry-after"] == "7", "whatever the case"
    assert seen == [("POST", "msg_1", "application/json", b'{"a":1}')]


async def test_redirects_are_not_followed() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        raise web.HTTPTemporaryRedirect("/inside")

    async with serving(handler) as port:
        answer = await _post(Sender(HERE), f"http://127.0.0.1:{port}/in")
    assert answer.status == 307
    assert seen == ["/in"]


async def test_a_receiver_that_says_nothing_is_given_up() -> None:
    never = asyncio.Event()

    async def handler(_request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    async with serving(handler) as port:
        answer = await _post(Sender(QUICK), f"http://127.0.0.1:{port}/in")
        never.set()
    assert (answer.status, answer.error) == (None, "no answer in time")
    assert answer.latency_ms >= 400


async def test_a_receiver_that_is_not_there(free_port: int) -> None:
    answer = await _post(Sender(HERE), f"http://127.0.0.1:{free_port}/in")
    assert answer.status is None
    assert "ClientConnectorError" in answer.error


async def test_no_more_is_read_than_is_of_use() -> None:
    """A receiver that never stops sending is not read to the end, and its status counts."""
    written = 0
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"\x00" + b"x" * 4095)
                written += 4096
        except ConnectionError:
            ended.set()
        return response

    async with serving(handler) as port:
        async with asyncio.timeout(HERE.timeout_s - 3):
            answer = await _post(Sender(HERE), f"http://127.0.0.1:{port}/in")
            await ended.wait()
    assert answer.status == 200
    assert answer.body == "\ufffd" + "x" * (SHOWN_BYTES - 1)
    assert written >= LONGEST_ANSWER


async def test_an_answer_that_stops_in_the_middle_is_an_acknowledgement_all_the_same() -> None:
    never = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=202)
        await response.prepare(request)
        await response.write(b"first")
        await never.wait()
        return response

    async with serving(handler) as port:
        answer = await _post(Sender(QUICK), f"http://127.0.0.1:{port}/in")
        never.set()
    assert (answer.status, answer.body, answer.error) == (202, "first", "")


async def test_answers_are_not_unpacked() -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=b"\x1f\x8bno gzip", headers={"Content-Encoding": "gzip"})

    async with serving(handler) as port:
        answer = await _post(Sender(HERE), f"http://127.0.0.1:{port}/in")
    assert answer.status == 200
    assert answer.body.endswith("no gzip")


async def test_a_name_that_leads_inside_gets_no_connection() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response()

    async with serving(handler) as port:
        answer = await _post(
            Sender(WebhookSettings(), lookup=Lookup("127.0.0.1")), f"https://hooks.example.com:{port}/"
        )
        assert answer.status is None
        assert answer.error == "hooks.example.com has no address that webhooks may be sent to"
        answer = await _post(Sender(WebhookSettings()), f"https://127.0.0.1:{port}/")
        assert answer.error == "webhooks may not be sent to 127.0.0.1"
        answer = await _post(Sender(HERE, lookup=Lookup("169.254.169.254")), "http://metadata.example/")
        assert "no address" in answer.error
    assert seen == []


async def test_a_name_is_looked_up_for_every_connection() -> None:
    """One that was harmless when it was checked, and leads inside afterwards (DNS rebinding)."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(headers={"Connection": "close"})

    lookup = Lookup("127.0.0.1")
    sender = Sender(HERE, lookup=lookup)
    async with serving(handler) as port:
        url = f"http://hooks.example.com:{port}/"
        assert (await sender.post(url, b"{}", {})).status == 200
        lookup.addresses = ("169.254.169.254",)
        assert "no address" in (await sender.post(url, b"{}", {})).error
    await sender.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate.made(tmp_path / "tls", "hooks.example.com")


async def test_tls_is_verified_for_the_name_at_the_address_that_was_checked(certificate: Certificate) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=request.host)

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.certificate, certificate.key)
    trust = ssl.create_default_context(cafile=str(certificate.certificate))
    async with serving(handler, server) as port:

        def sender(*, trusted: bool = True) -> Sender:
            return Sender(HERE, lookup=Lookup("127.0.0.1"), trust=trust if trusted else None)

        answer = await _post(sender(), f"https://hooks.example.com:{port}/")
        assert (answer.status, answer.body) == (200, f"hooks.example.com:{port}")
        answer = await _post(sender(), f"https://other.example.com:{port}/")
        assert answer.status is None
        assert "Certificate" in answer.error
        answer = await _post(sender(trusted=False), f"https://hooks.example.com:{port}/")
        assert answer.status is None
