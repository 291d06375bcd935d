"""Rows of tones are busy, a fax, or an announcement's beginning; rows of other tones are nothing."""

from __future__ import annotations

import pytest

from sipserver.audio.cadence import Cadence, Signal, is_fax_answer, is_key, is_progress
from sipserver.audio.tone_watch import Tone


def tone(hz: float, start_ms: int, duration_ms: int, high_hz: float = 0) -> Tone:
    return Tone(hz, high_hz, start_ms, duration_ms, -20, 0, not high_hz)


def row(hz: float, beats: list[tuple[int, int]], high_hz: float = 0) -> list[Tone]:
    """beats: (on_ms, off_ms)."""
    found, at_ms = [], 0
    for on_ms, off_ms in beats:
        found.append(tone(hz, at_ms, on_ms, high_hz))
        at_ms += on_ms + off_ms
    return found


def signals(tones: list[Tone]) -> list[Signal | None]:
    cadence = Cadence()
    return [cadence.hear(each) for each in tones]


@pytest.mark.parametrize(
    ("hz", "high_hz", "on_ms", "off_ms"),
    [
        (425, 0, 480, 480),  # Germany: busy
        (425, 0, 240, 240),  # Germany: congestion
        (425, 0, 200, 200),  # Switzerland: congestion
        (400, 0, 375, 375),  # Britain: busy
        (440, 0, 500, 500),  # France: busy
        (480, 620, 500, 500),  # America: busy
        (480, 620, 250, 250),  # America: congestion
    ],
)
def test_busy_comes_with_the_third_beat(hz: float, high_hz: float, on_ms: int, off_ms: int) -> None:
    assert signals(row(hz, [(on_ms, off_ms)] * 4, high_hz)) == [None, None, Signal.BUSY, Signal.BUSY]
    uneven = [(on_ms + 20, off_ms - 20), (on_ms - 20, off_ms + 20), (on_ms, off_ms)]
    assert signals(row(hz, uneven, high_hz))[-1] is Signal.BUSY


def test_british_congestion_alternates() -> None:
    assert signals(row(400, [(400, 350), (225, 525)] * 3))[3:] == [None, Signal.BUSY, Signal.BUSY]


@pytest.mark.parametrize(
    "beats",
    [[(1000, 4000)] * 6, [(1500, 3500)] * 6, [(2000, 4000)] * 6, [(400, 200), (400, 2000)] * 4],
    ids=["DE", "FR", "US", "GB"],
)
def test_ringing_is_not_busy(beats: list[tuple[int, int]]) -> None:
    assert set(signals(row(425, beats))) == {None}


def test_other_rows_are_nothing() -> None:
    assert set(signals(row(1000, [(480, 480)] * 6))) == {None}
    assert set(signals(row(425, [(200, 200), (480, 300), (700, 500), (130, 700)]))) == {None}
    assert set(signals([tone(425, 0, 480), tone(1000, 960, 480), tone(425, 1920, 480), tone(1000, 2880, 480)])) == {
        None
    }


def test_a_fax_that_calls_is_told_once_and_again() -> None:
    assert signals(row(1100, [(500, 3000)] * 3)) == [Signal.FAX_CALLS, Signal.FAX_CALLS_ON, Signal.FAX_CALLS_ON]
    assert signals(row(1075, [(450, 3300)] * 2)) == [Signal.FAX_CALLS, Signal.FAX_CALLS_ON]
    assert signals(row(1100, [(500, 900)] * 2)) == [Signal.FAX_CALLS, Signal.FAX_CALLS]
    assert signals([tone(1100, 0, 250), tone(1000, 4000, 500)]) == [None, None]


def test_the_answer_of_a_fax_needs_half_a_second() -> None:
    assert is_fax_answer(tone(2100, 0, 500))
    assert is_fax_answer(tone(2112, 0, 2600))
    assert not is_fax_answer(tone(2100, 0, 480))
    assert not is_fax_answer(tone(2000, 0, 2600))


def test_information_tones() -> None:
    three = [tone(950, 0, 330), tone(1400, 330, 330), tone(1800, 660, 330)]
    assert signals(three) == [None, None, Signal.INFORMATION]
    assert signals(three[::-1])[-1] is None
    assert signals([*three[:2], tone(1800, 2000, 330)])[-1] is None
    assert signals([three[0], tone(1400, 330, 1500), tone(1800, 1830, 330)])[-1] is None


def test_keys_and_the_pitch_of_call_progress() -> None:
    assert is_key(tone(697, 0, 100, 1209))
    assert is_key(tone(941, 0, 100, 1633))
    assert not is_key(tone(480, 0, 100, 620))
    assert not is_key(tone(697, 0, 100))
    assert [is_progress(tone(hz, 0, 100)) for hz in (300, 350, 425, 480, 620)] == [False, True, True, True, False]
