"""Hears steady tones in a call: one or two pure frequencies that neither glide nor waver, with their length.

Owns one spectrum per 20 ms and the runs of equal tones in it. Refuses to say what a tone means: a beep, ringing, a fax
and a busy signal are told apart by those who listen (`answerer`, `cadence`). Speech and music seldom hold a tone: a
voice has harmonics, and glides.

Each look covers 40 ms (25 Hz a bin), so two tones nearer than 100 Hz (ringing of 440 and 480 Hz) are seen as one that
is not `pure`. Lengths are right to about 20 ms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sipserver.audio.frame import FRAME_MS, FRAME_SAMPLES, RATE_HZ, Frame, Samples
from sipserver.audio.levels import FLOOR_DBFS, rms_dbfs

_WINDOW = 2 * FRAME_SAMPLES
_BIN_HZ = RATE_HZ / _WINDOW
_HANN = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
_FIRST, _LAST = round(200 / _BIN_HZ), round(3800 / _BIN_HZ)
"""The telephone band; hum of the mains and what resampling adds lie outside."""
_AT_HZ = (_BIN_HZ * np.arange(_FIRST, _LAST)).astype(np.float32)
_POWER_DB = 10 * math.log10(2 / (_WINDOW * float(_HANN @ _HANN))) - 90.309
_REACH = 3
"""Bins on either side of a peak that belong to its tone."""

QUIET_DBFS = -58.0
"""Below, nobody looks for tones: 8 us a frame instead of 45."""
_PURE_SHARE = 0.94
_LEAST_SHARE = 0.84
"""Of the band's energy, in one or two tones. Noise 12 dB below a tone leaves 0.94."""
_LEAST_TWIN = 0.1
"""What the weaker of two tones has of the stronger one's power (-10 dB)."""
_STEADY_HZ, _STEADY_PART = 12.0, 0.012
_STEADY_DB = 3.5
_MISSES_END = 4
"""Looks without the tone that end it. One lost packet spoils up to three."""
_LEAST_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Tone:
    """high_hz: 0 for a single frequency. start_ms: since the first frame. spread_hz: how far single looks lay apart.

    pure: one frequency and next to nothing else, at an even level.
    """

    low_hz: float
    high_hz: float
    start_ms: int
    duration_ms: int
    level_dbfs: float
    spread_hz: float
    pure: bool

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.duration_ms

    def is_near(self, low_hz: float, high_hz: float = 0.0, *, within_hz: float = 12.0) -> bool:
        return abs(self.low_hz - low_hz) <= within_hz and abs(self.high_hz - high_hz) <= within_hz


@dataclass(frozen=True, slots=True)
class Look:
    """level_dbfs: in the telephone band. low_hz: 0 when there is no clear tone. single: share of the strongest one."""

    level_dbfs: float
    low_hz: float = 0.0
    high_hz: float = 0.0
    single: float = 0.0


class ToneWatch:
    """One direction of one call. Feed frames in order; one thread. Costs 45 us a frame with sound, 8 us without."""

    def __init__(self) -> None:
        self._before: Samples = np.zeros(FRAME_SAMPLES, np.int16)
        self._frames = 0
        self._run: list[Look] = []
        self._missed: list[Look] = []
        self._start = 0
        self.look = Look(FLOOR_DBFS)
        """What the last frame held. Its window's middle lies at the frame's beginning."""

    @property
    def at_ms(self) -> int:
        """Heard so far."""
        return FRAME_MS * self._frames

    @property
    def sounding(self) -> Tone | None:
        """The tone that has not ended yet, if it is long enough to be one."""
        return self._tone() if len(self._run) >= _LEAST_LOOKS else None

    def hear(self, frame: Frame) -> Tone | None:
        """Take 20 ms. Returns a tone when its end was noticed, 60-80 ms after it; each once."""
        wave = np.concatenate((self._before, frame.samples))
        self._before = frame.samples
        self._frames += 1
        self.look = look(wave)
        return self._step(self.look)

    def _step(self, seen: Look) -> Tone | None:
        if self._run and self._goes_on(seen):
            self._run.append(seen)
            self._missed = []
            return None
        if not self._run:
            self._begin([seen] if seen.low_hz else [])
            return None
        before = self._missed[-1:]
        self._missed.append(seen)
        if before and _alike(before[0], seen):  # another tone follows without a pause
            return self._close([before[0], seen])
        if len(self._missed) >= _MISSES_END:
            return self._close([seen] if seen.low_hz else [])
        return None

    def _begin(self, looks: list[Look]) -> None:
        self._run, self._missed = looks, []
        self._start = self._frames - len(looks) + 1

    def _close(self, following: list[Look]) -> Tone | None:
        tone = self.sounding
        self._begin(following)
        return tone

    def _goes_on(self, seen: Look) -> bool:
        """Compared with the middle of the run: the first and the last look hold the tone's edge."""
        known = self._run[min(1, len(self._run) - 1)] if len(self._run) < 8 else self._run[len(self._run) // 2]
        return _alike(seen, known) and (abs(seen.level_dbfs - known.level_dbfs) <= _STEADY_DB or len(self._run) < 2)

    def _tone(self) -> Tone:
        run = self._run
        inner = run[1:-1]
        lows = [each.low_hz for each in inner]
        low_hz = sum(lows) / len(lows)
        last = self._frames - len(self._missed)
        return Tone(
            low_hz=low_hz,
            high_hz=sum(each.high_hz for each in inner) / len(inner),
            start_ms=max(0, FRAME_MS * (self._start - 1) - FRAME_MS // 2),
            duration_ms=FRAME_MS * (last - self._start + 1),
            level_dbfs=sum(each.level_dbfs for each in inner) / len(inner),
            spread_hz=max(lows) - min(lows),
            pure=not run[0].high_hz and sorted(each.single for each in inner)[len(inner) // 4] >= _PURE_SHARE,
        )


def look(wave: Samples) -> Look:
    """40 ms, shape (640,) int16."""
    if rms_dbfs(wave) < QUIET_DBFS:
        return Look(rms_dbfs(wave))
    spectrum = np.fft.rfft(wave * _HANN)[_FIRST:_LAST]
    powers = spectrum.real**2 + spectrum.imag**2
    total = float(powers.sum())
    if total <= 0:
        return Look(FLOOR_DBFS)
    level_dbfs = max(FLOOR_DBFS, 10 * math.log10(total) + _POWER_DB)
    first_hz, first = _peak(powers)
    share = first / total
    if share >= _LEAST_SHARE:
        return Look(level_dbfs, first_hz, 0.0, share)
    if share < _LEAST_SHARE / 2:
        return Look(level_dbfs, single=share)
    second_hz, second = _peak(powers)
    if (first + second) / total < _LEAST_SHARE or second < _LEAST_TWIN * first:
        return Look(level_dbfs, single=share)
    return Look(level_dbfs, min(first_hz, second_hz), max(first_hz, second_hz), share)


def _peak(powers: np.ndarray) -> tuple[float, float]:
    """Frequency (the centre of its bins' energy) and power of the strongest tone, which is taken out."""
    top = int(powers.argmax())
    part = powers[max(0, top - _REACH) : top + _REACH + 1]
    power = float(part.sum())
    hz = float(part @ _AT_HZ[max(0, top - _REACH) : top + _REACH + 1]) / power if power > 0 else 0.0
    part[:] = 0
    return hz, power


def _alike(look: Look, other: Look) -> bool:
    return bool(look.low_hz) and _near(look.low_hz, other.low_hz) and _near(look.high_hz, other.high_hz)


def _near(hz: float, other_hz: float) -> bool:
    return abs(hz - other_hz) <= max(_STEADY_HZ, _STEADY_PART * other_hz) and (hz > 0) == (other_hz > 0)
