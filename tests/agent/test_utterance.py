"""The caller's samples: pre-roll, bound, and what stays for the next turn."""

from __future__ import annotations

import numpy as np

from sipserver.agent.utterance import Utterance
from sipserver.audio.frame import FRAME_SAMPLES, Frame

MS = 1_000_000


def frames(count: int, first: int = 0) -> list[Frame]:
    """Frames whose samples are their number, 20 ms apart."""
    return [Frame(np.full(FRAME_SAMPLES, first + n, np.int16), (first + n) * 20 * MS) for n in range(count)]


def numbers(utterance: Utterance) -> list[int]:
    return [int(number) for number in utterance.samples()[::FRAME_SAMPLES]]


def test_it_begins_with_the_pre_roll() -> None:
    utterance = Utterance(pre_roll_ms=300)
    for frame in frames(100):
        utterance.hear(frame)
    utterance.begin(90 * 20 * MS)
    utterance.hear(frames(1, 100)[0])
    assert numbers(utterance) == list(range(75, 101))
    assert utterance.audio_ms == 26 * 20


def test_before_a_voice_there_is_nothing() -> None:
    utterance = Utterance()
    for frame in frames(10):
        utterance.hear(frame)
    assert len(utterance.samples()) == 0
    assert utterance.audio_ms == 0
    assert not utterance.begun


def test_while_nobody_speaks_little_is_kept() -> None:
    utterance = Utterance(pre_roll_ms=300)
    for frame in frames(1000):
        utterance.hear(frame)
    utterance.begin(0)
    assert utterance.audio_ms == 1500


def test_the_oldest_go_when_a_turn_is_too_long() -> None:
    utterance = Utterance(max_s=1)
    utterance.begin(0)
    for frame in frames(60):
        utterance.hear(frame)
    assert numbers(utterance) == list(range(10, 60))


def test_a_second_beginning_changes_nothing() -> None:
    utterance = Utterance()
    for frame in frames(20):
        utterance.hear(frame)
    utterance.begin(0)
    utterance.begin(15 * 20 * MS)
    assert numbers(utterance) == list(range(20))


def test_after_a_drop_the_last_frames_are_pre_roll_again() -> None:
    utterance = Utterance(pre_roll_ms=100)
    utterance.begin(0)
    for frame in frames(200):
        utterance.hear(frame)
    utterance.drop()
    assert len(utterance.samples()) == 0
    utterance.begin(200 * 20 * MS)
    assert numbers(utterance) == list(range(195, 200))
