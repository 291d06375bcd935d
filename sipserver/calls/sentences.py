"""What somebody says, sentence by sentence, told by the energy of their sound.

Owns where a sentence begins and ends. Pure: no clock, no task. Refuses to tell speech from other sounds: whoever writes
the sentences down finds no words in those.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from sipserver.audio.frame import FRAME_MS, Frame, Samples
from sipserver.audio.levels import EnergyGate

PRE_ROLL_MS = 300
LEAST_VOICE_MS = 100
"""With less sound than this nothing was said: a click, a breath."""

PAUSE_MS = 700
"""A sentence ends with so much quiet."""

LONGEST_MS = 8_000
"""A sentence that does not end is given out as it is: the line may be noisy."""


class Sentences:
    """`hear` every 20 ms; any one thread."""

    def __init__(self) -> None:
        self._gate = EnergyGate(hang_ms=PAUSE_MS)
        self._kept: deque[Samples] = deque(maxlen=LONGEST_MS // FRAME_MS)
        self._loud_ms = 0

    def hear(self, frame: Frame) -> Samples | None:
        """One frame of 20 ms; the whole sentence, from a little before its first sound, when it ends with this one."""
        was_open = self._gate.is_open
        is_open = self._gate.hear(frame.samples)
        self._kept.append(frame.samples)
        if not was_open and not is_open:
            while len(self._kept) > PRE_ROLL_MS // FRAME_MS:
                self._kept.popleft()
            return None
        self._loud_ms += FRAME_MS if is_open else 0
        if is_open and len(self._kept) < LONGEST_MS // FRAME_MS:
            return None
        quiet_ms = 0 if is_open else PAUSE_MS - FRAME_MS
        said, voiced_ms = np.concatenate(self._kept), self._loud_ms - quiet_ms
        self._kept.clear()
        self._loud_ms = 0
        return said if voiced_ms >= LEAST_VOICE_MS else None
