"""What the callers of a load say, as PCMA frames of 20 ms, and how a click is found again in what comes back. Pure.

Owns the two patterns and the detection of clicks. Refuses to know sockets.
"""

from __future__ import annotations

import audioop
import subprocess
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sipserver.audio.resample import resample

FRAME = 160
"""Samples, and bytes of PCMA, of 20 ms."""
CLICK_AT = 80
"""Sample of a frame on which the click stands."""
CLICK_EVERY = 25
"""Frames from one click to the next: no round trip is that long (500 ms)."""
LOUD = 8_000
_SHAPE = (6_000, 16_000, 24_000, 16_000, 6_000)

Frames = NDArray[np.uint8]
"""(frames, 160) bytes of PCMA; a caller says them in a circle."""

MAGNITUDE = np.abs(np.frombuffer(audioop.alaw2lin(bytes(range(256)), 2), np.int16).astype(np.int32)).astype(np.uint16)
"""Of each byte of PCMA."""


def clicks() -> Frames:
    """Soft noise with one click in CLICK_EVERY frames, which stands in frame 0."""
    samples = np.random.default_rng(7).normal(0, 60, CLICK_EVERY * FRAME).astype(np.int16)
    samples[CLICK_AT - 2 : CLICK_AT + 3] = _SHAPE
    return pcma(samples)


def speech(text: str, folder: Path, *, pause_s: float) -> Frames:
    """The text in espeak-ng's voice, and a pause after it. Raises CalledProcessError."""
    file = folder / "speech.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", str(file), text], check=True)
    with wave.open(str(file)) as sound:
        rate_hz = sound.getframerate()
        samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
    voice = resample(samples, rate_hz, 8_000)
    return pcma(np.concatenate([voice, np.zeros(int(pause_s * 8_000), np.int16)]))


def pcma(samples: NDArray[np.int16]) -> Frames:
    whole = samples[: len(samples) // FRAME * FRAME]
    return np.frombuffer(audioop.lin2alaw(whole.tobytes(), 2), np.uint8).reshape(-1, FRAME)


def click_places(payload: Frames) -> NDArray[np.int16]:
    """For each frame the sample at which a click peaks, -1 where there is none."""
    loudness = MAGNITUDE[payload]
    places = loudness.argmax(axis=1)
    peaks = loudness[np.arange(len(places)), places]
    return np.where(peaks > LOUD, places, -1).astype(np.int16)
