"""The built-in caller's ear: where speech begins and ends, and what is kept around it."""

from __future__ import annotations

import numpy as np

from sipserver.audio.frame import FRAME_MS, Samples
from sipserver.caller import LEAD_IN_MS, PAUSE_MS, Ear

LENGTH = 16 * FRAME_MS


def frames(level: int, duration_ms: int) -> list[Samples]:
    return [np.full(LENGTH, level, np.int16)] * (duration_ms // FRAME_MS)


def hear(ear: Ear, *stretches: list[Samples]) -> None:
    for samples in (frame for stretch in stretches for frame in stretch):
        ear.hear(samples)


def test_a_stretch_keeps_the_soft_sound_before_the_first_loud_frame() -> None:
    ear = Ear()
    hear(ear, frames(0, 1000), frames(40, 100), frames(4000, 500), frames(0, PAUSE_MS))
    heard = ear.stretches.get_nowait()
    assert (heard.start_ms, heard.end_ms) == (1100, 1600)
    assert len(heard.samples) == 16 * (LEAD_IN_MS + 500)
    soft = heard.samples[16 * (LEAD_IN_MS - 100) : 16 * LEAD_IN_MS]
    assert set(soft.tolist()) == {40}


def test_the_pause_after_one_stretch_leads_in_the_next() -> None:
    ear = Ear()
    hear(ear, frames(4000, 100), frames(0, PAUSE_MS - 100), frames(40, 100), frames(5000, 100))
    ear.close()
    first, second = ear.stretches.get_nowait(), ear.stretches.get_nowait()
    assert (first.start_ms, first.end_ms, len(first.samples)) == (0, 100, 16 * 100)
    assert (second.start_ms, second.end_ms) == (100 + PAUSE_MS, 200 + PAUSE_MS)
    assert set(second.samples[16 * (LEAD_IN_MS - 100) : 16 * LEAD_IN_MS].tolist()) == {40}
    assert len(second.samples) == 16 * (LEAD_IN_MS + 100)


def test_a_call_that_begins_with_speech_has_no_lead_in() -> None:
    ear = Ear()
    hear(ear, frames(4000, 60))
    ear.close()
    assert len(ear.stretches.get_nowait().samples) == 16 * 60
