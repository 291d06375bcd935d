"""A message ends with silence or with the network's tones, and not before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sipserver.audio import tones
from sipserver.audio.frame import Frame, Samples
from sipserver.audio.quiet import Ended, Quiet, Why
from tests.fakes.answerers import Line, over
from tests.fakes.call_progress import COUNTRIES, Progress, endless
from tests.fakes.voice import voice

LINES = pytest.mark.parametrize(
    "line",
    [
        Line("clean", lead_ms=0),
        Line("noisy", lead_ms=0, noise_dbfs=-42),
        Line("lossy", lead_ms=0, loss=0.04),
    ],
    ids=lambda line: line.name,
)


def ended(line: Line, sound: Samples, silence_ms: int = 3000, tail_ms: int = 0) -> Ended | None:
    quiet = Quiet(silence_ms)
    for samples in over(line, sound, tail_ms=tail_ms):
        quiet.hear(Frame(samples, 0))
    return quiet.ended


@LINES
def test_silence_after_a_message(line: Line) -> None:
    end = ended(line, voice(8, seed=2), tail_ms=5000)
    assert end is not None
    assert end.why is Why.SILENCE
    assert end.speech_ms == pytest.approx(8000, abs=500)
    assert 0 <= end.at_ms - end.speech_ms - 3000 <= 100


@LINES
def test_nothing_was_said(line: Line) -> None:
    end = ended(line, tones.silence(5000))
    assert end == Ended(Why.SILENCE, 3000, 0)


@LINES
def test_pauses_do_not_end_it(line: Line) -> None:
    parts = [part for seed in range(4) for part in (voice(2, seed=seed + 1), tones.silence(2000))]
    end = ended(line, np.concatenate(parts), tail_ms=5000)
    assert end is not None
    assert end.speech_ms > 11_000


def test_somebody_who_talks_on_is_not_ended() -> None:
    assert ended(Line("clean", lead_ms=0), voice(60, seed=5)) is None


@LINES
@pytest.mark.parametrize("progress", [Progress.BUSY, Progress.CONGESTION])
@pytest.mark.parametrize("country", COUNTRIES)
def test_the_hang_up_tones_of_every_country(line: Line, country: str, progress: Progress) -> None:
    said = voice(4, seed=2)
    hung_up = np.concatenate(list(itertools.islice(endless(progress, country).frames(), 300)))
    end = ended(line, np.concatenate((said, tones.silence(300), hung_up)), silence_ms=20_000)
    assert end is not None
    assert end.why is Why.TONE
    assert end.at_ms < 4300 + 5200
    assert end.speech_ms <= 4100


def test_a_dial_tone_ends_it_too() -> None:
    dialling = tones.tone((425,), 6000, (-15,))
    end = ended(Line("clean", lead_ms=0), np.concatenate((voice(4, seed=2), dialling)), silence_ms=20_000)
    assert end is not None
    assert (end.why, end.speech_ms <= 4100) == (Why.TONE, True)


def test_the_tones_themselves_are_no_speech() -> None:
    """One beep or key in the silence does not begin it anew."""
    sound = np.concatenate(
        (voice(4, seed=2), tones.silence(1000), tones.beep(300), tones.digits("5"), tones.silence(4000))
    )
    end = ended(Line("clean", lead_ms=0), sound)
    assert end is not None
    assert (end.why, end.speech_ms <= 4100) == (Why.SILENCE, True)


def test_noise_that_begins_or_ends_is_no_speech() -> None:
    random = np.random.default_rng(1)
    street = (random.normal(size=10 * 16_000) * 150).astype(np.int16)
    sound = np.concatenate((tones.silence(400), street))
    assert ended(Line("clean", lead_ms=0), sound, silence_ms=6000) == Ended(Why.SILENCE, 6000, 0)


def test_the_end_stays() -> None:
    quiet = Quiet(1000)
    for samples in over(Line("clean"), np.concatenate((tones.silence(2000), voice(3))), tail_ms=3000):
        quiet.hear(Frame(samples, 0))
    assert quiet.ended == Ended(Why.SILENCE, 1000, 0)
