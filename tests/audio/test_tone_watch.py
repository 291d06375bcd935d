"""Steady tones are heard with their pitch and length, through telephone lines; voices and noise are not tones."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio import tones
from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.audio.tone_watch import Tone, ToneWatch
from tests.fakes.answerers import Line, over
from tests.fakes.voice import voice

CLEAN = Line("clean", lead_ms=300)
NOISY = Line("noisy", lead_ms=300, noise_dbfs=-34)
LOSSY = Line("lossy", lead_ms=300, loss=0.04)
LINES = pytest.mark.parametrize("line", [CLEAN, NOISY, LOSSY], ids=lambda line: line.name)


def heard(frames: list[Samples]) -> list[Tone]:
    watch = ToneWatch()
    found = [watch.hear(Frame(samples, 0)) for samples in frames]
    return [tone for tone in found if tone is not None]


@LINES
@pytest.mark.parametrize("duration_ms", [120, 250, 1000])
@pytest.mark.parametrize("frequency_hz", [425, 1000, 1477, 2100])
def test_a_beep_is_one_pure_tone(line: Line, frequency_hz: float, duration_ms: int) -> None:
    (tone,) = heard(over(line, tones.beep(duration_ms, frequency_hz=frequency_hz), tail_ms=300))
    assert tone.low_hz == pytest.approx(frequency_hz, abs=5)
    assert tone.high_hz == 0
    assert tone.pure
    assert tone.duration_ms == pytest.approx(duration_ms, abs=40)
    assert tone.start_ms == pytest.approx(300, abs=40)
    assert tone.level_dbfs == pytest.approx(-19.2, abs=1)


@LINES
def test_pairs_of_tones_are_told_from_single_ones(line: Line) -> None:
    found = heard(over(line, tones.digits("159#", 100, 100), tail_ms=300))
    assert [(round(tone.low_hz, -1), round(tone.high_hz, -1)) for tone in found] == [
        (700, 1210),
        (770, 1340),
        (850, 1480),
        (940, 1480),
    ]
    assert not any(tone.pure for tone in found)


@pytest.mark.parametrize("pair", [(440, 480), (400, 450)])
def test_two_near_tones_are_one_between_them(pair: tuple[float, float]) -> None:
    (tone,) = heard(over(CLEAN, tones.tone(pair, 600, (-16, -16)), tail_ms=300))
    assert tone.low_hz == pytest.approx(sum(pair) / 2, abs=4)
    assert tone.duration_ms == pytest.approx(600, abs=60)


def test_tones_that_follow_each_other_are_two() -> None:
    sound = np.concatenate((tones.beep(330, frequency_hz=950), tones.beep(330, frequency_hz=1400)))
    found = heard(over(CLEAN, sound, tail_ms=300))
    assert [round(tone.low_hz) for tone in found] == [950, 1400]
    assert all(tone.duration_ms == pytest.approx(330, abs=40) for tone in found)


def test_a_tone_that_sounds_is_told_with_its_length_so_far() -> None:
    watch = ToneWatch()
    seen = []
    for samples in over(CLEAN, tones.beep(500), tail_ms=300):
        watch.hear(Frame(samples, 0))
        seen.append(watch.sounding.duration_ms if watch.sounding else 0)
    assert max(seen) == pytest.approx(500, abs=20)
    assert seen[-1] == 0
    rising = [length_ms for length_ms in seen if length_ms]
    assert rising == sorted(rising)


@pytest.mark.parametrize("seed", range(4))
def test_a_voice_holds_no_long_tone(seed: int) -> None:
    found = heard(over(CLEAN, voice(10, seed=seed, pitch_hz=110 + 40 * seed)))
    assert not [tone for tone in found if tone.pure and tone.low_hz >= 300 and tone.duration_ms >= 120]


def test_a_glide_is_no_tone() -> None:
    at_s = np.arange(16_000) / 16_000
    glide = (8000 * np.sin(2 * np.pi * (500 * at_s + 400 * at_s**2))).astype(np.int16)
    assert not [tone for tone in heard(over(CLEAN, glide)) if tone.duration_ms >= 120]


def test_noise_and_silence_are_no_tones() -> None:
    noise = (np.random.default_rng(1).normal(size=80_000) * 2000).astype(np.int16)
    assert heard(over(CLEAN, noise)) == []
    watch = ToneWatch()
    assert watch.hear(Frame(np.zeros(FRAME_SAMPLES, np.int16), 0)) is None
    assert watch.look.level_dbfs == -100
    assert watch.at_ms == 20


def test_hum_below_the_telephone_band_has_no_level() -> None:
    watch = ToneWatch()
    for start in range(0, 16_000, FRAME_SAMPLES):
        watch.hear(Frame(tones.tone((50,), 1000, (-10,))[start : start + FRAME_SAMPLES], 0))
    assert watch.look.level_dbfs < -60
