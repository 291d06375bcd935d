"""The phone page by HTTP: its files and headers, whom it may call, and who gets no token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from sipserver.api.metrics import Metrics
from sipserver.api.phone import FILES, TOKENS_PER_MINUTE, Phone
from sipserver.api.server import HttpServer
from sipserver.api.settings import HttpSettings
from sipserver.bus.once import MemoryOnce
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Tokens

SECRET = b"a secret of at least thirty-two bytes"
ICE = {"urls": ["turn:turn.example.com"], "username": "me", "credential": "word"}


class Page:
    """A server with the page, and a client of it."""

    def __init__(self, port: int, client: aiohttp.ClientSession, tokens: Tokens) -> None:
        self.url, self.client, self.tokens = f"http://127.0.0.1:{port}", client, tokens
        self.now_s = 100.0

    async def ask(self, to: Any = "demo", status: int = 200, **headers: str) -> dict[str, Any]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.post(f"{self.url}/phone/token", json={"to": to}, headers=given) as answer:
            assert answer.status == status
            body: dict[str, Any] = await answer.json()
            return body


@asynccontextmanager
async def serving(gate: GateSettings | None = None, **http: Any) -> AsyncIterator[Page]:
    settings = HttpSettings(**{"port": 0, "phone": True, **http})
    tokens = Tokens(SECRET, MemoryOnce())
    phone = Phone(settings, gate or GateSettings(), tokens, ice_servers=[ICE], clock=lambda: page.now_s)
    server = HttpServer(settings, lambda: (), Metrics(), routes=phone.routes())
    await server.start()
    try:
        async with aiohttp.ClientSession() as client:
            page = Page(server.port, client, tokens)
            yield page
    finally:
        await server.stop()


async def test_the_page_and_all_that_it_loads_is_served_with_a_policy_of_its_own() -> None:
    async with serving() as page:
        for path, (_, kind) in FILES.items():
            async with page.client.get(page.url + path) as answer:
                assert (answer.status, answer.content_type) == (200, kind)
                policy = answer.headers["Content-Security-Policy"]
                assert "script-src 'self';" in policy
                assert "unsafe" not in policy
                assert f"connect-src 'self' {page.url.replace('http', 'ws')};" in policy
                assert answer.headers["X-Frame-Options"] == "DENY"


async def test_a_page_that_is_switched_off_is_unknown() -> None:
    async with serving(phone=False) as page:
        await page.ask(status=404)
        for path in (*FILES, "/phone/users"):
            async with page.client.get(page.url + path) as answer:
                assert answer.status == 404


async def test_a_token_is_for_this_user_and_one_call() -> None:
    async with serving() as page:
        told = await page.ask("echo", Origin=page.url, Sec_Fetch_Site="same-origin")
        for claims in (page.tokens.read(told["token"], "webrtc"), page.tokens.read(told["voice_token"], "voice")):
            assert (claims.to, claims.call_id, claims.once) == ("echo", told["call_id"], True)
        assert told["ice_servers"] == [ICE]


async def test_only_users_of_the_settings_may_be_called() -> None:
    async with serving(phone_users=("demo", "test-*")) as page:
        await page.ask("demo")
        await page.ask("test-1")
        told = await page.ask("+4930123456", status=403)
        assert "http.phone_users" in told["error"]["message"]
        async with page.client.get(f"{page.url}/phone/users") as answer:
            assert await answer.json() == {"users": ["demo"], "free": True}


@pytest.mark.parametrize("to", ["", " ", "a b", "a/b", "x" * 129, "a\nb", None, 7])
async def test_what_names_no_user_is_refused(to: Any) -> None:
    async with serving() as page:
        await page.ask(to, status=400)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ],
)
async def test_a_page_of_somebody_else_gets_no_token(headers: dict[str, str]) -> None:
    async with serving(GateSettings(origins=("*",))) as page:
        await page.ask(status=403, **headers)


async def test_behind_a_proxy_the_public_address_is_our_own() -> None:
    async with serving(GateSettings(public_url="https://voice.example.com")) as page:
        await page.ask(Origin="https://voice.example.com")
        async with page.client.get(f"{page.url}/phone") as answer:
            assert "wss://voice.example.com;" in answer.headers["Content-Security-Policy"]


async def test_a_form_of_another_page_cannot_ask() -> None:
    async with serving() as page:
        for body in ('{"to": "demo"}', b"to=demo"):
            async with page.client.post(f"{page.url}/phone/token", data=body) as answer:
                assert answer.status == 400


async def test_who_asks_too_often_has_to_wait() -> None:
    async with serving() as page:
        for _ in range(TOKENS_PER_MINUTE):
            await page.ask()
        await page.ask(status=429)
        page.now_s += 60 / TOKENS_PER_MINUTE
        await page.ask()
        await page.ask(status=429)
