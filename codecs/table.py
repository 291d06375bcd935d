"""The codecs that there are: their names in SDP, payload types, clocks and rates, and who makes them.

Names, static payload types and clock rates are those of RFC 3551 (table 4) and RFC 7587.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sipserver.codecs.contract import Decoder, Encoder
from sipserver.codecs.g711 import G711Decoder, G711Encoder
from sipserver.codecs.g722 import G722Decoder, G722Encoder
from sipserver.codecs.l16 import L16Decoder, L16Encoder


@dataclass(frozen=True, slots=True)
class Codec:
    """encoding, clock_hz, channels: as SDP's rtpmap names them. payload_type: static; None means dynamic, 96-127.

    audio_hz: rate of the samples that encoder and decoder exchange, always mono. ptime_ms: usual packet time.
    """

    encoding: str
    payload_type: int | None
    clock_hz: int
    audio_hz: int
    channels: int = 1
    ptime_ms: int = 20
    fmtp: str = ""

    @property
    def rtpmap(self) -> str:
        """`PCMU/8000`, `opus/48000/2`."""
        return f"{self.encoding}/{self.clock_hz}" + (f"/{self.channels}" if self.channels > 1 else "")

    def clock_ticks(self, samples: int) -> int:
        """By how much the RTP timestamp grows for so many samples."""
        return samples * self.clock_hz // self.audio_hz

    def at(self, audio_hz: int) -> Codec:
        """The same codec with samples at another rate. Raises ValueError: only Opus has a choice (8-48 kHz)."""
        if self.encoding != "opus" and audio_hz != self.audio_hz:
            raise ValueError(f"{self.rtpmap} has {self.audio_hz} Hz")
        return replace(self, audio_hz=audio_hz)


PCMU = Codec("PCMU", 0, 8_000, 8_000)
PCMA = Codec("PCMA", 8, 8_000, 8_000)
G722 = Codec("G722", 9, 8_000, 16_000)
L16_8K = Codec("L16", None, 8_000, 8_000)
L16_16K = Codec("L16", None, 16_000, 16_000)
L16_24K = Codec("L16", None, 24_000, 24_000)
OPUS = Codec("opus", None, 48_000, 16_000, channels=2, fmtp="useinbandfec=1")

CODECS = (PCMU, PCMA, G722, L16_8K, L16_16K, L16_24K, OPUS)


def find(encoding: str, clock_hz: int | None = None) -> Codec | None:
    """By the name in SDP, in any case, and the clock rate where a name has several; None if there is no such codec."""
    for codec in CODECS:
        if codec.encoding.lower() == encoding.lower() and clock_hz in {None, codec.clock_hz}:
            return codec
    return None


def by_payload_type(payload_type: int) -> Codec | None:
    """The codec of a static payload type, for SDP that leaves its rtpmap out."""
    return next((codec for codec in CODECS if codec.payload_type == payload_type), None)


def encoder(codec: Codec) -> Encoder:
    """A new encoder. Raises ValueError for an audio rate the codec does not know, ConfigError without libopus."""
    return _FACTORIES[codec.encoding][0](codec)


def decoder(codec: Codec) -> Decoder:
    """A new decoder; see `encoder`."""
    return _FACTORIES[codec.encoding][1](codec)


def _opus_encoder(codec: Codec) -> Encoder:
    from sipserver.codecs.opus import OpusEncoder  # libopus is loaded for those who have Opus calls

    return OpusEncoder(codec.audio_hz, ptime_ms=codec.ptime_ms)


def _opus_decoder(codec: Codec) -> Decoder:
    from sipserver.codecs.opus import OpusDecoder

    return OpusDecoder(codec.audio_hz)


_FACTORIES: dict[str, tuple[Callable[[Codec], Encoder], Callable[[Codec], Decoder]]] = {
    "PCMU": (lambda _: G711Encoder.mu_law(), lambda _: G711Decoder.mu_law()),
    "PCMA": (lambda _: G711Encoder.a_law(), lambda _: G711Decoder.a_law()),
    "G722": (lambda _: G722Encoder(), lambda _: G722Decoder()),
    "L16": (lambda codec: L16Encoder(codec.audio_hz), lambda codec: L16Decoder(codec.audio_hz)),
    "opus": (_opus_encoder, _opus_decoder),
}
