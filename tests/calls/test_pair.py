"""Two parties' frames side by side: what belongs together, what is lost, and what waits too long."""

from __future__ import annotations

import random

import pytest

from sipserver.audio.frame import Frame
from sipserver.calls.pair import Pair
from tests.fakes.leg import level

MS = 1_000_000


def frame(number: int, late_ms: float = 0.0) -> Frame:
    """The frame of a tick, told by its level."""
    return Frame(level(number), int((number * 20 + late_ms) * MS))


class Heard:
    def __init__(self, bound: int = 10) -> None:
        self.ticks: list[tuple[int, int]] = []
        self.pair = Pair(lambda left, right: self.ticks.append((int(left.samples[0]), int(right.samples[0]))), bound)


def test_frames_of_one_tick_go_together_whoever_is_first() -> None:
    heard = Heard()
    for number in range(1, 5):
        first, second = (heard.pair.left, heard.pair.right) if number % 2 else (heard.pair.right, heard.pair.left)
        first(frame(number))
        assert len(heard.ticks) == number - 1
        second(frame(number, 0.4))
    assert heard.ticks == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_legs_whose_frames_are_told_in_bursts_keep_their_order() -> None:
    heard = Heard()
    for number in range(1, 5):
        heard.pair.left(frame(number))
    for number in range(1, 5):
        heard.pair.right(frame(number, 0.2))
    assert heard.ticks == [(1, 1), (2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize("lost", ["left", "right"])
def test_a_lost_tick_is_silence_of_its_length(lost: str) -> None:
    heard = Heard()
    for number in range(1, 5):
        if (lost, number) != ("left", 3):
            heard.pair.left(frame(number))
        if (lost, number) != ("right", 3):
            heard.pair.right(frame(number))
    assert heard.ticks == [(1, 1), (2, 2), (0, 3) if lost == "left" else (3, 0), (4, 4)]


@pytest.mark.parametrize("silent", ["left", "right"])
def test_a_party_that_says_nothing_holds_the_other_one_up_for_a_while_only(silent: str) -> None:
    heard = Heard(bound=3)
    for number in range(1, 8):
        (heard.pair.right if silent == "left" else heard.pair.left)(frame(number))
    assert heard.ticks == [(0, number) if silent == "left" else (number, 0) for number in range(1, 5)]
    heard.pair.flush()
    assert [max(tick) for tick in heard.ticks] == [1, 2, 3, 4, 5, 6, 7]
    heard.pair.flush()
    assert len(heard.ticks) == 7


def test_a_party_that_comes_back_falls_into_place() -> None:
    heard = Heard(bound=3)
    for number in range(1, 10):
        heard.pair.left(frame(number))
        if number not in (3, 4, 5):
            heard.pair.right(frame(number))
    assert heard.ticks[-4:] == [(6, 6), (7, 7), (8, 8), (9, 9)]
    assert heard.ticks[2:5] == [(3, 0), (4, 0), (5, 0)]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_or_late_no_frame_is_told_twice_or_out_of_place(seed: int) -> None:
    """Both channels stay in step with the clock: a tick that anybody has is told once, at its place."""
    chance = random.Random(seed)
    heard = Heard(bound=5)
    lefts = [number for number in range(1, 200) if chance.random() < 0.9]
    rights = [number for number in range(1, 200) if chance.random() < 0.9]
    expected = sorted({*lefts, *rights})
    waiting = [lefts[:], rights[:]]
    while any(waiting):
        side = chance.randrange(2)
        ahead = min(queue[0] for queue in waiting if queue) + 3
        for _ in range(chance.randrange(4)):
            if waiting[side] and waiting[side][0] <= ahead:
                (heard.pair.left, heard.pair.right)[side](frame(waiting[side].pop(0), chance.uniform(-4, 4)))
    heard.pair.flush()
    assert [max(tick) for tick in heard.ticks] == expected
    assert [tick[0] for tick in heard.ticks if tick[0]] == lefts
    assert [tick[1] for tick in heard.ticks if tick[1]] == rights


@pytest.mark.parametrize("early_or_late_ms", [0.7, 4.0])
@pytest.mark.parametrize("phase_ms", [0.0, 4.0, 9.5, 10.0, 10.5, 15.0, 19.5])
def test_legs_with_clocks_of_their_own_lose_and_gain_nothing(phase_ms: float, early_or_late_ms: float) -> None:
    """Whatever lies between two clocks, and although each is early or late by some milliseconds."""
    chance, heard = random.Random(5), Heard()
    told = []
    for tell, after_ms in ((heard.pair.left, 0.0), (heard.pair.right, phase_ms)):
        for number in range(1, 501):
            late_ms = after_ms + chance.uniform(-early_or_late_ms, early_or_late_ms)
            told.append((number * 20 + late_ms, tell, number))
    for at_ms, tell, number in sorted(told, key=lambda each: each[0]):
        tell(Frame(level(number), int(at_ms * MS)))
    heard.pair.flush()
    assert len(heard.ticks) <= 502
    assert [left for left, _ in heard.ticks if left] == list(range(1, 501))
    assert [right for _, right in heard.ticks if right] == list(range(1, 501))
