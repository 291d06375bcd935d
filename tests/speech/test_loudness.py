"""Loudness in the detector's place."""

from __future__ import annotations

import numpy as np

from sipserver.audio.frame import Samples
from sipserver.speech.loudness import SILENCE, SPEECH, Loudness


def noise(level_db: float, seed: int = 0) -> Samples:
    return (
        (np.random.default_rng(seed).normal(0, 32768 * 10 ** (level_db / 20), 512)).clip(-32768, 32767).astype(np.int16)
    )


def test_speech_stands_out_of_a_quiet_line() -> None:
    loudness = Loudness()
    told = [loudness.judge(noise(level)) for level in (-70, -70, -25, -25, -70)]
    assert told == [SILENCE, SILENCE, SPEECH, SPEECH, SILENCE]


def test_digital_silence_and_nothing_are_silence() -> None:
    loudness = Loudness()
    assert loudness.judge(np.zeros(512, np.int16)) == loudness.judge(np.zeros(0, np.int16)) == SILENCE


def test_a_loud_room_becomes_the_noise_and_a_voice_stands_out_of_it() -> None:
    loudness = Loudness()
    for number in range(600):
        loudness.judge(noise(-35, number))
    assert loudness.judge(noise(-35, 1)) == SILENCE
    assert loudness.judge(noise(-15, 1)) == SPEECH
