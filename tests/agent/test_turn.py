"""The turn taker on made-up probabilities, chunk by chunk."""

from __future__ import annotations

import pytest

from sipserver.agent.turn import (
    CHUNK_NS,
    Decision,
    Dismissed,
    Ended,
    Onset,
    TurnRules,
    TurnState,
    TurnTaker,
    VoiceBegan,
    VoicePaused,
    WentOn,
)

RULES = TurnRules(end_silence_ms=400, speculate_after_ms=120, min_voice_ms=96, max_turn_s=30)
VOICE, SILENCE, UNSURE = 0.9, 0.1, 0.42


class Listener:
    """Steps a turn taker with chunks of 32 ms and remembers what was decided in which chunk."""

    def __init__(self, rules: TurnRules = RULES) -> None:
        self.taker = TurnTaker(rules)
        self.chunk = 0
        self.decided: list[tuple[int, Decision]] = []

    def hear(self, probability: float, chunks: int) -> list[Decision]:
        new: list[Decision] = []
        for _ in range(chunks):
            self.chunk += 1
            decision = self.taker.step(probability, self.chunk * CHUNK_NS)
            if decision is not None:
                new.append(decision)
                self.decided.append((self.chunk, decision))
        return new


def test_a_turn_from_the_first_loud_chunk_to_its_end() -> None:
    caller = Listener()
    caller.hear(SILENCE, 10)
    caller.hear(VOICE, 20)
    caller.hear(SILENCE, 20)
    assert caller.decided == [
        (11, Onset(10 * CHUNK_NS, VOICE)),
        (13, VoiceBegan(10 * CHUNK_NS, VOICE)),
        (34, VoicePaused(silence_ms=128, voiced_ms=640)),
        (43, Ended("silence", silence_ms=416, voiced_ms=640, voice_end_ns=30 * CHUNK_NS)),
    ]


def test_a_click_is_dismissed_with_the_first_silent_chunk() -> None:
    caller = Listener()
    assert caller.hear(VOICE, 2) == [Onset(0, VOICE)]
    assert caller.hear(SILENCE, 1) == [Dismissed(voiced_ms=64)]
    assert caller.taker.state is TurnState.QUIET
    assert caller.hear(SILENCE, 30) == []


def test_going_on_within_the_pause_and_then_ending() -> None:
    caller = Listener()
    caller.hear(VOICE, 10)
    assert caller.hear(SILENCE, 6) == [VoicePaused(128, 320)]
    assert caller.hear(VOICE, 1) == [WentOn(silence_ms=192)]
    caller.hear(VOICE, 4)
    ended = caller.hear(SILENCE, 13)[-1]
    assert isinstance(ended, Ended)
    assert ended.voiced_ms == 480


def test_a_breath_shorter_than_the_speculation_is_no_decision() -> None:
    caller = Listener()
    caller.hear(VOICE, 10)
    assert caller.hear(SILENCE, 3) == []
    assert caller.hear(VOICE, 5) == []


@pytest.mark.parametrize(("before", "counts_as"), [(VOICE, "voice"), (SILENCE, "silence")])
def test_between_the_thresholds_nothing_changes(before: float, counts_as: str) -> None:
    caller = Listener()
    caller.hear(VOICE, 10)
    caller.hear(before, 1)
    decisions = caller.hear(UNSURE, 12)
    if counts_as == "voice":
        assert decisions == []
        assert caller.taker.voiced_ms == 23 * 32
    else:
        assert [type(decision) for decision in decisions] == [VoicePaused, Ended]


def test_uncertainty_alone_starts_nothing() -> None:
    assert Listener().hear(UNSURE, 100) == []


def test_a_turn_without_end_is_ended() -> None:
    caller = Listener(TurnRules(400, 120, 96, max_turn_s=2))
    ended = caller.hear(VOICE, 63)[-1]
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.silence_ms) == ("max_turn", 0)
    assert caller.hear(VOICE, 1) == [Onset(63 * CHUNK_NS, VOICE)]


def test_when_the_end_comes_no_later_than_the_speculation_there_is_only_the_end() -> None:
    caller = Listener(TurnRules(100, 100, 96, 30))
    caller.hear(VOICE, 10)
    assert [type(decision) for decision in caller.hear(SILENCE, 10)] == [Ended]


def test_in_a_hurry_the_pause_is_reported_sooner() -> None:
    caller = Listener()
    caller.taker.hurry(64)
    caller.hear(VOICE, 10)
    assert caller.hear(SILENCE, 2) == [VoicePaused(64, 320)]
    caller.taker.hurry(None)
    caller.hear(VOICE, 5)
    assert caller.hear(SILENCE, 3) == []


def test_reset_forgets_the_turn() -> None:
    caller = Listener()
    caller.hear(VOICE, 10)
    caller.taker.reset()
    assert caller.hear(SILENCE, 30) == []
    assert caller.taker.voiced_ms == 0


def test_chunks_that_are_missing_do_not_shorten_the_silence() -> None:
    """The clock decides, not the number of chunks: sound may be lost."""
    taker = TurnTaker(RULES)
    for number in range(1, 11):
        taker.step(VOICE, number * CHUNK_NS)
    ended = taker.step(SILENCE, 10 * CHUNK_NS + 500_000_000)
    assert isinstance(ended, Ended)
    assert ended.silence_ms == 500
