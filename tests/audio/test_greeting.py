"""Bursts above the noise are words, with their length and the silence after them."""

from __future__ import annotations

import numpy as np

from sipserver.audio.greeting import Greeting, Levels, greeting_in


def levels(*parts: tuple[int, float], noise_db: float = 0.0) -> Levels:
    """parts: (ms, dBFS)."""
    plain = np.concatenate([np.full(ms // 20, dbfs, np.float32) for ms, dbfs in parts])
    return (plain + np.random.default_rng(3).normal(size=len(plain)) * noise_db).astype(np.float32)


def syllables(ms: int, dbfs: float) -> tuple[tuple[int, float], ...]:
    """Speech is nowhere steady."""
    return tuple((20, dbfs - 6 * (number % 3)) for number in range(ms // 20))


def said(heard: Levels, toned: np.ndarray | None = None, quietest_dbfs: float = -50) -> Greeting:
    marks = np.zeros(len(heard), np.bool_) if toned is None else toned
    return greeting_in(heard, marks, min_word_ms=100, between_words_ms=60, quietest_dbfs=quietest_dbfs)


def test_words_their_lengths_and_the_silence() -> None:
    heard = levels((400, -70), *syllables(300, -25), (200, -70), *syllables(500, -22), (800, -70))
    found = said(heard)
    assert (found.words, found.start_ms, found.end_ms, found.longest_ms) == (2, 400, 1400, 500)
    assert (found.duration_ms, found.silence_ms) == (1000, 800)
    assert found.contrast_db > 30


def test_nothing_was_said() -> None:
    assert said(levels((2000, -100))) == Greeting()
    assert said(levels((2000, -75), noise_db=1)) == Greeting()
    assert said(np.zeros(0, np.float32)) == Greeting()


def test_steady_noise_is_no_word_whenever_it_begins() -> None:
    assert said(levels((3000, -40), noise_db=0.5)).words == 0
    assert said(levels((800, -100), (2000, -40), noise_db=0.5)).words == 0
    assert said(levels((800, -60), (2000, -40), noise_db=0.5)).words == 0


def test_words_are_found_above_noise() -> None:
    heard = levels((500, -38), *syllables(600, -18), (800, -38), noise_db=0.5)
    found = said(heard)
    assert (found.words, found.start_ms, found.silence_ms) == (1, 500, 800)


def test_what_begins_with_the_first_frame_is_found_when_it_ends() -> None:
    heard = levels(*syllables(400, -20), (400, -60))
    assert (said(heard).start_ms, said(heard).end_ms) == (0, 400)


def test_clicks_and_short_gaps_do_not_count() -> None:
    assert said(levels((400, -70), (60, -20), (400, -70))).words == 0
    heard = levels((400, -70), *syllables(200, -20), (40, -70), *syllables(200, -20), (400, -70))
    assert said(heard).words == 1


def test_a_murmur_far_below_the_voice_is_silence() -> None:
    murmur = [(60, -49.0), (100, -58.0)] * 6
    assert said(levels((400, -70), *syllables(400, -20), *murmur)).silence_ms >= 900


def test_the_quietest_voice_is_a_parameter() -> None:
    heard = levels((400, -75), *syllables(400, -46), (400, -75))
    assert said(heard).words == 1
    assert said(heard, quietest_dbfs=-40).words == 0


def test_tones_are_no_words() -> None:
    heard = levels((400, -70), (500, -20), (400, -70), *syllables(300, -20), (400, -70))
    toned = np.zeros(len(heard), np.bool_)
    toned[19:46] = True
    assert (said(heard, toned).words, said(heard, toned).start_ms) == (1, 1300)
