"""Noisy speech in, less noise out, and the speech still there."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES, RATE_HZ, Frame, Samples
from sipserver.audio.noise import LEVELS, Level, NoiseSuppressor


def cleaned(samples: Samples, level: Level) -> Samples:
    suppressor = NoiseSuppressor(level)
    whole = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES]
    frames = [Frame(part, at) for at, part in enumerate(whole.reshape(-1, FRAME_SAMPLES))]
    out = [suppressor.clean(frame) for frame in frames]
    assert [frame.at_ns for frame in out] == list(range(len(frames)))
    return np.concatenate([frame.samples for frame in out])


def bursts_in_noise() -> tuple[Samples, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Six seconds: half a second of a voice-like buzz, half a second of none, all of it in noise of 15 dB less."""
    at = np.arange(6 * RATE_HZ)
    voiced = (at // (RATE_HZ // 2)) % 2 == 1
    buzz = sum(np.sin(2 * np.pi * 140 * k * at / RATE_HZ) / k for k in range(1, 12))
    noise = np.random.default_rng(7).normal(0, 500, len(at))
    return (3000 * np.asarray(buzz) * voiced + noise).astype(np.int16), voiced


def decibels(samples: Samples) -> float:
    return float(10 * np.log10(np.mean(samples.astype(np.float64) ** 2) + 1e-9))


def contrast(samples: Samples, voiced: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    """Voice against pauses, in dB, once the suppressor knows the noise (the last three seconds)."""
    late = slice(len(samples) // 2, None)
    return decibels(samples[late][voiced[late]]) - decibels(samples[late][~voiced[late]])


@pytest.mark.parametrize(("level", "gain_db"), [("low", 2), ("moderate", 3.5), ("high", 4.5)])
def test_pauses_become_quieter_and_speech_does_not(level: Level, gain_db: float) -> None:
    noisy, voiced = bursts_in_noise()
    clean = cleaned(noisy, level)
    assert contrast(clean, voiced) > contrast(noisy, voiced) + gain_db
    late = slice(len(noisy) // 2, None)
    assert abs(decibels(clean[late][voiced[late]]) - decibels(noisy[late][voiced[late]])) < 3


def test_off_needs_no_suppressor_but_is_a_level() -> None:
    assert list(LEVELS) == ["off", "low", "moderate", "high"]
