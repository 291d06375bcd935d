"""Sound as it looks on the wire of a stream, to and from 16 kHz: G.711 mu-law at 8 kHz, or little-endian L16.

Owns the two directions of a format. Refuses to know messages and time.
"""

from __future__ import annotations

import warnings
from typing import Protocol

import numpy as np

from sipserver.audio.frame import FRAME_MS, RATE_HZ, Samples
from sipserver.audio.octave import Doubler, Halver
from sipserver.audio.resample import Resampler
from sipserver.errors import BadPayload
from sipserver.streams.contract import WireFormat

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # from 3.13 on the package audioop-lts takes the same name
    import audioop

RATES_HZ: dict[WireFormat, int] = {"mulaw8": 8000, "l16_8": 8000, "l16_16": 16_000, "l16_24": 24_000}


def frame_bytes(wire: WireFormat) -> int:
    """Of 20 ms."""
    return RATES_HZ[wire] * FRAME_MS // 1000 * (1 if wire == "mulaw8" else 2)


class Converter(Protocol):
    """From one rate to another, with the state that chunks need."""

    def convert(self, samples: Samples) -> Samples: ...


class _Same:
    def convert(self, samples: Samples) -> Samples:
        return samples


class FromWire:
    """Payloads of any length -> 16 kHz samples, shape (n,). One thread at a time."""

    def __init__(self, wire: WireFormat) -> None:
        self._mu_law = wire == "mulaw8"
        self._converter = _converter(RATES_HZ[wire], RATE_HZ)

    def decode(self, payload: bytes) -> Samples:
        """Raises BadPayload for nothing, or for half a sample."""
        if not payload or (not self._mu_law and len(payload) % 2):
            raise BadPayload(f"a payload of {len(payload)} bytes")
        if self._mu_law:
            return self._converter.convert(np.frombuffer(audioop.ulaw2lin(payload, 2), np.int16))
        return self._converter.convert(np.frombuffer(payload, "<i2").astype(np.int16, copy=False))


class ToWire:
    """16 kHz samples -> payloads. Frames of 20 ms give payloads of 20 ms, but for the first ones of 24 kHz."""

    def __init__(self, wire: WireFormat) -> None:
        self._mu_law = wire == "mulaw8"
        self._size = frame_bytes(wire)
        self._converter = _converter(RATE_HZ, RATES_HZ[wire])
        self._rest = b""
        self._exact = RATES_HZ[wire] in (8000, RATE_HZ)

    def encode(self, samples: Samples) -> bytes:
        """Shape (320,) -> one frame's bytes. At 24 kHz the converter keeps a little back at first: silence comes."""
        converted = self._converter.convert(samples)
        payload = converted.astype("<i2", copy=False).tobytes()
        if self._mu_law:
            return audioop.lin2ulaw(payload, 2)
        if self._exact:
            return payload
        joined = self._rest + payload
        if len(joined) < self._size:
            joined = bytes(self._size - len(joined)) + joined
        self._rest = joined[self._size :]
        return joined[: self._size]


def _converter(from_hz: int, to_hz: int) -> Converter:
    if from_hz == to_hz:
        return _Same()
    if (from_hz, to_hz) == (8000, 16_000):
        return Doubler()
    if (from_hz, to_hz) == (16_000, 8000):
        return Halver()
    return Resampler(from_hz, to_hz)
