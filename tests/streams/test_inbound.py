"""The jitter buffer of streams, in virtual time: steady clocks, drifting ones, bursts, gaps."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES, RATE_HZ, Samples
from sipserver.streams.inbound import MOST_MS, WAIT_MS, Inbound


def tone(seconds: float, hz: float = 200.0) -> Samples:
    samples: Samples = (8000 * np.sin(2 * np.pi * hz * np.arange(int(RATE_HZ * seconds)) / RATE_HZ)).astype(np.int16)
    return samples


def run(inbound: Inbound, sound: Samples, *, speed: float = 1.0, chunk: int = FRAME_SAMPLES) -> list[Samples | None]:
    """The peer sends the sound in chunks by a clock that runs `speed` times as fast as ours; one frame a tick."""
    heard, at, ticks = [], 0, int(len(sound) / FRAME_SAMPLES / speed)
    for tick in range(ticks):
        due = int((tick + 1) * FRAME_SAMPLES * speed)
        while at + chunk <= due and at + chunk <= len(sound):
            inbound.put(sound[at : at + chunk])
            at += chunk
        heard.append(inbound.pull())
    return heard


def steps(frames: list[Samples | None]) -> int:
    """The largest step between two samples: a click is a large one."""
    sound = np.concatenate([frame for frame in frames if frame is not None])
    return int(np.abs(np.diff(sound.astype(int))).max())


@pytest.mark.parametrize("chunk", [160, 320, 480, 1600])
def test_what_comes_in_any_chunks_is_heard_whole(chunk: int) -> None:
    sound = tone(4)
    heard = [
        frame
        for frame in run(Inbound(wait_ms=200 if chunk > 640 else WAIT_MS), sound, chunk=chunk)
        if frame is not None
    ]
    whole = np.concatenate(heard)
    assert np.array_equal(whole, sound[: len(whole)])
    assert len(whole) > len(sound) - RATE_HZ // 2


def test_nothing_is_heard_before_enough_waits() -> None:
    inbound = Inbound()
    inbound.put(tone(0.02))
    assert inbound.pull() is None
    inbound.put(tone(0.02))
    assert inbound.pull() is not None


@pytest.mark.parametrize("speed", [1.005, 0.995])
def test_half_a_percent_of_drift_is_not_heard(speed: float) -> None:
    inbound, sound = Inbound(), tone(120)
    heard = run(inbound, sound, speed=speed)
    begun = heard[10:]
    assert all(frame is not None for frame in begun)
    assert steps(heard) < steps([sound]) * 3
    assert inbound.waiting_ms < 120
    assert inbound.drift_ppm == pytest.approx((speed - 1) * 1e6, abs=400)
    assert inbound.concealed < len(heard) * 0.01


def test_a_sender_that_is_twice_too_fast_is_cut_and_counted() -> None:
    inbound = Inbound()
    run(inbound, tone(20), speed=2.0)
    assert inbound.waiting_ms <= MOST_MS
    assert inbound.discarded > 200


def test_a_sender_that_is_twice_too_slow_is_made_up_for_and_counted() -> None:
    inbound = Inbound()
    heard = run(inbound, tone(10), speed=0.5)
    assert inbound.concealed > 100
    assert inbound.drift_ppm is None, "that is no drift"
    assert steps(heard) < 32_768


def test_a_gap_fades_and_goes_on_without_a_click() -> None:
    inbound, sound = Inbound(), tone(1)
    heard = run(inbound, sound)
    heard += [inbound.pull() for _ in range(10)]
    assert heard[-1] is None, "silence after a gap that was long"
    heard += run(inbound, sound)
    assert steps(heard) < steps([sound]) * 4


def test_a_burst_waits_and_is_worked_off() -> None:
    inbound, sound = Inbound(), tone(30)
    inbound.put(sound[: RATE_HZ // 2])
    for start in range(RATE_HZ // 2, len(sound) - 320, FRAME_SAMPLES):
        inbound.pull()
        inbound.put(sound[start : start + FRAME_SAMPLES])
    assert inbound.waiting_ms < 200
