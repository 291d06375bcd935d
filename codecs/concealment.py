"""Loss concealment for codecs that have none of their own: the last 20 ms again, fading to silence within 60 ms."""

from __future__ import annotations

import numpy as np

from sipserver.audio.frame import Samples

_PATTERN_MS = 20
_FADE_MS = 60


class Fading:
    """Remembers what was decoded last and repeats it. Any rate."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._pattern: Samples = np.zeros(0, np.int16)
        self._missing = 0

    def heard(self, samples: Samples) -> Samples:
        """Note what was decoded; returns it."""
        self._pattern = samples[-self._rate_hz * _PATTERN_MS // 1000 :]
        self._missing = 0
        return samples

    def conceal(self, duration_ms: int) -> Samples:
        """Shape (rate_hz * duration_ms / 1000,); goes on fading where the last call stopped."""
        count = self._rate_hz * duration_ms // 1000
        positions = np.arange(self._missing, self._missing + count)
        self._missing += count
        if not len(self._pattern):
            return np.zeros(count, np.int16)
        gain = np.clip(1 - positions / (self._rate_hz * _FADE_MS / 1000), 0, 1)
        faded: Samples = (self._pattern[positions % len(self._pattern)] * gain).astype(np.int16)
        return faded
