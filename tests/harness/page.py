"""The phone page in a real headless Chromium, whose microphone plays a file again and again."""

from __future__ import annotations

import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from playwright.async_api import Page, async_playwright

CHROMIUM = "/usr/bin/chromium"


def microphone(path: Path, *, tone_hz: float = 440) -> Path:
    """A second of a tone, at -12 dBFS, as a file that Chromium takes for a microphone."""
    samples = np.sin(2 * np.pi * tone_hz * np.arange(48_000) / 48_000) * 8000
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(48_000)
        sound.writeframes(samples.astype("<i2").tobytes())
    return path


@asynccontextmanager
async def browsing(sound: Path, *, width: int = 900, height: int = 900, allowed: bool = True) -> AsyncIterator[Page]:
    """A page with nothing in it. allowed: the microphone may be used; otherwise the user has said no."""
    arguments = [
        "--no-sandbox",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}",
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-ui-for-media-stream" if allowed else "--deny-permission-prompts",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield await browser.new_page(viewport={"width": width, "height": height})
        finally:
            await browser.close()


def problems(page: Page) -> list[str]:
    """What the page logs as an error from now on: scripts that fail, policies that are broken, answers that refuse."""
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    return told
