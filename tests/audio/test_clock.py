"""The clock of all streams: who is told, how often, and what a late loop does."""

from __future__ import annotations

import asyncio
import time

from sipserver.audio import clock as clocks
from sipserver.audio.clock import PHASES, LegClock
from tests.fakes.until import until


async def test_legs_are_spread_and_told_alike() -> None:
    clock, told = LegClock(), [0] * (2 * PHASES)

    def counting(index: int) -> clocks.Tick:
        def tick() -> None:
            told[index] += 1

        return tick

    for index in range(len(told)):
        clock.join(index, counting(index))
    assert [len(phase) for phase in clock._ticks] == [2] * PHASES
    await until(lambda: min(told) >= 10)
    assert max(told) - min(told) <= 1
    for index in range(len(told)):
        clock.leave(index)
    assert clock.legs == 0
    stopped = list(told)
    await asyncio.sleep(0.05)
    assert told == stopped


async def test_the_pace_is_that_of_the_wall() -> None:
    clock, told = LegClock(), list[float]()
    clock.join("leg", lambda: told.append(time.monotonic()))
    await until(lambda: len(told) >= 50)
    clock.leave("leg")
    pace = (told[-1] - told[0]) / (0.02 * (len(told) - 1))
    assert pace >= 0.8
    assert pace <= 1.5 or clock.missed


async def test_a_short_stop_is_caught_up_and_a_long_one_left_out() -> None:
    clock, told = LegClock(), list[float]()
    clock.join("leg", lambda: told.append(time.monotonic()))
    await until(lambda: bool(told))
    time.sleep(0.1)  # noqa: ASYNC251 - the loop stands still: that is the case
    await until(lambda: len(told) >= 7)
    assert clock.missed == 0
    time.sleep(0.5)  # noqa: ASYNC251
    await until(lambda: clock.missed > 0)
    clock.leave("leg")


async def test_one_that_breaks_does_not_stop_the_others() -> None:
    clock, told = LegClock(), list[float]()
    clock.join("broken", lambda: told.remove(99))
    clock.join("leg", lambda: told.append(1))
    await until(lambda: len(told) >= 3)
    for leg in ("broken", "leg"):
        clock.leave(leg)
