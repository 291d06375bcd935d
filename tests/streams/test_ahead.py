"""What lies with the far end: by time, by marks, and after a clear."""

from __future__ import annotations

from sipserver.streams.ahead import Ahead

FRAME = bytes(640)


def test_time_alone() -> None:
    ahead = Ahead()
    for _ in range(4):
        ahead.sent(FRAME)
    assert ahead.unheard(4) == 4
    assert ahead.tick() == FRAME
    assert ahead.unheard(4) == 3
    for _ in range(5):
        ahead.tick()
    assert ahead.unheard(4) == 0
    assert ahead.tick() is None


def test_a_clip_is_not_heard_to_its_end_before_its_mark_is_back() -> None:
    ahead = Ahead()
    for _ in range(3):
        ahead.sent(FRAME)
    name = ahead.mark(3)
    for _ in range(10):
        ahead.tick()
    assert ahead.unheard(3) == 1, "by time all is played, but the far end has not said so"
    assert ahead.returned(name)
    assert ahead.unheard(3) == 0
    assert (ahead.played, ahead.threw) == (1, 0)


def test_a_mark_that_never_comes_is_not_waited_for_for_ever() -> None:
    ahead = Ahead()
    ahead.sent(FRAME)
    ahead.mark(1)
    for _ in range(200):
        ahead.tick()
    assert ahead.unheard(1) == 0
    assert not ahead.lies


def test_a_later_mark_answers_for_an_earlier_one() -> None:
    ahead = Ahead()
    ahead.mark(1)
    name = ahead.mark(2)
    assert ahead.returned(name)
    assert ahead.played == 2
    assert ahead.unheard(2) == 0


def test_what_is_cleared_comes_back_unheard() -> None:
    ahead = Ahead()
    ahead.sent(FRAME)
    name = ahead.mark(1)
    assert ahead.lies
    ahead.cleared()
    assert not ahead.lies
    assert not ahead.returned(name)
    assert (ahead.played, ahead.threw) == (0, 1)
