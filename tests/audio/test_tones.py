"""Tones have the frequencies, levels and lengths that the telephone expects."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio import tones
from sipserver.audio.frame import Samples
from sipserver.audio.levels import rms_dbfs


def peaks_hz(samples: Samples, count: int) -> list[float]:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 16_000))
    found = []
    for _ in range(count):
        peak = int(spectrum.argmax())
        found.append(float(peak))
        spectrum[max(0, peak - 40) : peak + 40] = 0
    return sorted(found)


@pytest.mark.parametrize("key", "0123456789*#ABCD")
def test_a_digit_is_its_two_frequencies(key: str) -> None:
    assert peaks_hz(tones.digit(key, 500), 2) == pytest.approx(tones.PAIRS[key], abs=2)
    assert np.array_equal(tones.digit(key.lower()), tones.digit(key))


def test_the_keypad_is_that_of_q23() -> None:
    assert tones.PAIRS["1"] == (697, 1209)
    assert tones.PAIRS["0"] == (941, 1336)
    assert tones.PAIRS["#"] == (941, 1477)
    assert tones.PAIRS["D"] == (941, 1633)


def test_levels_are_dbm0() -> None:
    assert rms_dbfs(tones.tone((1000,), 1000, (3.14,))) == pytest.approx(-3.01, abs=0.1)
    assert rms_dbfs(tones.tone((1000,), 1000, (-10,))) == pytest.approx(-16.15, abs=0.1)


def test_digits_have_gaps_and_pauses() -> None:
    sound = tones.digits("1,2", duration_ms=100, gap_ms=50)
    assert len(sound) == 16 * (100 + 50 + 1000 + 100 + 50)
    assert not sound[16 * 100 : 16 * 1150].any()
    assert len(tones.digits("")) == 0


@pytest.mark.parametrize("key", ["", "x", "12", " "])
def test_what_is_no_digit_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="no DTMF digit"):
        tones.digit(key)


def test_ringback_and_busy_have_their_cadence() -> None:
    ring = tones.ringback(2)
    assert len(ring) == 2 * 5 * 16_000
    assert peaks_hz(ring[:16_000], 1) == pytest.approx([425], abs=1)
    assert not ring[16_000 : 5 * 16_000].any()
    assert np.array_equal(ring[: 5 * 16_000], ring[5 * 16_000 :])
    assert len(tones.busy(3)) == 3 * 16 * 960


def test_beep() -> None:
    assert len(tones.beep(150)) == 2400
    assert peaks_hz(tones.beep(150), 1) == pytest.approx([1000], abs=5)


def test_edges_do_not_click_and_sums_do_not_wrap() -> None:
    assert abs(int(tones.digit("5")[0])) < 100
    loud = tones.tone((440, 441), 500, (3, 3))
    assert loud.max() == 32767
    assert np.abs(np.diff(loud.astype(int))).max() < 12_000


@pytest.mark.parametrize("duration_ms", [0, 1, 3])
def test_very_short_tones(duration_ms: int) -> None:
    assert len(tones.beep(duration_ms)) == 16 * duration_ms
