"""The phone page in a real headless Chromium: who calls from it, and what it shows."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.servers.browser import chromium

PATIENCE_MS = 15_000
PATHS = pytest.mark.parametrize("path", ["WebRTC", "WebSocket"])
"""How the page's sound travels, in the page's own words."""


@asynccontextmanager
async def browsing(sound: Path, *, width: int = 900, height: int = 900, allowed: bool = True) -> AsyncIterator[Page]:
    """A page with nothing in it. allowed: the microphone may be used; otherwise the user has said no."""
    async with chromium(sound, allowed=allowed) as browser:
        yield await browser.new_page(viewport={"width": width, "height": height})


async def call(page: Page, port: int, to: str, path: str = "WebRTC") -> None:
    """Open the phone page of the server at this port of 127.0.0.1, and call a user of it."""
    transport = "ws" if path == "WebSocket" else ""
    await page.goto(f"http://127.0.0.1:{port}/phone?transport={transport}")
    await page.fill("#to", to)
    await page.click("#call")


async def in_call(page: Page, path: str) -> None:
    await expect(page.locator("#state")).to_have_text("In call", timeout=PATIENCE_MS)
    await expect(page.locator("#path")).to_have_text(path)


async def loud(page: Page, meter: str) -> None:
    """meter: `#you` or `#they`. Over -48 dBFS: a browser makes a lasting tone quieter, which it takes for noise."""
    await expect(page.locator(meter)).to_have_attribute("aria-valuenow", re.compile(r"^[2-9]\d$"), timeout=PATIENCE_MS)


async def silent(page: Page, meter: str) -> None:
    await expect(page.locator(meter)).to_have_attribute("aria-valuenow", "0", timeout=PATIENCE_MS)


def problems(page: Page) -> list[str]:
    """What the page logs as an error from now on: scripts that fail, policies that are broken, answers that refuse."""
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    return told
