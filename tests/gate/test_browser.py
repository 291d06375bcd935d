"""A real Chromium: its pages send a token by sub-protocol, and those of others are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page

from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.gate.tokens import Claims
from tests.gate.web import Site, echo, site
from tests.servers.browser import chromium

pytestmark = pytest.mark.peers

CONNECT = """([url, protocols]) => new Promise((done) => {
    const socket = new WebSocket(url, protocols)
    const heard = []
    socket.onopen = () => socket.send("hello")
    socket.onmessage = (message) => { heard.push(message.data); socket.send("leave") }
    socket.onclose = (end) => done({heard, protocol: socket.protocol, code: end.code, reason: end.reason})
})"""


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """Of no server yet."""
    async with chromium() as browser:
        yield await browser.new_page()


async def connected(page: Page, there: Site, protocols: list[str]) -> dict[str, Any]:
    """What a page sees of a WebSocket that it opens, until its end."""
    async with asyncio.timeout(30):
        seen: dict[str, Any] = await page.evaluate(CONNECT, [there.url, protocols])
        return seen


async def echo_until_told(connection: Connection) -> None:
    async for message in connection:
        if message == "leave":
            await connection.close(Close.REPLACED)
        connection.send(message)


async def test_a_page_of_ours_comes_in_with_a_token_and_reads_why_it_ends(page: Page) -> None:
    async with site(serve=echo_until_told) as there:
        await page.goto(f"http://127.0.0.1:{there.port}/page")
        token = there.tokens.issue(Claims("voice", to="demo"))
        seen = await connected(page, there, [f"token.{token}"])
        assert seen["heard"] == ["hello"]
        assert seen["protocol"] == f"token.{token}"
        assert (seen["code"], seen["reason"]) == (4409, Close.REPLACED.reason)


async def test_a_page_of_others_does_not(page: Page) -> None:
    async with site(serve=echo) as there, site() as elsewhere:
        await page.goto(f"http://127.0.0.1:{elsewhere.port}/page")
        seen = await connected(page, there, [])
        assert (seen["heard"], seen["code"]) == ([], 1006)
        assert there.gate.facts().refused == {"origin": 1}
