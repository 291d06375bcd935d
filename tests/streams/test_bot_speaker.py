"""What a bot has said and the caller has not heard yet, on a media clock that the test turns."""

from __future__ import annotations

import audioop
import itertools
from collections.abc import Callable

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES, SILENCE_PAYLOAD, Samples
from sipserver.audio.playout import Playout
from sipserver.streams.bots.speaker import AHEAD_S, MARKS, Speaker
from sipserver.streams.contract import WireFormat
from sipserver.streams.wire import frame_bytes


class Clock:
    """A caller who hears a bot: `turn` is 20 ms."""

    def __init__(self, wire: WireFormat = "l16_16", ahead_s: float = AHEAD_S) -> None:
        self.playout = Playout()
        self.told: list[tuple[str, bool]] = []
        self.drained = 0
        self.heard: list[Samples] = []
        self.speaker = Speaker(
            self.playout, wire, lambda name, played: self.told.append((name, played)), self._drains, ahead_s=ahead_s
        )

    def turn(self, count: int = 1) -> None:
        for _ in range(count):
            self.heard.append(np.frombuffer(self.playout.pull() or SILENCE_PAYLOAD, np.int16))
            self.playout.tick()
            self.speaker.tick()

    def until(self, condition: Callable[[], bool], most: int = 10_000) -> int:
        """Turns until something holds."""
        for turn in range(most):
            if condition():
                return turn
            self.turn()
        raise AssertionError("it never holds")

    @property
    def sound(self) -> Samples:
        return np.concatenate(self.heard) if self.heard else np.zeros(0, np.int16)

    def _drains(self) -> None:
        self.drained += 1


def ramp(frames: float, start: int = 1) -> bytes:
    return np.arange(start, start + int(frames * FRAME_SAMPLES), dtype="<i2").tobytes()


@pytest.fixture
async def clock() -> Clock:
    return Clock()


async def test_sound_is_heard_sample_for_sample_however_it_was_cut(clock: Clock) -> None:
    payload = ramp(20)
    cuts = [0, 2, 644, 646, 5000, 5002, len(payload)]
    for start, end in itertools.pairwise(cuts):
        assert clock.speaker.sound(payload[start:end])
    clock.turn(20)
    assert clock.sound.tobytes() == payload
    assert clock.speaker.heard_ms == 400


async def test_the_first_frame_is_there_at_once(clock: Clock) -> None:
    clock.speaker.sound(ramp(1))
    clock.turn()
    assert clock.sound.tobytes() == ramp(1)


async def test_two_minutes_in_one_piece_are_heard_to_their_end_and_no_more() -> None:
    clock = Clock("mulaw8")
    two_minutes = audioop.lin2ulaw(np.full(8000 * 120, 8_000, np.int16).tobytes(), 2)
    assert clock.speaker.sound(two_minutes)
    assert not clock.speaker.sound(two_minutes)
    clock.speaker.mark("end")
    turns = clock.until(lambda: bool(clock.told))
    assert 6000 <= turns <= 6011
    assert clock.speaker.heard_ms == 20 * turns
    assert clock.speaker.dropped_bytes >= len(two_minutes) - 160 * 10


@pytest.mark.parametrize("wire", ["mulaw8", "l16_8", "l16_16", "l16_24"])
async def test_what_does_not_fit_is_dropped_and_counted(wire: WireFormat) -> None:
    clock = Clock(wire, ahead_s=1)
    frame = bytes([200]) * frame_bytes(wire)
    assert sum([clock.speaker.sound(frame) for _ in range(80)]) in (60, 61)
    assert clock.speaker.dropped_bytes == pytest.approx(20 * frame_bytes(wire), abs=frame_bytes(wire))
    assert clock.speaker.waiting_frames == pytest.approx(60, abs=1)


async def test_a_mark_comes_when_all_before_it_was_heard(clock: Clock) -> None:
    clock.speaker.sound(ramp(3))
    clock.speaker.mark("a")
    clock.speaker.sound(ramp(30))
    clock.speaker.mark("b")
    assert clock.until(lambda: clock.told == [("a", True)]) == 3
    assert clock.until(lambda: clock.told == [("a", True), ("b", True)]) == 30


async def test_a_mark_with_nothing_before_it_comes_at_once(clock: Clock) -> None:
    clock.speaker.mark("now")
    assert clock.told == [("now", True)]


async def test_a_mark_inside_of_a_frame_waits_for_it_and_makes_no_gap(clock: Clock) -> None:
    payload = ramp(2)
    clock.speaker.sound(payload[:100])
    clock.speaker.mark("a")
    clock.speaker.sound(payload[100:])
    clock.turn(2)
    assert clock.told == [("a", True)]
    assert clock.sound.tobytes() == payload


async def test_the_last_part_of_a_frame_is_heard_after_a_while(clock: Clock) -> None:
    clock.speaker.sound(ramp(1.5))
    clock.speaker.mark("end")
    clock.until(lambda: bool(clock.told), 10)
    heard = clock.sound
    assert heard[heard != 0].tobytes() == ramp(1.5)


async def test_a_mark_that_pads_does_so_at_once(clock: Clock) -> None:
    clock.speaker.sound(ramp(0.5))
    clock.speaker.mark("end", pad=True)
    clock.turn()
    assert clock.told == [("end", True)]
    assert clock.sound[: FRAME_SAMPLES // 2].tobytes() == ramp(0.5)


async def test_clear_takes_everything_and_tells_the_marks(clock: Clock) -> None:
    clock.speaker.sound(ramp(5))
    clock.speaker.mark("a")
    clock.speaker.sound(ramp(50))
    clock.speaker.mark("b")
    clock.turn(6)
    clock.speaker.clear()
    assert clock.told == [("a", True), ("b", False)]
    assert clock.speaker.idle
    before = len(clock.heard)
    clock.turn(3)
    assert not np.concatenate(clock.heard[before:]).any()
    assert clock.speaker.heard_ms == 120
    clock.speaker.sound(ramp(2, 7))
    clock.turn(2)
    assert np.concatenate(clock.heard[-2:]).tobytes() == ramp(2, 7)
    assert clock.speaker.heard_ms == 160


async def test_a_pause_keeps_what_is_there(clock: Clock) -> None:
    clock.speaker.sound(ramp(4))
    clock.turn()
    clock.speaker.pause(True)
    clock.turn(5)
    clock.speaker.sound(ramp(1, 9))
    clock.speaker.pause(False)
    clock.turn(4)
    heard = clock.sound
    assert heard[heard != 0].tobytes() == ramp(4) + ramp(1, 9)


async def test_drained_is_told_once(clock: Clock) -> None:
    clock.speaker.sound(ramp(2))
    clock.speaker.watch_drain()
    clock.turn()
    assert clock.drained == 0
    clock.turn(3)
    assert clock.drained == 1
    clock.speaker.watch_drain()
    assert clock.drained == 2


async def test_marks_have_a_bound(clock: Clock) -> None:
    clock.speaker.sound(ramp(1))
    assert all(clock.speaker.mark(str(number)) for number in range(MARKS))
    assert not clock.speaker.mark("one more")
    clock.turn()
    assert len(clock.told) == MARKS
    assert clock.speaker.mark("again")


async def test_stop_leaves_the_playout_to_others(clock: Clock) -> None:
    clock.speaker.sound(ramp(20))
    clock.speaker.mark("a")
    clock.speaker.pause(True)
    clock.speaker.stop()
    assert clock.told == []
    clip = clock.playout.begin("other")
    clip.write_now(np.full(FRAME_SAMPLES, 5, np.int16))
    clip.finish()
    clock.turn()
    assert (clock.heard[-1] == 5).all()
