"""DTMF digits in band, for trunks that send neither RFC 4733 events nor SIP INFO.

Owns the decision which key was pressed and for how long; refuses to know what the digit means. Limits after ITU-T
Q.24: 40 ms are accepted and 24 ms are not, frequencies within 1.5 % are accepted and beyond 3.5 % are not, a tone may
fall out for 20 ms, equal digits need 40 ms between them. Keys are judged on windows of 20 ms that overlap by half.

Speech is kept out because in every window nearly all energy must lie in one low and one high frequency, steady in
frequency, without second harmonics, with the twist of a telephone, and long enough.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sipserver.audio.frame import FRAME_SAMPLES, RATE_HZ, Frame, Samples
from sipserver.audio.tones import FULL_SCALE_DBM0, HIGH_HZ, KEYPAD, LOW_HZ

_Reals = NDArray[np.float32]
_Complexes = NDArray[np.complex64]

_HOP = FRAME_SAMPLES // 2
_HOP_MS = _HOP * 1000 // RATE_HZ
_WINDOWS = FRAME_SAMPLES // _HOP

_DETUNE = (0.0, -0.011, 0.011)
"""Each frequency is looked for at three places: a window of 20 ms loses 3.7 dB of a tone 1.5 % beside 1633 Hz."""
_LEAST_SHARE = 0.78
"""Of a window's energy, in the two tones. 15 dB of signal to noise leave 0.97, the worst detuning 0.92 of that."""
_BEST_SHARE = 0.86
"""That the best window of a press must reach. The vowels that pass all else (espeak-ng, 92 minutes) stay at 0.84."""
_LEAST_DURATION_MS = 29.0
"""Between the 24 ms that must be refused and the 40 ms that must be accepted."""
_LARGEST_DETUNE = 0.025
_FORWARD_TWIST_DB, _REVERSE_TWIST_DB = 6.5, 10.5
"""High above low, low above high. Q.24 asks for 4 and 8."""
_LARGEST_HARMONIC = 0.08
"""Energy at twice a tone's frequency, as a part of the tone's: voices and music have it, keypads do not."""
_MISSES_END = 4
"""Windows without the tone that end a press: a lost packet of 20 ms leaves three, the shortest pause of 40 ms five."""
_LOWEST_DBM0 = -36.0
"""Of each tone."""


def _power(level_dbm0: float) -> float:
    """Mean square of a sine."""
    amplitude: float = 32767 * 10 ** ((level_dbm0 - FULL_SCALE_DBM0) / 20)
    return amplitude * amplitude / 2


_CENTRES = np.array([hz * (1 + detune) for hz in LOW_HZ + HIGH_HZ for detune in _DETUNE])
_BINS = len(_CENTRES)
_ALL = np.concatenate((_CENTRES, [2 * hz for hz in LOW_HZ + HIGH_HZ]))
_FROM_THE_MIDDLE = np.arange(FRAME_SAMPLES) - (FRAME_SAMPLES - 1) / 2
"""So that a phase is that of the window's middle, whichever of the three places the tone was found at."""
_ANGLES = 2 * math.pi * np.outer(_FROM_THE_MIDDLE, _ALL) / RATE_HZ
_BASIS = np.ascontiguousarray(np.concatenate((np.cos(_ANGLES), -np.sin(_ANGLES)), axis=1), np.float32)
_TOO_NEAR = [[abs(2 * low_hz - high_hz) < 2 * RATE_HZ / FRAME_SAMPLES for high_hz in HIGH_HZ] for low_hz in LOW_HZ]
"""Where the window cannot tell the low tone's harmonic from the high tone, as with 2 * 697 and 1336 Hz."""
_LOWEST_POWER = _power(_LOWEST_DBM0)


@dataclass(frozen=True, slots=True)
class Press:
    """One key pressed and released. at_ns: `Frame.at_ns` of the frame in which the release was noticed.

    duration_ms is measured to about 10 ms or 1 %.
    """

    digit: str
    duration_ms: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class _Window:
    """What one window says. digit: empty when it is no clean tone; guess: the likeliest key all the same."""

    digit: str
    guess: str
    share: float
    low: complex = 0j
    high: complex = 0j
    low_hz: float = 0.0
    high_hz: float = 0.0


_QUIET = _Window("", "", 0.0)


class DtmfDetector:
    """Hears one direction of one call. Feed frames in order from one thread; about 30 us a frame, 8 us when quiet."""

    def __init__(self) -> None:
        self._before: Samples = np.zeros(_HOP, np.int16)
        self._last = _QUIET
        self._digit = ""
        self._shares: list[float] = []
        self._gap: list[_Window] = []
        self._hits = 0
        self._steady = True

    def hear(self, frame: Frame) -> list[Press]:
        """Take 20 ms. Returns the keys whose release was noticed in it, usually none. Each press is told once."""
        wave = np.concatenate((self._before, frame.samples))
        self._before = frame.samples[-_HOP:]
        presses: list[Press] = []
        for window in _judged(wave.astype(np.float32)):
            self._step(window, frame.at_ns, presses)
        return presses

    def flush(self, at_ns: int) -> list[Press]:
        """The sound has ended: tell the key that is still down, if there is one."""
        presses: list[Press] = []
        self._close(at_ns, presses)
        self._last = _QUIET
        self._before = np.zeros(_HOP, np.int16)
        return presses

    def _step(self, window: _Window, at_ns: int, presses: list[Press]) -> None:
        if window.digit and window.digit != self._digit:
            self._close(at_ns, presses)
            self._digit = window.digit
            self._shares = [self._last.share] if self._last.guess == window.digit else []
        if window.digit:
            self._hits += 1
            self._shares.extend(each.share for each in self._gap if each.guess == window.digit)
            self._shares.append(window.share)
            if self._last.digit == window.digit:
                self._steady = self._steady and _in_tune(self._last, window)
            self._gap.clear()
        elif self._digit:
            self._gap.append(window)
            if len(self._gap) == _MISSES_END:
                self._close(at_ns, presses)
        self._last = window

    def _close(self, at_ns: int, presses: list[Press]) -> None:
        if self._digit:
            shares = self._shares
            if self._gap and self._gap[0].guess == self._digit:
                shares = [*shares, self._gap[0].share]
            # Every sample lies in two windows, so the sum of what the tone fills of each window is its duration.
            whole = sorted(shares)[-1 - len(shares) // 4]
            duration_ms = _HOP_MS * sum(shares) / whole
            clear = self._hits >= 2 and whole >= _BEST_SHARE
            if clear and self._steady and duration_ms >= _LEAST_DURATION_MS:
                presses.append(Press(self._digit, round(duration_ms), at_ns))
        self._digit, self._shares, self._hits, self._steady = "", [], 0, True
        self._gap.clear()


def _judged(wave: _Reals) -> list[_Window]:
    """The two windows that end in a frame; wave: the last 10 ms before it and the frame, shape (480,)."""
    windows = np.lib.stride_tricks.as_strided(
        wave, (_WINDOWS, FRAME_SAMPLES), (wave.itemsize * _HOP, wave.itemsize), writeable=False
    )
    energies = np.einsum("ij,ij->i", windows, windows).tolist()
    if max(energies) < 2 * _LOWEST_POWER * FRAME_SAMPLES:
        return [_QUIET] * _WINDOWS
    parts = windows @ _BASIS
    real, imaginary = parts[:, : len(_ALL)], parts[:, len(_ALL) :]
    phasors = real + np.complex64(1j) * imaginary
    powers = (real * real + imaginary * imaginary) * np.float32(2 / FRAME_SAMPLES**2)
    lows = powers[:, : _BINS // 2].argmax(axis=1).tolist()
    highs = (powers[:, _BINS // 2 : _BINS].argmax(axis=1) + _BINS // 2).tolist()
    return [
        _judge(powers[row], phasors[row], lows[row], highs[row], energies[row] / FRAME_SAMPLES)
        for row in range(_WINDOWS)
    ]


def _judge(powers: _Reals, phasors: _Complexes, low: int, high: int, mean_square: float) -> _Window:
    if mean_square < 2 * _LOWEST_POWER:
        return _QUIET
    low_power, high_power = float(powers[low]), float(powers[high])
    share = (low_power + high_power) / mean_square
    if share < 0.2:
        return _QUIET
    row, column = low // len(_DETUNE), high // len(_DETUNE)
    guess = KEYPAD[row][column - len(LOW_HZ)]
    clean = (
        share >= _LEAST_SHARE
        and min(low_power, high_power) >= _LOWEST_POWER
        and -_REVERSE_TWIST_DB <= 10 * math.log10(high_power / low_power) <= _FORWARD_TWIST_DB
        and (_TOO_NEAR[row][column - len(LOW_HZ)] or powers[_BINS + row] <= _LARGEST_HARMONIC * low_power)
        and powers[_BINS + column] <= _LARGEST_HARMONIC * high_power
    )
    return _Window(
        guess if clean else "",
        guess,
        min(share, 1.0),
        complex(phasors[low]),
        complex(phasors[high]),
        float(LOW_HZ[row]),
        float(HIGH_HZ[column - len(LOW_HZ)]),
    )


def _in_tune(before: _Window, window: _Window) -> bool:
    """Whether both tones are near their nominal frequencies, told by how far their phases went on between windows."""
    return _near(before.low, window.low, window.low_hz) and _near(before.high, window.high, window.high_hz)


def _near(before: complex, after: complex, nominal_hz: float) -> bool:
    turn = cmath.phase(after / before * cmath.exp(-2j * math.pi * nominal_hz * _HOP / RATE_HZ))
    return abs(turn * RATE_HZ / (2 * math.pi * _HOP)) <= _LARGEST_DETUNE * nominal_hz
