"""Opus (RFC 6716, 7587), mono at 8-48 kHz, by the system's libopus: FEC written and read, DTX, concealment of losses.

Owns what the settings of libopus mean for a call. It refuses to know when a packet is lost, and what the network is
like: whoever receives says so (`conceal`, `decode_fec`, `adapt`). Why libopus and how: docs/decisions/0018.
"""

from __future__ import annotations

import math
import weakref

import numpy as np

from sipserver.audio.frame import Samples
from sipserver.codecs import libopus
from sipserver.errors import BadPayload

RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
PTIMES_MS = (10, 20, 40, 60)
BIT_RATES = range(6_000, 510_001)
COMPLEXITY = 5
_LONGEST_MS = 120
_LONGEST_PAYLOAD = 1275 * 6 + 7
"""RFC 6716, 3.2.1 and R5: frames of at most 1275 bytes and at most 120 ms, in a packet that lists their sizes."""
_LONGEST_SENT = 1275
_STEPS_PER_S = 400
"""libopus conceals in steps of 2.5 ms."""


class OpusEncoder:
    """For one voice. bit_rate: per second, 6000-510000, a mean (the rate varies with what is said).

    loss_percent: losses to prepare for, 0-100: packets then carry a smaller copy of the one before, at the cost of
    the voice itself within the same bit rate; 0 switches that FEC off. Where the bit rate is small, libopus leaves the
    copies out or takes bandwidth away for them: 5 % want 26 kbit/s at 16 kHz, and 40 kbit/s at 48 kHz. dtx: in pauses
    only a few packets have to be sent. complexity: 0-10, work against quality. Raises ValueError for what Opus or RTP
    do not know, ConfigError where libopus is missing.
    """

    def __init__(
        self,
        rate_hz: int = 16_000,
        *,
        ptime_ms: int = 20,
        bit_rate: int = 28_000,
        loss_percent: int = 10,
        dtx: bool = False,
        complexity: int = COMPLEXITY,
    ) -> None:
        if rate_hz not in RATES_HZ or ptime_ms not in PTIMES_MS:
            raise ValueError(f"Opus knows neither {rate_hz} Hz nor {ptime_ms} ms together")
        self.rate_hz = rate_hz
        self._count = rate_hz * ptime_ms // 1000
        self._payload = np.empty(_LONGEST_SENT, np.uint8)
        self._payload_at = self._payload.ctypes.data
        self._encode = libopus.library().opus_encode
        self._encoder = libopus.new_encoder(rate_hz)
        weakref.finalize(self, libopus.library().opus_encoder_destroy, self._encoder)
        libopus.set_encoder(self._encoder, libopus.SET_SIGNAL, libopus.SIGNAL_VOICE)
        libopus.set_encoder(self._encoder, libopus.SET_COMPLEXITY, complexity)
        self.adapt(bit_rate=bit_rate, loss_percent=loss_percent, dtx=dtx)

    def adapt(self, *, bit_rate: int | None = None, loss_percent: int | None = None, dtx: bool | None = None) -> None:
        """From the next packet on; what is None stays. Raises ValueError, with nothing changed, for other values."""
        if bit_rate is not None and bit_rate not in BIT_RATES:
            raise ValueError(f"Opus has {BIT_RATES[0]} to {BIT_RATES[-1]} bit/s, not {bit_rate}")
        if loss_percent is not None and not 0 <= loss_percent <= 100:
            raise ValueError(f"a loss of {loss_percent} percent")
        if bit_rate is not None:
            libopus.set_encoder(self._encoder, libopus.SET_BIT_RATE, bit_rate)
        if loss_percent is not None:
            libopus.set_encoder(self._encoder, libopus.SET_LOSS_PERCENT, loss_percent)
            libopus.set_encoder(self._encoder, libopus.SET_FEC, int(loss_percent > 0))
        if dtx is not None:
            libopus.set_encoder(self._encoder, libopus.SET_DTX, int(dtx))
            self._dtx = dtx

    def encode(self, samples: Samples) -> bytes:
        """Exactly one packet time. No bytes: with DTX, nothing has to be sent, while the RTP timestamp goes on.

        Raises ValueError for any other length.
        """
        if len(samples) != self._count:
            raise ValueError(f"this Opus encoder takes {self._count} samples at a time, not {len(samples)}")
        voice = np.ascontiguousarray(samples, np.int16)
        size = self._encode(self._encoder, voice.ctypes.data, self._count, self._payload_at, _LONGEST_SENT)
        if size < 0:
            raise ValueError(f"libopus could not encode: {libopus.meaning(size)}")
        if self._dtx and size <= 2:  # opus_encode: such a packet need not be transmitted
            return b""
        return self._payload[:size].tobytes()


class OpusDecoder:
    """Decodes mono and stereo packets of any bandwidth and duration to mono at rate_hz.

    Raises ValueError for a rate that Opus does not know, ConfigError where libopus is missing.
    """

    def __init__(self, rate_hz: int = 16_000) -> None:
        if rate_hz not in RATES_HZ:
            raise ValueError(f"Opus does not know {rate_hz} Hz")
        self.rate_hz = rate_hz
        self._most = rate_hz * _LONGEST_MS // 1000
        self._step = rate_hz // _STEPS_PER_S
        self._decode = libopus.library().opus_decode
        self._decoder = libopus.new_decoder(rate_hz)
        weakref.finalize(self, libopus.library().opus_decoder_destroy, self._decoder)

    def decode(self, payload: bytes) -> Samples:
        _check(payload)
        return self._decoded(payload, self._most, fec=False)

    def conceal(self, duration_ms: int = 20) -> Samples:
        """duration_ms, rounded up to 2.5 ms; silence before the first packet."""
        left = self._missing(duration_ms)
        parts = [np.zeros(0, np.int16)]
        while left:
            parts.append(self._decoded(None, min(left, self._most), fec=False))
            left -= len(parts[-1])
        return np.concatenate(parts)

    def decode_fec(self, next_payload: bytes, duration_ms: int = 20) -> Samples:
        """What the packet after a loss tells of the lost one before it; `decode` that packet next, as usual.

        duration_ms: of everything that was lost since the last packet, rounded up to 2.5 ms. The copy fills its end;
        what is before it, or all of it where the packet has no copy, is concealed. Raises BadPayload as `decode` does.
        """
        _check(next_payload)
        missing = self._missing(duration_ms)
        early = missing - self._most
        if early <= 0:
            return self._decoded(next_payload, missing, fec=True)
        concealed = self.conceal(math.ceil(early * 1000 / self.rate_hz))
        return np.concatenate((concealed, self._decoded(next_payload, self._most, fec=True)))

    def _missing(self, duration_ms: int) -> int:
        return math.ceil(self.rate_hz * duration_ms / 1000 / self._step) * self._step

    def _decoded(self, payload: bytes | None, count: int, *, fec: bool) -> Samples:
        samples = np.empty(count, np.int16)
        got = self._decode(self._decoder, payload, len(payload) if payload else 0, samples.ctypes.data, count, int(fec))
        if got <= 0:
            raise BadPayload(f"not an Opus packet ({libopus.meaning(got)})")
        return samples[:got] if got == count else samples[:got].copy()


def _check(payload: bytes) -> None:
    if not 0 < len(payload) <= _LONGEST_PAYLOAD:
        raise BadPayload(f"an Opus payload of {len(payload)} bytes")
