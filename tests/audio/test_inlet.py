"""Frames between two clocks: in order, a little late, summed, and never more than a few of them."""

from __future__ import annotations

import numpy as np

from sipserver.audio.frame import FRAME_SAMPLES
from sipserver.audio.inlet import FORGET_S, MOST_FRAMES, WAIT_FRAMES, Inlet, joined


def frame(level: int) -> bytes:
    return np.full(FRAME_SAMPLES, level, np.int16).tobytes()


def level(payload: bytes | None) -> int | None:
    return None if payload is None else int(np.frombuffer(payload, np.int16)[0])


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_frames_come_in_order_once_enough_of_them_wait() -> None:
    inlet, source = Inlet(), object()
    inlet.put(source, frame(1))
    assert inlet.pull() is None
    for number in range(2, WAIT_FRAMES + 2):
        inlet.put(source, frame(number))
    assert [level(inlet.pull()) for _ in range(WAIT_FRAMES + 2)] == [*range(1, WAIT_FRAMES + 2), None]


def test_a_source_that_ran_dry_gathers_again() -> None:
    inlet, source = Inlet(), object()
    for number in range(WAIT_FRAMES):
        inlet.put(source, frame(number))
    for _ in range(WAIT_FRAMES + 1):
        inlet.pull()
    inlet.put(source, frame(7))
    assert inlet.pull() is None
    inlet.put(source, frame(8))
    assert level(inlet.pull()) == 7


def test_too_many_lose_the_oldest() -> None:
    inlet, source = Inlet(), object()
    for number in range(MOST_FRAMES + 3):
        inlet.put(source, frame(number))
    assert inlet.dropped == 3
    assert level(inlet.pull()) == 3


def test_sources_are_summed_and_clipped() -> None:
    inlet, one, other = Inlet(), object(), object()
    for _ in range(WAIT_FRAMES):
        inlet.put(one, frame(100))
        inlet.put(other, frame(23))
    assert level(inlet.pull()) == 123
    loud = Inlet()
    for _ in range(WAIT_FRAMES):
        loud.put(one, frame(30_000))
        loud.put(other, frame(30_000))
    assert level(loud.pull()) == 32_767


def test_sources_that_went_are_forgotten() -> None:
    clock = Clock()
    inlet = Inlet(clock)
    gone = object()
    inlet.put(gone, frame(1))
    clock.now_s += FORGET_S + 1
    inlet.put(object(), frame(2))
    inlet.put(gone, frame(3))
    assert inlet.pull() is None, "the frame from before is forgotten: a source begins again"


def test_either_frame_may_be_missing() -> None:
    assert joined(None, None) is None
    assert level(joined(frame(3), None)) == level(joined(None, frame(3))) == 3
    assert level(joined(frame(3), frame(4))) == 7
