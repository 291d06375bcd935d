"""In-band digits, and who hears the caller."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio import tones
from sipserver.audio.frame import FRAME_SAMPLES, Samples
from sipserver.events import DigitReceived, VariableSet
from tests.calls.conftest import Stage
from tests.fakes.leg import FakeLeg

ASK = "  main: [{collect: {digits: 2, timeout_s: 5, on: {none: end, other: end}}}]"


def keyed(digits: str) -> list[Samples]:
    """The frames of keys of 100 ms with gaps of 100 ms."""
    silence = np.zeros(1_600, np.int16)
    parts: list[Samples] = []
    for digit in digits:
        parts += [tones.digit(digit, 100), silence]
    joined = np.concatenate(parts)
    return [joined[start : start + FRAME_SAMPLES] for start in range(0, len(joined), FRAME_SAMPLES)]


async def send(leg: FakeLeg, frames: list[Samples]) -> None:
    for frame in frames:
        await leg.ticks(1, frame)


async def test_tones_are_digits_when_the_leg_has_no_others(stage: Stage) -> None:
    leg, _ = stage.call(ASK, FakeLeg(wants_inband_digits=True))
    await stage.until(lambda: leg.media, leg)
    await send(leg, keyed("4#"))
    await stage.ended(leg)
    digits = stage.records.of(DigitReceived)
    assert [(event.digit, event.method) for event in digits] == [("4", "inband"), ("#", "inband")]
    assert all(80 <= event.duration_ms <= 120 for event in digits)
    assert [event.value for event in stage.records.of(VariableSet)] == ["4"]


async def test_a_leg_is_heard_only_while_somebody_wants_its_sound(stage: Stage) -> None:
    leg, _ = stage.call("  main: [{wait: 0.05}, record, {wait: 0.05}, {record: stop}, {wait: 0.05}, {echo: 60}]")
    states: list[bool] = [leg.heard]

    def looping() -> bool:
        if states[-1] != leg.heard:
            states.append(leg.heard)
        return leg.looped

    await stage.until(looping, leg)
    assert states == [True, False, True, False]
    leg.peer_leaves()
    await stage.ended(leg)


async def test_a_leg_without_events_for_digits_is_heard_for_their_tones(stage: Stage) -> None:
    leg, _ = stage.call("  main: [answer, {wait: 60}]", FakeLeg(wants_inband_digits=True))
    await stage.until(lambda: leg.media, leg)
    assert leg.heard
    leg.wants_inband_digits = False
    leg.press("1")  # by INFO, say: from now on the tones are sound
    assert not leg.heard
    leg.peer_leaves()
    await stage.ended(leg)


@pytest.mark.parametrize(("wants", "inband"), [(False, True), (True, False)])
async def test_tones_are_sound_otherwise(stage: Stage, wants: bool, inband: bool) -> None:
    leg, _ = stage.call("  main: [{echo: 60}]", FakeLeg(wants_inband_digits=wants), inband_digits=inband)
    await stage.until(lambda: leg.media, leg)
    await send(leg, keyed("4"))
    leg.peer_leaves()
    await stage.ended(leg)
    assert stage.records.of(DigitReceived) == []
