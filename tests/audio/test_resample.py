"""Resampling: lengths, level, latency, aliases, and chunks that make no difference."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio.frame import Samples
from sipserver.audio.resample import Resampler, resample

RATES_HZ = (8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000)


def sine(rate_hz: int, frequency_hz: float, duration_s: float = 1.0) -> Samples:
    return np.round(8000 * np.sin(2 * np.pi * frequency_hz * np.arange(int(rate_hz * duration_s)) / rate_hz)).astype(
        np.int16
    )


def stream(resampler: Resampler, samples: Samples, chunk: int) -> Samples:
    parts = [resampler.convert(samples[start : start + chunk]) for start in range(0, len(samples), chunk)]
    return np.concatenate([*parts, resampler.flush()])


def level_db(samples: Samples, like: float = 8000 / 2**0.5) -> float:
    middle = samples[len(samples) // 4 : -len(samples) // 4].astype(float)
    return float(20 * np.log10(max(np.sqrt(np.mean(middle**2)), 1e-3) / like))


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("live", [True, False], ids=["live", "whole"])
def test_there_and_back_is_the_same_sound_at_the_same_time(rate_hz: int, live: bool) -> None:
    original = sine(16_000, 440)
    if live:
        away = stream(Resampler(16_000, rate_hz), original, 320)
        back = stream(Resampler(rate_hz), away, rate_hz // 50)
    else:
        away = resample(original, 16_000, rate_hz)
        back = resample(away, rate_hz)
    assert abs(len(away) - rate_hz) <= 1
    assert abs(len(back) - len(original)) <= 2
    middle = slice(2000, 14_000)
    error = back[middle].astype(float) - original[middle]
    assert np.std(error) < np.std(original[middle]) * 10 ** (-45 / 20)


@pytest.mark.parametrize(("rate_hz", "latency_ms"), [(8_000, 2.0), (22_050, 1.0), (24_000, 1.0), (48_000, 1.0)])
@pytest.mark.parametrize("up", [True, False])
def test_the_latency_is_the_documented_one_from_the_first_chunk_on(rate_hz: int, latency_ms: float, up: bool) -> None:
    from_hz, to_hz = (rate_hz, 16_000) if up else (16_000, rate_hz)
    resampler, given, taken = Resampler(from_hz, to_hz), 0, 0
    for _ in range(20):
        given += from_hz // 50
        taken += len(resampler.convert(np.zeros(from_hz // 50, np.int16)))
        assert given / from_hz - taken / to_hz <= latency_ms / 1000 + 1 / 8000


def test_the_size_of_the_chunks_makes_no_difference() -> None:
    sound = sine(24_000, 700)
    whole = stream(Resampler(24_000), sound, len(sound))
    for chunk in (1, 7, 480, 1001):
        assert np.array_equal(
            stream(Resampler(24_000), sound[:4800], chunk), stream(Resampler(24_000), sound[:4800], 4800)
        )
    assert len(whole) == 16_000


@pytest.mark.parametrize("frequency_hz", [4_600, 5_500, 7_000])
def test_what_is_above_the_new_band_is_gone(frequency_hz: float) -> None:
    loud = sine(16_000, frequency_hz)
    assert level_db(stream(Resampler(16_000, 8_000), loud, 320)) < -55
    assert level_db(resample(loud, 16_000, 8_000)) < -75


def test_the_telephone_band_passes() -> None:
    for frequency_hz in (300, 1000, 3000, 3400):
        assert abs(level_db(stream(Resampler(8_000), sine(8_000, frequency_hz), 160))) < 0.3


def test_equal_rates_pass_through() -> None:
    sound = sine(16_000, 440)
    resampler = Resampler(16_000)
    assert resampler.convert(sound) is sound
    assert len(resampler.flush()) == 0
    assert resample(sound, 16_000) is sound


def test_a_flushed_stream_begins_anew() -> None:
    resampler, sound = Resampler(8_000), sine(8_000, 440, 0.2)
    first = stream(resampler, sound, 160)
    assert np.array_equal(first, stream(resampler, sound, 160))


def test_nothing_in_nothing_out() -> None:
    nothing = np.zeros(0, np.int16)
    assert len(Resampler(8_000).convert(nothing)) == 0
    assert len(Resampler(8_000).flush()) == 0
    assert len(resample(nothing, 8_000)) == 0


def test_strided_samples_are_taken_as_they_are() -> None:
    both = np.repeat(sine(8_000, 440), 2)
    assert np.array_equal(stream(Resampler(8_000), both[::2], 160), stream(Resampler(8_000), sine(8_000, 440), 160))
    assert np.array_equal(resample(both[::2], 8_000), resample(sine(8_000, 440), 8_000))


@pytest.mark.parametrize("rate_hz", [0, -8_000, 3_999, 192_001])
def test_impossible_rates_are_refused(rate_hz: int) -> None:
    with pytest.raises(ValueError, match="sample rate"):
        Resampler(rate_hz)
    with pytest.raises(ValueError, match="sample rate"):
        resample(np.zeros(1, np.int16), 16_000, rate_hz)
