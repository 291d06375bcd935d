"""A real headless Chromium, whose microphone is a file."""

from __future__ import annotations

import contextlib
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from playwright.async_api import Browser, async_playwright

from sipserver.audio.frame import Samples

CHROMIUM = "/usr/bin/chromium"
_RATE_HZ = 48_000


@contextlib.asynccontextmanager
async def chromium(microphone: Path | None = None, *extra: str, allowed: bool = True) -> AsyncIterator[Browser]:
    """microphone: a WAV file, played again and again; None: Chromium's own beeps. extra: further switches. allowed:
    pages may use the microphone without asking; otherwise the user has said no.
    """
    args = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream" if allowed else "--deny-permission-prompts",
        "--use-fake-device-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
        *extra,
    ]
    if microphone is not None:
        args.append(f"--use-file-for-fake-audio-capture={microphone}")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        try:
            yield browser
        finally:
            await browser.close()


def tone_file(path: Path, hz: float, seconds: float = 2.0) -> Path:
    """A microphone that hears one tone. Whole periods, so that the loop has no click."""
    count = round(round(seconds * hz) * _RATE_HZ / hz)
    samples = (9000 * np.sin(2 * np.pi * hz * np.arange(count) / _RATE_HZ)).astype(np.int16)
    return sound_file(path, samples, _RATE_HZ)


def sound_file(path: Path, samples: Samples, rate_hz: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())
    return path
