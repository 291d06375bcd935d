"""What a stream leg needs of the protocol on its WebSocket, and what the protocol may tell the leg.

The leg (`leg.py`) owns time: when a frame is due, what was played, what is missing. A protocol (`twilio.py`,
`vonage.py`, `voice.py`) owns the words on the wire. All of it: loop thread; nothing here blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

WireFormat = Literal["mulaw8", "l16_8", "l16_16", "l16_24"]
"""How 20 ms of sound look on the wire: G.711 mu-law at 8 kHz (160 bytes), or little-endian 16 bit samples at 8, 16, 24
kHz (320, 640, 960 bytes). Vonage and browsers send L16 little-endian, unlike RTP."""


class Line(Protocol):
    """The far end, as the leg drives it."""

    @property
    def wire(self) -> WireFormat: ...

    @property
    def lead_ms(self) -> int:
        """How much sound is to lie with the far end ahead of its time."""
        ...

    @property
    def marks(self) -> bool:
        """Whether the far end tells when something was played (`mark`)."""
        ...

    @property
    def can_refer(self) -> bool: ...

    def play(self, payload: bytes) -> None:
        """20 ms of sound, in `wire`. Never blocks; what a slow client cannot take is dropped and counted there."""
        ...

    def mark(self, name: str) -> None:
        """Have the far end tell `marked(name)` when all that was sent before was played. Only if `marks`."""
        ...

    def clear(self) -> None:
        """The far end throws away what it has not played yet."""
        ...

    async def press(self, digits: str, duration_ms: int) -> bool:
        """Send digits out of band. False: the protocol cannot; the leg sends tones."""
        ...

    async def refer(self, to_uri: str) -> int:
        """Have the carrier connect its caller to somebody else; see `calls.leg.Leg.refer`. Only if `can_refer`."""
        ...

    async def hang_up(self, code: int, reason: str) -> None:
        """End the call at the far end: close, or ask the carrier. code: a SIP status that says why; 0: as usual."""
        ...


class Told(Protocol):
    """What a protocol tells the leg; `leg.StreamLeg` satisfies it."""

    def connected(self) -> None:
        """The stream runs: sound may go both ways. Again after a resume."""
        ...

    def heard(self, payload: bytes) -> None:
        """Sound of the far end in `wire`, of any length, as it came."""
        ...

    def marked(self, name: str, *, cleared: bool = False) -> None:
        """A mark came back. cleared: its sound was thrown away."""
        ...

    def pressed(self, digit: str) -> None: ...

    def noted(self, direction: str, summary: str, text: str = "") -> None:
        """A message of the protocol other than sound, for the record."""
        ...

    def misread(self, *, unknown: bool = False) -> None:
        """A message could not be read, or is one we do not know: ignored and counted."""
        ...

    def dropped(self, code: int, cause: str) -> None:
        """The connection broke, and the call waits for another one."""
        ...

    def gone(self, code: int, cause: str, *, by_peer: bool) -> None:
        """The far end is gone for good: the leg's last word follows. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class StreamOffer:
    """Satisfies `calls.leg.Offer`. sip_call_id: the carrier's own id of the call (Twilio's CallSid). headers: what came
    with it, by lower-case name. variables: start values of the dialplan's variables.
    """

    direction: str
    from_uri: str
    from_user: str
    to_uri: str
    to_user: str
    source: str
    sip_call_id: str
    trunk: str = ""
    transport: str = "ws"
    headers: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    call_id: str = ""
    tenant: str = ""
