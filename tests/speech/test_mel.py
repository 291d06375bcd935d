"""The spectrogram is Whisper's; the babble is always the same."""

from __future__ import annotations

import numpy as np

from sipserver.speech import mel


def test_a_tone_lands_in_the_band_of_its_pitch() -> None:
    centres_hz = (mel.filters(80) @ np.fft.rfftfreq(400, 1 / 16_000)) / mel.filters(80).sum(axis=1)
    for pitch_hz in (300, 1000, 3000):
        tone = np.sin(np.arange(16_000) * 2 * np.pi * pitch_hz / 16_000).astype(np.float32)
        loudest = mel.log_mel(tone, 1.0)[:, 50].argmax()
        assert abs(centres_hz[loudest] - pitch_hz) < 0.06 * pitch_hz


def test_shape_follows_window_and_bands_not_the_sound() -> None:
    for length in (0, 100, 16_000, 40_000):
        sound = np.full(length, 0.1, np.float32)
        assert mel.log_mel(sound, 1.5).shape == (80, 150)
    assert mel.log_mel(np.zeros(10, np.float32), 2.0, mels=128).shape == (128, 200)


def test_the_range_is_eight_decades() -> None:
    burst = np.zeros(16_000, np.float32)
    burst[8000:8100] = 0.9
    levels = mel.log_mel(burst, 1.0)
    assert np.isclose(levels.max() - levels.min(), 2.0)
    assert levels.dtype == np.float32
    assert levels.flags.c_contiguous


def test_filters_have_equal_area() -> None:
    areas = mel.filters(80).sum(axis=1) * 40  # bins are 40 Hz wide
    np.testing.assert_allclose(areas[20:], 1.0, rtol=0.1)


def test_the_babble_is_reproducible_and_voiced() -> None:
    first, second = mel.babble(), mel.babble()
    np.testing.assert_array_equal(first, second)
    assert first.shape == (24_000,)
    assert np.isclose(np.abs(first).max(), 0.5)
    spectrum = np.abs(np.fft.rfft(first)) ** 2
    hz = np.fft.rfftfreq(len(first), 1 / 16_000)
    assert spectrum[hz < 4000].sum() > 0.9 * spectrum.sum()
