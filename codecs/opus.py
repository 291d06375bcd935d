"""Opus (RFC 6716, 7587), mono at 8-48 kHz, by the libopus inside PyAV's wheel: no system library is needed.

Sends in-band FEC for the receiver's use and conceals losses by libopus' own PLC. What FFmpeg's wrapper keeps back:
reading the FEC of a packet that came after a loss, and DTX when sending. DTX of the peer is understood.
"""

from __future__ import annotations

import fractions
import math
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from sipserver.audio.frame import Samples
from sipserver.audio.resample import Resampler
from sipserver.errors import BadPayload

if TYPE_CHECKING:
    from collections.abc import Iterable

RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
PTIMES_MS = (10, 20, 40, 60)
_DECODED_HZ = 48_000
_LONGEST_PAYLOAD = 1275 * 6 + 7
"""RFC 6716, 3.2.1 and R5: frames of at most 1275 bytes and at most 120 ms, in a packet that lists their sizes."""


class OpusEncoder:
    """loss_percent: what the encoder prepares for by FEC; 0 switches FEC off. About 230 us for 20 ms.

    Raises ValueError for rates and packet times that Opus or RTP do not know.
    """

    def __init__(
        self, rate_hz: int = 16_000, *, ptime_ms: int = 20, bit_rate: int = 24_000, loss_percent: int = 10
    ) -> None:
        if rate_hz not in RATES_HZ or ptime_ms not in PTIMES_MS:
            raise ValueError(f"Opus knows neither {rate_hz} Hz nor {ptime_ms} ms together")
        self.rate_hz = rate_hz
        self._count = rate_hz * ptime_ms // 1000
        self._context: Any = av.CodecContext.create("libopus", "w")
        self._context.format = "s16"
        self._context.layout = "mono"
        self._context.sample_rate = rate_hz
        self._context.time_base = fractions.Fraction(1, rate_hz)
        self._context.bit_rate = bit_rate
        self._context.options = {
            "application": "voip",
            "frame_duration": str(ptime_ms),
            "packet_loss": str(loss_percent),
            "fec": str(int(loss_percent > 0)),
            "compression_level": "5",
        }
        self._sent = 0

    def encode(self, samples: Samples) -> bytes:
        """Exactly one packet time. Raises ValueError for any other length."""
        if len(samples) != self._count:
            raise ValueError(f"this Opus encoder takes {self._count} samples at a time, not {len(samples)}")
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples, np.int16)[np.newaxis, :], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = self.rate_hz, self._sent
        self._sent += self._count
        return b"".join(bytes(packet) for packet in self._context.encode(frame))


class OpusDecoder:
    """Decodes mono and stereo packets of any bandwidth and duration to mono at rate_hz. About 60 us for 20 ms.

    The sound comes 1 ms later than libopus gave it (resampling from 48 kHz); the lengths are those of the packets.
    """

    def __init__(self, rate_hz: int = 16_000) -> None:
        if rate_hz not in RATES_HZ:
            raise ValueError(f"Opus does not know {rate_hz} Hz")
        self.rate_hz = rate_hz
        self._context: Any = av.CodecContext.create("libopus", "r")
        self._context.layout = "mono"
        self._context.sample_rate = _DECODED_HZ
        self._resampler = Resampler(_DECODED_HZ, rate_hz)
        self._begun = False
        self._lost_packet = b""

    def decode(self, payload: bytes) -> Samples:
        if not 0 < len(payload) <= _LONGEST_PAYLOAD:
            raise BadPayload(f"an Opus payload of {len(payload)} bytes")
        samples = self._decoded(payload)
        # RFC 6716, 3.1: the same configuration with one frame of no bytes. libopus takes that for a lost frame.
        self._lost_packet = bytes((payload[0] & 0xFC,))
        return samples

    def conceal(self, duration_ms: int = 20) -> Samples:
        """Whole frames as long as the last one received, at least duration_ms in all; silence before the first."""
        count = self.rate_hz * duration_ms // 1000
        if not self._lost_packet:
            return np.zeros(count, np.int16)
        frame = self._decoded(self._lost_packet)
        more = (self._decoded(self._lost_packet) for _ in range(math.ceil(count / len(frame)) - 1))
        return np.concatenate([frame, *more])

    def _decoded(self, payload: bytes) -> Samples:
        try:
            samples = _joined(self._context.decode(av.Packet(payload)))
        except av.FFmpegError as problem:
            raise BadPayload(f"not an Opus packet ({problem.strerror})") from problem
        if not len(samples):
            raise BadPayload("an Opus packet without sound")
        converted = self._resampler.convert(samples)
        if not self._begun:
            self._begun = True
            owed = len(samples) * self.rate_hz // _DECODED_HZ - len(converted)
            converted = np.concatenate((np.zeros(owed, np.int16), converted))
        return converted


def _joined(frames: Iterable[Any]) -> Samples:
    parts = [frame.to_ndarray()[0] for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)
