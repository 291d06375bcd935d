"""G.722 at 64 kbit/s: 16 kHz audio in two ADPCM bands, by the package G722 (which carries its own code).

Its RTP clock counts 8000 a second although there are 16,000 samples: a mistake of RFC 1890 that RFC 3551, 4.5.2 keeps.
"""

from __future__ import annotations

import numpy as np
from G722 import G722

from sipserver.audio.frame import Samples
from sipserver.codecs.concealment import Fading
from sipserver.errors import BadPayload

RATE_HZ = 16_000
_BIT_RATE = 64_000


class G722Encoder:
    """About 20 us for 20 ms."""

    def __init__(self) -> None:
        self.rate_hz = RATE_HZ
        self._state = G722(RATE_HZ, _BIT_RATE)

    def encode(self, samples: Samples) -> bytes:
        """One byte for two samples. Raises ValueError for an odd number."""
        if len(samples) % 2:
            raise ValueError("G.722 encodes pairs of samples")
        payload: bytes = self._state.encode(np.ascontiguousarray(samples, np.int16))
        return payload


class G722Decoder:
    """About 20 us for 20 ms. Heals within some 10 ms after lost or damaged packets."""

    def __init__(self) -> None:
        self.rate_hz = RATE_HZ
        self._state = G722(RATE_HZ, _BIT_RATE)
        self._fading = Fading(RATE_HZ)

    def decode(self, payload: bytes) -> Samples:
        """Every byte is two samples; only an empty payload is bad."""
        if not payload:
            raise BadPayload("an empty G.722 payload")
        return self._fading.heard(np.frombuffer(self._state.decode(payload), np.int16))

    def conceal(self, duration_ms: int = 20) -> Samples:
        return self._fading.conceal(duration_ms)
