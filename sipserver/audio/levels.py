"""How loud: RMS and peak in dBFS, and a gate that says whether there is energy at all.

Owns levels only; whether the energy is speech is for `speech` to say. dBFS: 0 is a square wave of full scale.
"""

from __future__ import annotations

import math

import numpy as np

from sipserver.audio.frame import FRAME_MS, Samples

FLOOR_DBFS = -100.0
"""What digital silence measures."""


def rms_dbfs(samples: Samples) -> float:
    """Level of any number of samples; FLOOR_DBFS for silence and for none. About 5 us a frame."""
    if not len(samples):
        return FLOOR_DBFS
    wave = samples.astype(np.float32)
    power = float(wave @ wave) / len(wave)
    return max(FLOOR_DBFS, 10 * math.log10(power) - 90.309) if power > 0 else FLOOR_DBFS


def peak_dbfs(samples: Samples) -> float:
    """Level of the largest sample."""
    if not len(samples):
        return FLOOR_DBFS
    largest = max(int(samples.max()), -int(samples.min()))
    return 20 * math.log10(largest / 32768) if largest else FLOOR_DBFS


class EnergyGate:
    """Open while frames are louder than a threshold, and for hang_ms after the last one that was.

    Closes only below threshold - hysteresis, so that a level at the edge does not flutter. Not thread-safe.
    """

    def __init__(self, threshold_dbfs: float = -45, *, hysteresis_db: float = 3, hang_ms: int = 200) -> None:
        self._open_dbfs, self._close_dbfs = threshold_dbfs, threshold_dbfs - hysteresis_db
        self._hang_ms = hang_ms
        self._left_ms = 0
        self.level_dbfs = FLOOR_DBFS
        """Level of the last frame."""

    @property
    def is_open(self) -> bool:
        return self._left_ms > 0

    def hear(self, samples: Samples) -> bool:
        """Take one frame of 20 ms; True while open."""
        self.level_dbfs = rms_dbfs(samples)
        if self.level_dbfs >= (self._close_dbfs if self.is_open else self._open_dbfs):
            self._left_ms = max(self._hang_ms, FRAME_MS)
        else:
            self._left_ms = max(0, self._left_ms - FRAME_MS)
        return self.is_open
