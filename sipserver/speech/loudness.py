"""Voice activity by loudness alone: what stands in while no detector answers.

It takes everything that is well above the noise for speech, music and coughs included, so turns go on being taken, only
less well. Owns its own idea of the noise; refuses to be used where a detector works.
"""

from __future__ import annotations

import math

import numpy as np

from sipserver.audio.frame import Samples

SPEECH, SILENCE = 0.9, 0.05
_QUIETEST_DB = -50.0
"""Below this nothing is speech: comfort noise of telephones lies at -60 dBFS."""
_ABOVE_NOISE_DB = 12.0
_RISE_DB = 0.1
"""The noise is the quietest of late; it follows a louder room by 3 dB a second."""


class Loudness:
    """One stream. Any one thread."""

    def __init__(self) -> None:
        self._noise_db = -60.0

    def judge(self, samples: Samples) -> float:
        """SPEECH or SILENCE for one chunk. Chunks are shown in order; some may be missing."""
        square = float(np.mean(np.square(samples.astype(np.float32)))) if len(samples) else 0.0
        level_db = 10 * math.log10(square / 32768**2 + 1e-12)
        self._noise_db = max(-90.0, min(level_db, self._noise_db + _RISE_DB))
        return SPEECH if level_db > max(_QUIETEST_DB, self._noise_db + _ABOVE_NOISE_DB) else SILENCE
