"""What every codec is: an encoder and a decoder between RTP payloads and mono int16 samples at the codec's audio rate.

Both keep state from packet to packet: one instance per direction and stream, used by one thread at a time. They never
block.
"""

from __future__ import annotations

from typing import Protocol

from sipserver.audio.frame import Samples


class Encoder(Protocol):
    @property
    def rate_hz(self) -> int:
        """The audio rate of the samples it takes; not always the RTP clock."""
        ...

    def encode(self, samples: Samples) -> bytes:
        """One packet's payload out of shape (n,) int16, n being a whole packet time. Raises ValueError for other n."""
        ...


class Decoder(Protocol):
    @property
    def rate_hz(self) -> int:
        """The audio rate of the samples it gives."""
        ...

    def decode(self, payload: bytes) -> Samples:
        """Shape (n,) int16. Raises errors.BadPayload for bytes that cannot be a packet; the decoder stays usable."""
        ...

    def conceal(self, duration_ms: int = 20) -> Samples:
        """What to play in place of lost packets of that length: what was heard last, fading out."""
        ...
