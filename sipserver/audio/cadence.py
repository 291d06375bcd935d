"""Which signal a row of tones is: busy or congestion, a fax, the tones before an announcement of the network.

Owns rhythm and pitch. The tones themselves are heard by `tone_watch`; what a signal means for a call is for others to
say. Knows no country: ringing, busy and dial tones have a pitch between 340 and 500 Hz (425 in most of Europe, 440 in
France, 400 in Britain, 480 with 620 in America; ITU-T E.180 supplement 2). Busy and congestion are short and even
beats, ringing comes long apart.
"""

from __future__ import annotations

import enum
import itertools
from collections import deque

from sipserver.audio.tone_watch import Tone

_LOWEST_HZ, _HIGHEST_HZ = 340.0, 500.0
_BEAT_MS = (120, 820)
"""Both the tone and the pause of a busy or congestion signal."""
_ALIKE_MS, _ALIKE_PART = 50, 0.15
_SAME_HZ = 15.0

_CED_HZ, _CED_WITHIN_HZ, _CED_MS = 2100.0, 20.0, 500
"""T.30: 2100 +-15 Hz for 2.6-4 s; V.8 turns its phase every 450 ms and sways its level at 15 Hz."""
_CNG_HZ, _CNG_WITHIN_HZ, _CNG_MS = 1100.0, 42.0, (400, 650)
"""T.30: 1100 +-38 Hz, 0.5 s on and 3 s off, both +-15 %."""
_CNG_PERIOD_MS = (2800, 4200)
_SIT_HZ = (950.0, 1400.0, 1800.0)
_SIT_WITHIN_HZ, _SIT_MS, _SIT_GAP_MS = 55.0, (150, 450), 120
"""E.180: three tones of 330 ms, each +-50 Hz."""
_KEY_LOW_HZ, _KEY_HIGH_HZ = (680.0, 960.0), (1180.0, 1660.0)


class Signal(enum.StrEnum):
    BUSY = "busy"
    INFORMATION = "information"  # special information tones, before an announcement
    FAX_CALLS = "fax_calls"  # CNG
    FAX_CALLS_ON = "fax_calls_on"  # CNG once more, one period after the other


def is_progress(tone: Tone) -> bool:
    """Whether the tone has the pitch of ringing, busy and dial tones."""
    return _LOWEST_HZ <= tone.low_hz <= _HIGHEST_HZ


def is_fax_answer(tone: Tone) -> bool:
    """CED, which may still sound."""
    return tone.is_near(_CED_HZ, within_hz=_CED_WITHIN_HZ) and tone.duration_ms >= _CED_MS


def is_key(tone: Tone) -> bool:
    """Whether it is a pair of frequencies as of a keypad (Q.23)."""
    return _KEY_LOW_HZ[0] <= tone.low_hz <= _KEY_LOW_HZ[1] and _KEY_HIGH_HZ[0] <= tone.high_hz <= _KEY_HIGH_HZ[1]


class Cadence:
    """Feed the tones of one call in order."""

    def __init__(self) -> None:
        self._tones: deque[Tone] = deque(maxlen=5)

    def hear(self, tone: Tone) -> Signal | None:
        """A tone has ended. BUSY comes with the third even beat (the fifth when two lengths alternate, as in Britain),
        and with each later one.
        """
        self._tones.append(tone)
        tones = list(self._tones)
        if _is_calling_fax(tone):
            again = any(
                _is_calling_fax(each) and _CNG_PERIOD_MS[0] <= tone.start_ms - each.start_ms <= _CNG_PERIOD_MS[1]
                for each in tones[:-1]
            )
            return Signal.FAX_CALLS_ON if again else Signal.FAX_CALLS
        if _are_information_tones(tones[-3:]):
            return Signal.INFORMATION
        return Signal.BUSY if _is_even(tones[-3:], 3, 1) or _is_even(tones, 5, 2) else None


def _is_even(tones: list[Tone], beats: int, period: int) -> bool:
    """Whether so many beats of one pitch have lengths and pauses that repeat after `period` of them."""
    if len(tones) < beats or not all(is_progress(tone) and _same_pitch(tone, tones[0]) for tone in tones):
        return False
    on_ms = [tone.duration_ms for tone in tones]
    off_ms = [later.start_ms - earlier.end_ms for earlier, later in itertools.pairwise(tones)]
    if not all(_BEAT_MS[0] <= each <= _BEAT_MS[1] for each in on_ms + off_ms):
        return False
    return all(_alike(row[index], row[index + period]) for row in (on_ms, off_ms) for index in range(len(row) - period))


def _same_pitch(tone: Tone, other: Tone) -> bool:
    return abs(tone.low_hz - other.low_hz) <= _SAME_HZ and abs(tone.high_hz - other.high_hz) <= _SAME_HZ


def _alike(first_ms: int, second_ms: int) -> bool:
    return abs(first_ms - second_ms) <= max(_ALIKE_MS, _ALIKE_PART * first_ms)


def _is_calling_fax(tone: Tone) -> bool:
    return tone.is_near(_CNG_HZ, within_hz=_CNG_WITHIN_HZ) and _CNG_MS[0] <= tone.duration_ms <= _CNG_MS[1]


def _are_information_tones(three: list[Tone]) -> bool:
    if len(three) < 3 or any(b.start_ms - a.end_ms > _SIT_GAP_MS for a, b in itertools.pairwise(three)):
        return False
    return all(
        tone.is_near(hz, within_hz=_SIT_WITHIN_HZ) and _SIT_MS[0] <= tone.duration_ms <= _SIT_MS[1]
        for tone, hz in zip(three, _SIT_HZ, strict=True)
    )
