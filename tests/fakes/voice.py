"""A speech-like signal from numbers alone: pulses through moving formants, with pauses and fricatives."""

from __future__ import annotations

import numpy as np

from sipserver.audio.frame import RATE_HZ, Samples

_VOWELS_HZ = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (570, 840, 2410),
    (530, 1840, 2480),
    (300, 870, 2240),
    (660, 1720, 2410),
)


def voice(duration_s: float, *, seed: int = 1, rate_hz: int = RATE_HZ, pitch_hz: float = 120) -> Samples:
    """Shape (duration_s * rate_hz,) int16, peak near -6 dBFS; the same seed gives the same signal."""
    random = np.random.default_rng(seed)
    count = round(duration_s * rate_hz)
    wave = np.zeros(count)
    start = 0
    while start < count:
        length = min(round(rate_hz * random.uniform(0.08, 0.3)), count - start)
        kind = random.choice(["vowel", "vowel", "vowel", "fricative", "pause"])
        if kind == "vowel":
            wave[start : start + length] = _vowel(random, length, rate_hz, pitch_hz)
        elif kind == "fricative":
            noise = np.diff(random.normal(size=length + 1))
            wave[start : start + length] = 0.05 * noise * np.hanning(length)
        start += length
    scaled: Samples = np.round(16000 * wave / max(np.abs(wave).max(), 1e-9)).astype(np.int16)
    return scaled


def _vowel(random: np.random.Generator, length: int, rate_hz: int, pitch_hz: float) -> np.ndarray:
    at_s = np.arange(length) / rate_hz
    pitch = pitch_hz * random.uniform(0.8, 1.3) * (1 + random.uniform(-0.3, 0.3) * at_s)
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    formants_hz = _VOWELS_HZ[random.integers(len(_VOWELS_HZ))]
    wave = np.zeros(length)
    for harmonic in range(1, int(min(3800, rate_hz / 2 - 200) / pitch.max())):
        centre_hz = harmonic * pitch.mean()
        gain = sum(1 / (1 + ((centre_hz - formant) / 90) ** 2) for formant in formants_hz) + 0.02
        wave += gain / harmonic**0.5 * np.sin(harmonic * phase)
    return np.asarray(wave * np.hanning(length))
