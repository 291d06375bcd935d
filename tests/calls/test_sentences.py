"""Where a sentence begins and ends, by its energy."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_MS, RATE_HZ, Frame, Samples
from sipserver.calls.sentences import LONGEST_MS, PAUSE_MS, PRE_ROLL_MS, Sentences
from tests.fakes.engines import loud

QUIET = np.zeros(RATE_HZ * FRAME_MS // 1000, np.int16)


def heard(*parts: tuple[bool, int]) -> list[int]:
    """Milliseconds of every sentence in parts of (sound, milliseconds)."""
    sentences, found = Sentences(), []
    for sound, length_ms in parts:
        for _ in range(length_ms // FRAME_MS):
            said = sentences.hear(Frame(loud(FRAME_MS) if sound else QUIET, 0))
            if said is not None:
                found.append(len(said) * 1000 // RATE_HZ)
    return found


def test_a_sentence_has_its_beginning_and_ends_with_a_pause() -> None:
    assert heard((False, 2_000), (True, 400), (False, 2_000)) == [PRE_ROLL_MS + 400 + PAUSE_MS]


def test_a_breath_within_it_does_not_end_it() -> None:
    assert heard((True, 400), (False, 600), (True, 400), (False, 2_000)) == [1_400 + PAUSE_MS]


def test_two_sentences() -> None:
    assert len(heard((True, 400), (False, 900), (True, 400), (False, 900))) == 2


@pytest.mark.parametrize(("sound_ms", "said"), [(40, 0), (80, 0), (100, 1)])
def test_a_click_is_none(sound_ms: int, said: int) -> None:
    assert len(heard((False, 500), (True, sound_ms), (False, 2_000))) == said


def test_one_that_does_not_end_is_given_out_in_parts() -> None:
    assert heard((True, 3 * LONGEST_MS)) == [LONGEST_MS] * 3


def test_silence_says_nothing() -> None:
    assert heard((False, 60_000)) == []


def test_the_sound_is_that_of_the_sentence() -> None:
    sentences = Sentences()
    said: Samples | None = None
    for number in range(200):
        sound = np.full(len(QUIET), 5_000 + number, np.int16) if 20 <= number < 40 else QUIET
        said = sentences.hear(Frame(sound, 0)) if said is None else said
    assert said is not None
    assert sorted(set(said.tolist())) == [0, *range(5_020, 5_040)]
