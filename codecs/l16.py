"""L16: the samples themselves, in network byte order (RFC 3551, 4.5.11)."""

from __future__ import annotations

import numpy as np

from sipserver.audio.frame import Samples
from sipserver.codecs.concealment import Fading
from sipserver.errors import BadPayload


class L16Encoder:
    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz

    def encode(self, samples: Samples) -> bytes:
        """Any number of samples; two bytes each."""
        return samples.astype(">i2").tobytes()


class L16Decoder:
    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._fading = Fading(rate_hz)

    def decode(self, payload: bytes) -> Samples:
        """Bad are an empty payload and half a sample."""
        if not payload or len(payload) % 2:
            raise BadPayload(f"an L16 payload of {len(payload)} bytes")
        return self._fading.heard(np.frombuffer(payload, ">i2").astype(np.int16))

    def conceal(self, duration_ms: int = 20) -> Samples:
        return self._fading.conceal(duration_ms)
