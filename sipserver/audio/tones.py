"""Tones of the telephone as samples: DTMF digits, ringback, busy, beep. Pure functions.

Levels are in dBm0: a sine of full scale is +3.14 dBm0 (ITU-T G.711, A-law). Edges are faded over 2 ms against clicks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sipserver.audio.frame import RATE_HZ, Samples

LOW_HZ = (697.0, 770.0, 852.0, 941.0)
HIGH_HZ = (1209.0, 1336.0, 1477.0, 1633.0)
KEYPAD = ("123A", "456B", "789C", "*0#D")
"""Digits by row (low frequency) and column (high frequency), ITU-T Q.23."""

DIGITS = "0123456789*#ABCD"
"""In the order of the event codes of RFC 4733, 3.2."""

PAIRS: dict[str, tuple[float, float]] = {
    digit: (LOW_HZ[row], HIGH_HZ[column]) for row, keys in enumerate(KEYPAD) for column, digit in enumerate(keys)
}
FULL_SCALE_DBM0 = 3.14
_FADE_MS = 2


def tone(frequencies_hz: Sequence[float], duration_ms: int, levels_dbm0: Sequence[float]) -> Samples:
    """A sum of sines, shape (16 * duration_ms,) int16. Sums beyond full scale are clipped."""
    count = RATE_HZ * duration_ms // 1000
    at_s = np.arange(count) / RATE_HZ
    wave = np.zeros(count)
    for frequency_hz, level_dbm0 in zip(frequencies_hz, levels_dbm0, strict=True):
        amplitude = 32767 * 10 ** ((level_dbm0 - FULL_SCALE_DBM0) / 20)
        wave += amplitude * np.sin(2 * math.pi * frequency_hz * at_s)
    fade = min(RATE_HZ * _FADE_MS // 1000, count // 2)
    if fade:
        slope = 0.5 - 0.5 * np.cos(math.pi * (np.arange(fade) + 0.5) / fade)
        wave[:fade] *= slope
        wave[-fade:] *= slope[::-1]
    clipped: Samples = np.clip(np.round(wave), -32768, 32767).astype(np.int16)
    return clipped


def silence(duration_ms: int) -> Samples:
    return np.zeros(RATE_HZ * duration_ms // 1000, np.int16)


def digit(key: str, duration_ms: int = 160, *, low_dbm0: float = -9, high_dbm0: float = -7) -> Samples:
    """One DTMF digit, 0-9 * # A-D in either case. The levels are those of ETSI ES 201 235-2. Raises ValueError."""
    pair = PAIRS.get(key.upper())
    if pair is None:
        raise ValueError(f"{key!r} is no DTMF digit")
    return tone(pair, duration_ms, (low_dbm0, high_dbm0))


def digits(keys: str, duration_ms: int = 160, gap_ms: int = 80) -> Samples:
    """Digits one after the other, each followed by gap_ms of silence; `,` is a pause of 1 s. Raises ValueError."""
    parts: list[Samples] = [np.zeros(0, np.int16)]
    for key in keys:
        parts.extend((silence(1000),) if key == "," else (digit(key, duration_ms), silence(gap_ms)))
    return np.concatenate(parts)


def ringback(rings: int = 1, *, frequency_hz: float = 425, on_ms: int = 1000, off_ms: int = 4000) -> Samples:
    """What the caller hears while it rings: by default the cadence of Germany and Switzerland (ITU-T E.180)."""
    return _cadence(rings, frequency_hz, on_ms, off_ms)


def busy(beats: int = 1, *, frequency_hz: float = 425, on_ms: int = 480, off_ms: int = 480) -> Samples:
    return _cadence(beats, frequency_hz, on_ms, off_ms)


def beep(duration_ms: int = 200, *, frequency_hz: float = 1000, level_dbm0: float = -13) -> Samples:
    """Speak after the tone."""
    return tone((frequency_hz,), duration_ms, (level_dbm0,))


def _cadence(beats: int, frequency_hz: float, on_ms: int, off_ms: int) -> Samples:
    beat = np.concatenate((tone((frequency_hz,), on_ms, (-13,)), silence(off_ms)))
    return np.tile(beat, beats)
