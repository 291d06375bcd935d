"""The one PCM frame: 20 ms of 16 kHz mono, and the constants that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
FRAME_MS = 20
FRAME_SAMPLES = RATE_HZ * FRAME_MS // 1000
FRAME_BYTES = FRAME_SAMPLES * 2

Samples = NDArray[np.int16]
"""Linear PCM, 16 bit signed, 16 kHz, mono, shape (n,). Any length unless a docstring says otherwise."""

SILENCE_PAYLOAD = bytes(FRAME_BYTES)
_SILENCE: Samples = np.zeros(FRAME_SAMPLES, np.int16)
_SILENCE.setflags(write=False)


@dataclass(frozen=True, slots=True)
class Frame:
    """20 ms of sound on its way in one direction.

    samples: shape (320,), int16, read-only by convention: a frame may be shared by recorder, listener and echo.
    at_ns: `time.monotonic_ns()` when the media clock handed the frame over.
    """

    samples: Samples
    at_ns: int

    @classmethod
    def of_payload(cls, payload: bytes, at_ns: int) -> Frame:
        """Wrap 640 bytes of native-endian L16 without copying."""
        return cls(np.frombuffer(payload, np.int16), at_ns)

    @classmethod
    def silence(cls, at_ns: int) -> Frame:
        return cls(_SILENCE, at_ns)
