"""G.711 mu-law and A-law: 8 kHz, 8 bits a sample, no state. By audioop: about 2 us a packet."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from sipserver.audio.frame import Samples
from sipserver.codecs.concealment import Fading
from sipserver.errors import BadPayload

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # from 3.13 on the package audioop-lts takes the same name
    import audioop

RATE_HZ = 8_000


class G711Encoder:
    def __init__(self, law: Callable[[bytes, int], bytes]) -> None:
        self.rate_hz = RATE_HZ
        self._law = law

    @classmethod
    def mu_law(cls) -> G711Encoder:
        return cls(audioop.lin2ulaw)

    @classmethod
    def a_law(cls) -> G711Encoder:
        return cls(audioop.lin2alaw)

    def encode(self, samples: Samples) -> bytes:
        """Any number of samples; one byte each."""
        return self._law(np.ascontiguousarray(samples, np.int16).tobytes(), 2)


class G711Decoder:
    def __init__(self, law: Callable[[bytes, int], bytes]) -> None:
        self.rate_hz = RATE_HZ
        self._law = law
        self._fading = Fading(RATE_HZ)

    @classmethod
    def mu_law(cls) -> G711Decoder:
        return cls(audioop.ulaw2lin)

    @classmethod
    def a_law(cls) -> G711Decoder:
        return cls(audioop.alaw2lin)

    def decode(self, payload: bytes) -> Samples:
        """Every byte is a sample; only an empty payload is bad."""
        if not payload:
            raise BadPayload("an empty G.711 payload")
        return self._fading.heard(np.frombuffer(self._law(payload, 2), np.int16))

    def conceal(self, duration_ms: int = 20) -> Samples:
        return self._fading.conceal(duration_ms)
