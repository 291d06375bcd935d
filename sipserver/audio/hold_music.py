"""Music on hold, made of numbers: four soft chords and a few plucked notes, quiet, without words and without an end.

Owns the tune, which is our own. Notes that sound beyond the end are laid over the beginning, so that the seam is no
place of its own. All of it lies in the telephone band and is soft enough to think beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sipserver.audio.frame import RATE_HZ, Samples

LEVEL_DBFS = -30.0
BAR_S = 4
_BEAT_S = 0.5

_CHORDS = ((60, 64, 67, 71), (57, 64, 67, 72), (65, 69, 72, 76), (62, 67, 69, 74))
"""MIDI notes: C major 7, A minor 7, F major 7, D minor 11 without its third; the last leads home."""
_TUNE: tuple[tuple[int, ...], ...] = (
    (76, 0, 79, 0, 83, 79, 0, 0),
    (81, 0, 79, 0, 76, 0, 72, 0),
    (77, 0, 81, 0, 84, 81, 0, 0),
    (79, 0, 77, 0, 74, 0, 0, 0),
)
"""One note a beat, 0: none."""
_PAD_PARTIALS, _PLUCK_PARTIALS = (1.0, 0.35, 0.12), (1.0, 0.25, 0.08, 0.03)
_PAD_GAIN, _PLUCK_GAIN = 0.22, 0.55
_DETUNE = 1.0015
"""Two voices a note, that far apart: it breathes."""

_Wave = NDArray[np.float32]


@cache
def gentle() -> Samples:
    """16 s, shape (256000,) int16, read-only, always the same; play it as a `loop.Loop`.

    Takes 0.1 s when it is first wanted, and 512 kB: ask for it in a thread, or in the warm parent before the fork.
    """
    whole = np.zeros(len(_CHORDS) * BAR_S * RATE_HZ, np.float32)
    for bar, (chord, tune) in enumerate(zip(_CHORDS, _TUNE, strict=True)):
        for note in chord:
            _lay(whole, bar * BAR_S, _pad(note))
        for beat, note in enumerate(tune):
            if note:
                _lay(whole, bar * BAR_S + beat * _BEAT_S, _pluck(note))
    whole -= whole.mean()
    gain = 32768 * 10 ** (LEVEL_DBFS / 20) / math.sqrt(float(whole @ whole) / len(whole))
    music: Samples = np.round(whole * gain).astype(np.int16)
    music.setflags(write=False)
    return music


def _lay(whole: _Wave, at_s: float, note: _Wave) -> None:
    """Add a note; what reaches beyond the end begins at the beginning."""
    places = (round(at_s * RATE_HZ) + np.arange(len(note))) % len(whole)
    whole[places] += note


def _hz(note: int) -> float:
    return 440 * float(2 ** ((note - 69) / 12))


def _pad(note: int) -> _Wave:
    """Swells for a second and dies away into the next bar."""
    at_s = np.arange(round(1.5 * BAR_S * RATE_HZ), dtype=np.float32) / np.float32(RATE_HZ)
    swell = np.sin(math.pi * at_s / at_s[-1]) ** 2
    voices = _sines(_hz(note), _PAD_PARTIALS, at_s) + _sines(_hz(note) * _DETUNE, _PAD_PARTIALS, at_s)
    sound: _Wave = _PAD_GAIN * swell * voices
    return sound


def _pluck(note: int) -> _Wave:
    """Begins within 12 ms and fades for 3 s, to nothing."""
    at_s = np.arange(3 * RATE_HZ, dtype=np.float32) / np.float32(RATE_HZ)
    fading = np.minimum(at_s / 0.012, 1) * np.exp(-2.2 * at_s) * (1 - at_s / at_s[-1])
    sound: _Wave = _PLUCK_GAIN * fading * _sines(_hz(note), _PLUCK_PARTIALS, at_s)
    return sound


def _sines(hz: float, partials: Sequence[float], at_s: _Wave) -> _Wave:
    wave = np.zeros(len(at_s), np.float32)
    for number, gain in enumerate(partials, start=1):
        wave += gain * np.sin(2 * math.pi * hz * number * at_s)
    return wave
