"""Questions to a real HTTP server: signed, answered, late, wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from sipserver.calls.deciding import Question
from sipserver.errors import ProviderError
from sipserver.webhooks import signing
from sipserver.webhooks.decider import Decider
from sipserver.webhooks.settings import WebhookSettings

Answers = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def crm(answers: Answers) -> AsyncIterator[str]:
    """A server that answers so, and its URL."""
    app = web.Application()
    app.router.add_post("/route", answers)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/route"
    finally:
        await runner.cleanup()


@pytest.fixture
async def decider() -> AsyncIterator[Decider]:
    made = Decider(WebhookSettings(allow_private=True))
    yield made
    await made.close()


async def test_a_question_is_signed_and_its_answer_read(decider: Decider, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = signing.new_secret()
    monkeypatch.setenv("CRM_SECRET", secret)
    asked = []

    async def answers(request: web.Request) -> web.Response:
        body = await request.text()
        asked.append(Webhook(secret).verify(body, dict(request.headers)) or json.loads(body))
        return web.json_response({"outcome": "vip", "variables": {"name": "Ann", "paid": True, "age": 7}, "x": 1})

    async with crm(answers) as url:
        decision = await decider.ask(Question(url, {"call_id": "1", "variables": {}}, 20, "CRM_SECRET"))
    assert (decision.outcome, decision.variables) == ("vip", {"name": "Ann", "paid": "true", "age": "7"})
    assert (asked[0]["type"], asked[0]["data"]["call_id"]) == ("call.decide", "1")


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, "{}", "500"),
        (302, "", "302"),
        (200, "<html>", "no {"),
        (200, "[]", "no {"),
        (200, '{"outcome": 5}', "outcome"),
        (200, '{"outcome": "a", "variables": {"x": [1]}}', "variables"),
        (200, '{"outcome": "a", "x": "' + "y" * 100_000 + '"}', "no {"),
    ],
)
async def test_what_is_no_answer_is_told(decider: Decider, status: int, body: str, told: str) -> None:
    async def answers(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"Location": "/elsewhere"} if status == 302 else {})

    async with crm(answers) as url:
        with pytest.raises(ProviderError, match=told):
            await decider.ask(Question(url, {}, 20))


async def test_it_waits_no_longer_than_it_may(decider: Decider) -> None:
    never = asyncio.Event()

    async def answers(_request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    async with crm(answers) as url:
        with pytest.raises(ProviderError, match="within 100 ms"):
            await decider.ask(Question(url, {}, 0.1))
        never.set()
    with pytest.raises(ProviderError, match=r"127\.0\.0\.1"):
        await decider.ask(Question(url, {}, 20))


async def test_our_own_network_is_not_asked_unless_the_settings_say_so() -> None:
    decider = Decider(WebhookSettings())
    for url in ("http://127.0.0.1:1/x", "https://127.0.0.1:1/x", "https://169.254.169.254/x", "https://localhost/x"):
        with pytest.raises(ProviderError, match=r"webhooks may|must begin"):
            await decider.ask(Question(url, {}, 20))
    await decider.close()


async def test_a_secret_that_is_not_there_is_told(decider: Decider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRM_SECRET", raising=False)
    with pytest.raises(ProviderError, match="CRM_SECRET"):
        await decider.ask(Question("http://127.0.0.1:1/x", {}, 20, "CRM_SECRET"))
