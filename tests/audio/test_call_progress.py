"""Each country's tones have its frequencies and its rhythm, and what hears tones hears them as what they are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sipserver.audio.cadence import Cadence, Signal
from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.audio.levels import peak_dbfs
from sipserver.audio.tone_watch import ToneWatch
from tests.fakes.call_progress import COUNTRIES, Progress, endless, period

every = pytest.mark.parametrize("country", COUNTRIES)


def signals(frames: list[Samples]) -> list[Signal]:
    watch, cadence = ToneWatch(), Cadence()
    tones = [watch.hear(Frame(samples, 0)) for samples in frames]
    return [signal for tone in tones if tone is not None and (signal := cadence.hear(tone)) is not None]


@every
@pytest.mark.parametrize("progress", Progress)
def test_the_period_is_that_of_the_table(country: str, progress: Progress) -> None:
    signal = COUNTRIES[country][progress]
    sound = period(progress, country)
    assert len(sound) == 16 * sum(signal.cadence_ms)
    at = 0
    for index, length_ms in enumerate(signal.cadence_ms):
        part = sound[at : at + 16 * length_ms]
        assert part.any() == (index % 2 == 0)
        at += len(part)
    first = sound[: 16 * signal.cadence_ms[0]].astype(float)
    spectrum = np.abs(np.fft.rfft(first * np.hanning(len(first)), 16_000))
    for hz in signal.frequencies_hz:
        assert spectrum[round(hz)] > 0.9 * spectrum[round(hz) - 8 : round(hz) + 9].max()
        assert spectrum[round(hz)] > 0.4 * spectrum.max()
    assert -17 < peak_dbfs(sound) < -10


@every
@pytest.mark.parametrize("progress", [Progress.BUSY, Progress.CONGESTION])
def test_busy_and_congestion_are_heard_as_such(country: str, progress: Progress) -> None:
    frames = list(itertools.islice(endless(progress, country).frames(), 250))
    assert set(signals(frames)) == {Signal.BUSY}


@every
def test_ringing_is_not_heard_as_busy(country: str) -> None:
    assert signals(list(itertools.islice(endless(Progress.RINGBACK, country).frames(), 1000))) == []


def test_frames_go_on_over_the_seam() -> None:
    frames = list(itertools.islice(endless(Progress.BUSY, "GB").frames(), 75))
    assert {len(samples) for samples in frames} == {FRAME_SAMPLES}
    assert np.array_equal(np.concatenate(frames), np.tile(period(Progress.BUSY, "GB"), 2))


def test_countries_are_known_in_either_case_and_others_are_named() -> None:
    assert period(Progress.BUSY, "de") is not None
    with pytest.raises(ValueError, match=r"no tones are known for 'XX', only for AT, CH, DE"):
        endless(Progress.BUSY, "XX")
