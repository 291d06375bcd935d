"""Calls from the phone page: a real Chromium, a real server, by WebRTC and by the WebSocket that stands in for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Route, expect

from tests.harness.page import PATHS, PATIENCE_MS, browsing, call, in_call, loud, problems, silent
from tests.harness.server import ServerProcess
from tests.servers.browser import tone_file

pytestmark = pytest.mark.peers

PLAN = """
tenant: acme
flows:
  echo: [answer, echo]
  pin:
    - answer
    - collect: {digits: 2, timeout_s: 20, on: {"42": bye, none: echo, other: echo}}
  bye: [hangup]
routes:
  - match: {to: echo}
    flow: echo
  - match: {to: pin}
    flow: pin
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    process = ServerProcess(tmp_path / "server", {"acme.yaml": PLAN}, {"http": {"phone": True}})
    await asyncio.to_thread(process.start)
    yield process
    await asyncio.to_thread(process.stop)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return tone_file(tmp_path / "microphone.wav", 440)


@PATHS
async def test_the_caller_hears_itself_and_hangs_up(server: ServerProcess, sound: Path, path: str) -> None:
    async with browsing(sound) as page:
        told = problems(page)
        await call(page, server.http_port, "echo", path)
        await in_call(page, path)
        await loud(page, "#you")
        await loud(page, "#they")
        await expect(page.locator("#round-trip")).to_have_text(re.compile(r"^\d+ ms$"))
        await page.click("#hangup")
        await expect(page.locator("#state")).to_have_text("Ended: you hung up")
        assert told == []
    await asyncio.to_thread(server.stop)
    assert '"caller_hangup"' in server.log()


@PATHS
async def test_digits_by_button_and_keyboard_reach_the_dialplan_which_hangs_up(
    server: ServerProcess, sound: Path, path: str
) -> None:
    async with browsing(sound) as page:
        await call(page, server.http_port, "pin", path)
        await in_call(page, path)
        await page.get_by_role("button", name="4", exact=True).click()
        await page.keyboard.press("2")
        await expect(page.locator("#state")).to_have_text(re.compile("^Ended: (dialplan )?"), timeout=PATIENCE_MS)
        await expect(page.locator("#log")).to_contain_text("digit 4")
        await expect(page.locator("#call")).to_be_focused()
    await asyncio.to_thread(server.stop)
    assert '"dialplan_hangup"' in server.log()


async def test_who_is_muted_is_not_heard(server: ServerProcess, sound: Path) -> None:
    async with browsing(sound) as page:
        await call(page, server.http_port, "echo", "WebSocket")
        await loud(page, "#they")
        await page.click("#mute")
        await silent(page, "#they")
        await page.click("#mute")
        await loud(page, "#they")


async def test_without_webrtc_the_page_takes_the_websocket(server: ServerProcess, sound: Path) -> None:
    async with browsing(sound) as page:
        await page.route("**/webrtc/*", lambda route: route.fulfill(status=503, body="full"))
        await call(page, server.http_port, "echo")
        await in_call(page, "WebSocket")
        await loud(page, "#they")


async def test_the_page_says_what_to_do_without_a_microphone(server: ServerProcess, sound: Path) -> None:
    async with browsing(sound, allowed=False) as page:
        await call(page, server.http_port, "echo")
        await expect(page.get_by_role("alert")).to_contain_text("Allow it for this page", timeout=PATIENCE_MS)
        await expect(page.locator("#call")).to_be_visible()


async def test_the_page_fits_a_telephone(server: ServerProcess, sound: Path) -> None:
    async with browsing(sound, width=360, height=740) as page:
        await call(page, server.http_port, "echo")
        await in_call(page, "WebRTC")
        await page.get_by_text("Events").click()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_who_hangs_up_before_the_call_is_placed_places_none_and_may_call_again(
    server: ServerProcess, sound: Path
) -> None:
    async with browsing(sound) as page:
        asked, go_on, placed = asyncio.Event(), asyncio.Event(), []

        async def held(route: Route) -> None:
            asked.set()
            await go_on.wait()
            await route.continue_()

        page.on("request", lambda request: placed.append(request.url) if "/webrtc/" in request.url else None)
        await page.route("**/phone/token", held, times=1)
        await call(page, server.http_port, "echo")
        await asyncio.wait_for(asked.wait(), 15)
        await page.click("#hangup")
        await expect(page.locator("#state")).to_have_text("Ended: you hung up")
        await page.click("#call")
        go_on.set()
        await in_call(page, "WebRTC")
        assert len([url for url in placed if url.endswith("/webrtc/echo")]) == 1
        await page.click("#hangup")
        await expect(page.locator("#call")).to_be_visible()
        assert not problems(page)
