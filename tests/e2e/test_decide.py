"""A real server asks a tenant's own over HTTP where its call goes on, before the call is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from sipserver.webhooks import signing
from tests.harness.phone import Phone
from tests.harness.records import record_of
from tests.harness.server import ServerProcess

PLAN = """
tenant: acme
flows:
  main: [{{decide: {{url: "http://127.0.0.1:{port}/route", into: [code], secret_env: CRM_SECRET, timeout_ms: 8000,
    on: {{busy: busy, failed: failed}}}}}}]
  busy: [{{hangup: 486}}]
  failed: [{{hangup: 480}}]
routes: [{{flow: main}}]
"""


@asynccontextmanager
async def crm(secret: str) -> AsyncIterator[tuple[int, list[dict[str, Any]]]]:
    """A server that finds the caller busy; its port, and what it was asked, each question with a good signature."""
    asked: list[dict[str, Any]] = []

    async def route(request: web.Request) -> web.Response:
        body = await request.text()
        Webhook(secret).verify(body, dict(request.headers))
        asked.append(json.loads(body)["data"])
        return web.json_response({"outcome": "busy", "variables": {"code": 7}})

    app = web.Application()
    app.router.add_post("/route", route)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1], asked
    finally:
        await runner.cleanup()


async def test_a_call_goes_where_the_other_server_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = signing.new_secret()
    monkeypatch.setenv("CRM_SECRET", secret)
    async with crm(secret) as (port, asked):
        made = ServerProcess(tmp_path, {"acme.yaml": PLAN.format(port=port)}, {"webhooks": {"allow_private": True}})
        server = await asyncio.to_thread(made.start)
        try:
            with Phone(server.sip_port) as phone:
                assert (await asyncio.to_thread(phone.invite, "200")).code == 486
                record = await record_of(server.database, phone.call_id)
        finally:
            assert await asyncio.to_thread(server.stop) == 0
    assert [(call["to"], call["answered"]) for call in asked] == [("200", False)]
    assert record.of("variable.set") == [{"name": "code", "value": "7"}]
    assert record.of("decide.answered")[0]["outcome"] == "busy"


async def test_the_call_goes_on_when_the_other_server_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = signing.new_secret()
    monkeypatch.setenv("CRM_SECRET", secret)
    async with crm(secret) as (port, _):
        pass
    made = ServerProcess(tmp_path, {"acme.yaml": PLAN.format(port=port)}, {"webhooks": {"allow_private": True}})
    server = await asyncio.to_thread(made.start)
    try:
        with Phone(server.sip_port) as phone:
            assert (await asyncio.to_thread(phone.invite, "200")).code == 480
    finally:
        assert await asyncio.to_thread(server.stop) == 0
