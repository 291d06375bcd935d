"""Bytes of RTP to 20 ms frames of 16 kHz and back, for the codec that a browser and we have agreed on.

Owns the decoder, the encoder and what is made up for lost packets. Refuses to know RTP's headers and when a frame is
due. Runs on the loop: 20 ms of Opus take some 25 us to decode and 200 us to encode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from sipserver.audio.frame import FRAME_MS, FRAME_SAMPLES, RATE_HZ, Samples
from sipserver.audio.resample import Resampler
from sipserver.codecs import table
from sipserver.codecs.contract import Encoder
from sipserver.errors import BadPayload
from sipserver.webrtc.bit_rate import Sending
from sipserver.webrtc.jitter import JitterBuffer, Lost

_MOST_MADE_UP = 5
"""So many frames in a row are made up; then it is silent."""


@runtime_checkable
class _Adapts(Protocol):
    """An encoder whose settings change while it runs, as `codecs.opus.OpusEncoder` is."""

    def adapt(self, *, bit_rate: int | None = None, loss_percent: int | None = None) -> None: ...


class FromNetwork:
    """`put` packets, `pull` a frame every 20 ms. bad: payloads that no encoder could have made."""

    def __init__(self, codec: table.Codec) -> None:
        self.jitter = JitterBuffer()
        self._decoder = table.decoder(codec)
        self._resampler = None if codec.audio_hz == RATE_HZ else Resampler(codec.audio_hz, RATE_HZ)
        self._fec: Callable[[bytes, int], Samples] | None = getattr(self._decoder, "decode_fec", None)
        self._rest: Samples = np.zeros(0, np.int16)
        self._made_up = 0
        self._heard = False
        self.bad = self.concealed = 0

    def put(self, sequence: int, timestamp: int, payload: bytes) -> None:
        self.jitter.put(sequence, timestamp, payload)

    def pull(self) -> Samples | None:
        """Shape (320,), or None while there is nothing to hear."""
        while len(self._rest) < FRAME_SAMPLES:
            due = self.jitter.pull()
            samples = self._decoded(due) if isinstance(due, bytes) else self._missing(due)
            if samples is None:
                return None
            self._rest = np.concatenate((self._rest, samples)) if len(self._rest) else samples
        frame, self._rest = self._rest[:FRAME_SAMPLES], self._rest[FRAME_SAMPLES:]
        return frame

    def _decoded(self, payload: bytes) -> Samples | None:
        try:
            samples = self._decoder.decode(payload)
        except BadPayload:
            self.bad += 1
            return self._missing(None)
        self._made_up, self._heard = 0, True
        return self._at_rate(samples)

    def _missing(self, lost: Lost | None) -> Samples | None:
        """What the next packet tells of the lost one (Opus alone has that), or what the decoder makes up."""
        if not self._heard or self._made_up >= _MOST_MADE_UP:
            return None
        self._made_up += 1
        self.concealed += 1
        if lost is not None and lost.next_payload is not None and self._fec is not None:
            with contextlib.suppress(BadPayload):
                return self._at_rate(self._fec(lost.next_payload, FRAME_MS))
        return self._at_rate(self._decoder.conceal(FRAME_MS))

    def _at_rate(self, samples: Samples) -> Samples:
        return samples if self._resampler is None else self._resampler.convert(samples)


class ToNetwork:
    """`encode` a frame. sending: for Opus; others have one bit rate."""

    def __init__(self, codec: table.Codec, sending: Sending) -> None:
        self._codec = codec
        self._resampler = None if codec.audio_hz == RATE_HZ else Resampler(RATE_HZ, codec.audio_hz)
        self._owed: Samples = np.zeros(0, np.int16)
        self._encoder = self._made(sending)

    def set(self, sending: Sending) -> None:
        """From the next frame on."""
        if isinstance(self._encoder, _Adapts):
            self._encoder.adapt(bit_rate=sending.bit_rate, loss_percent=sending.loss_percent)

    def encode(self, samples: Samples) -> bytes:
        """Shape (320,): one packet; empty while a resampler gathers its first samples."""
        if self._resampler is not None:
            # a packet has always the same length, also when the resampler keeps some samples back
            joined = np.concatenate((self._owed, self._resampler.convert(samples)))
            count = self._codec.audio_hz * FRAME_MS // 1000
            if len(joined) < count:
                self._owed = joined
                return b""
            samples, self._owed = joined[:count], joined[count:]
        return self._encoder.encode(samples)

    def _made(self, sending: Sending) -> Encoder:
        if self._codec.encoding != "opus":
            return table.encoder(self._codec)
        from sipserver.codecs.opus import OpusEncoder

        return OpusEncoder(RATE_HZ, bit_rate=sending.bit_rate, loss_percent=sending.loss_percent)
