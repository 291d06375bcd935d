"""Several parties' frames tick by tick: what each heard, who is late, who is lost, who is muted."""

from __future__ import annotations

import random

import pytest

from sipserver.audio.frame import Frame
from sipserver.calls.mix import Mix
from tests.fakes.leg import level

MS = 1_000_000


def frame(tick: int, value: int, late_ms: float = 0.0) -> Frame:
    return Frame(level(value), int((tick * 20 + late_ms) * MS))


class Heard:
    """told: (who, what they said, what they heard) in order."""

    def __init__(self, *who: str, bound: int = 10) -> None:
        self.told: list[tuple[str, int, int]] = []
        self.muted: set[str] = set()
        self.mix: Mix[str] = Mix(self._take, lambda who: who not in self.muted, bound)
        for each in who:
            self.mix.add(each)

    def _take(self, who: str, said: Frame, heard: Frame) -> None:
        self.told.append((who, int(said.samples[0]), int(heard.samples[0])))

    def of(self, who: str) -> list[tuple[int, int]]:
        return [(said, heard) for each, said, heard in self.told if each == who]


def test_each_hears_the_others_and_what_we_play_to_them() -> None:
    heard = Heard("ann", "ben", "cy")
    for tick in range(3):
        heard.mix.hear("ann", frame(tick, 1), frame(tick, 1000))
        heard.mix.hear("ben", frame(tick, 20, 0.3), frame(tick, 0))
        assert len(heard.told) == 3 * tick
        heard.mix.hear("cy", frame(tick, 300, 0.6), frame(tick, 0))
    assert heard.of("ann") == [(1, 1320)] * 3
    assert heard.of("ben") == [(20, 301)] * 3
    assert heard.of("cy") == [(300, 21)] * 3


def test_frames_told_in_bursts_find_their_ticks() -> None:
    heard = Heard("ann", "ben")
    for tick in range(5):
        heard.mix.hear("ann", frame(tick, tick), frame(tick, 0))
    for tick in range(5):
        heard.mix.hear("ben", frame(tick, 100 * tick, -0.4), frame(tick, 0))
    assert heard.of("ann") == [(tick, 100 * tick) for tick in range(5)]
    assert heard.of("ben") == [(100 * tick, tick) for tick in range(5)]


def test_whoever_sends_nothing_is_silent_and_holds_nobody_up_for_long() -> None:
    heard = Heard("ann", "ben", bound=3)
    for tick in range(6):
        heard.mix.hear("ann", frame(tick, 7), frame(tick, 0))
    assert heard.of("ann") == [(7, 0)] * 3
    assert heard.of("ben") == [(0, 7)] * 3
    heard.mix.flush()
    assert len(heard.of("ben")) == 6


def test_the_muted_are_kept_out_of_everything() -> None:
    heard = Heard("ann", "ben")
    heard.muted.add("ann")
    heard.mix.hear("ann", frame(0, 7), frame(0, 0))
    heard.mix.hear("ben", frame(0, 50), frame(0, 0))
    assert heard.told.count(("ann", 0, 50)) == 1
    assert heard.told.count(("ben", 50, 0)) == 1


def test_loud_voices_are_clipped_and_do_not_wrap() -> None:
    heard = Heard("ann", "ben", "cy")
    for who in ("ann", "ben", "cy"):
        heard.mix.hear(who, frame(0, 30_000), frame(0, 0))
    assert heard.of("ann") == [(30_000, 32_767)]


def test_what_was_said_before_somebody_goes_is_told_first() -> None:
    heard = Heard("ann", "ben")
    heard.mix.hear("ben", frame(0, 5), frame(0, 0))
    heard.mix.remove("ben")
    assert sorted(heard.told) == [("ann", 0, 5), ("ben", 5, 0)]
    heard.mix.hear("ann", frame(1, 3), frame(1, 0))
    assert heard.told[-1] == ("ann", 3, 0)


def test_two_frames_of_one_tick_are_two_ticks() -> None:
    heard = Heard("ann")
    heard.mix.hear("ann", frame(0, 1), frame(0, 0))
    heard.mix.hear("ann", frame(0, 2, 1), frame(0, 0))
    assert heard.of("ann") == [(1, 0), (2, 0)]


@pytest.mark.parametrize("early_or_late_ms", [0.7, 4.0])
@pytest.mark.parametrize("phase_ms", [0.0, 4.0, 9.5, 10.0, 10.5, 15.0, 19.5])
def test_a_room_of_two_clocks_loses_and_gains_nothing(phase_ms: float, early_or_late_ms: float) -> None:
    """Ann and Ben share a clock, Cy has another; each is early or late by some milliseconds."""
    chance, heard = random.Random(7), Heard("ann", "ben", "cy")
    told: list[tuple[float, str, int]] = []
    for who, late_ms in (("ann", 0.0), ("ben", 0.0), ("cy", phase_ms)):
        told += [
            (number * 20 + late_ms + chance.uniform(-early_or_late_ms, early_or_late_ms), who, number)
            for number in range(1, 501)
        ]
    for at_ms, who, number in sorted(told):
        heard.mix.hear(who, Frame(level(number), int(at_ms * MS)), Frame(level(0), int(at_ms * MS)))
    heard.mix.flush()
    for who in ("ann", "ben", "cy"):
        assert len(heard.of(who)) <= 502
        assert [said for said, _ in heard.of(who) if said] == list(range(1, 501))
