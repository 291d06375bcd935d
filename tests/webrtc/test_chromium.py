"""A real Chromium calls: its sound both ways, its digits, its tabs that close, its ICE restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from sipserver.events import DigitReceived, IceChanged, LegDisconnected, MediaStarted
from sipserver.webrtc.settings import WebRtcSettings
from tests.fakes.until import PATIENCE_S, until
from tests.servers.browser import chromium, tone_file
from tests.servers.turn import PASSWORD, USER, is_installed, turn_server
from tests.webrtc.rig import Call, Site, share, site

pytestmark = pytest.mark.peers
SCRIPT = (Path(__file__).parent / "page.js").read_text()
HZ = 600


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tone_file(tmp_path / "tone.wav", HZ)) as one:
        yield one


async def called(browser: Browser, there: Site, options: Mapping[str, Any] | None = None) -> tuple[Page, Call]:
    page = await browser.new_page()
    await page.goto(f"{there.url}/page")
    await page.evaluate(SCRIPT)
    status = await page.evaluate("([token, options]) => phone.call('demo', token, options)", [there.token(), options])
    assert status == 201
    async with asyncio.timeout(PATIENCE_S):
        return page, await there.calls.get()


async def page_until(page: Page, expression: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await page.evaluate(expression):
        assert time.monotonic() < deadline, f"{expression} does not become true"


@pytest.mark.parametrize("codec", ["opus", "PCMU"])
async def test_a_page_hears_its_own_sound_back(browser: Browser, codec: str) -> None:
    async with site(WebRtcSettings(codecs=(codec,))) as there:  # type: ignore[arg-type]
        page, call = await called(browser, there)
        call.leg.loop_back(True)
        assert call.of(MediaStarted)[0].codec == codec
        await page_until(page, f"phone.level({HZ}) > 0.5")
        assert codec.lower() in (await page.evaluate("phone.codec()")).lower()
        await until(lambda: share(call.heard()[-8000:], HZ, 16_000) > 0.8, "the tone at our end")


async def test_a_page_presses_digits_and_hears_what_we_play(browser: Browser) -> None:
    async with site() as there:
        page, call = await called(browser, there)
        await page_until(page, "phone.channel() === 'open'")
        await page.evaluate("phone.press('42#')")
        await until(lambda: len(call.of(DigitReceived)) == 3, "three digits")
        assert [event.digit for event in call.of(DigitReceived)] == ["4", "2", "#"]
        pressing = asyncio.create_task(call.leg.send_digits("5", 4000))
        await page_until(page, "phone.level(770) + phone.level(1336) > 0.5")
        await call.leg.hangup()
        await page_until(page, "phone.shown.some((each) => each.kind === 'hangup')")
        await asyncio.gather(pressing, return_exceptions=True)


async def test_a_tab_that_closes_ends_the_call_after_a_while(browser: Browser) -> None:
    async with site(WebRtcSettings(restart_s=0.5)) as there:
        page, call = await called(browser, there)
        await page.evaluate("phone.close()")
        await page.close()
        await until(lambda: bool(call.of(LegDisconnected)), "the end")
        assert [event.cause for event in call.of(LegDisconnected)] == ["the browser is gone"]


@pytest.mark.parametrize("anew", [True, False], ids=["another connection", "the same connection"])
async def test_an_ice_restart_keeps_the_call(browser: Browser, anew: bool) -> None:
    async with site() as there:
        page, call = await called(browser, there)
        call.leg.loop_back(True)
        await page_until(page, f"phone.level({HZ}) > 0.5")
        assert await page.evaluate("anew => phone.restart(anew)", anew) == 200
        await until(lambda: len(call.of(IceChanged)) > 1, "another path")
        before = len(call.media)
        await until(lambda: len(call.media) > before + 50, "a second more")
        assert share(call.heard()[-8000:], HZ, 16_000) > 0.8
        await page_until(page, f"phone.level({HZ}) > 0.5")
        assert len(there.all) == 1
        assert not call.of(LegDisconnected)


@pytest.mark.skipif(not is_installed(), reason="coturn is not installed")
async def test_a_page_that_may_only_use_a_relay_calls_by_turn(browser: Browser, tmp_path: Path) -> None:
    async with turn_server(tmp_path) as url, site(WebRtcSettings(ice_s=10)) as there:
        server = {"urls": [url], "username": USER, "credential": PASSWORD}
        options = {"iceServers": [server], "iceTransportPolicy": "relay"}
        page, call = await called(browser, there, options)
        call.leg.loop_back(True)
        await page_until(page, f"phone.level({HZ}) > 0.5")
        assert call.of(IceChanged)[0].pair.endswith(("relay", "prflx"))
