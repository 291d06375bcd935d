"""What a call needs from a leg. `sip`, `streams` and `webrtc` satisfy this structurally and never import it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sipserver.audio.frame import Frame
from sipserver.audio.playout import Playout
from sipserver.events import Emit

OnMedia = Callable[[Frame, Frame], None]
"""Called on the loop once per 20 ms while media runs: (what the caller said, what was played at the same moment).

What other legs feed it is not in the second: they tell it themselves.
"""


class Offer(Protocol):
    """The facts of a leg, fixed when it arrives."""

    @property
    def direction(self) -> str: ...  # inbound | outbound
    @property
    def from_uri(self) -> str: ...
    @property
    def from_user(self) -> str: ...
    @property
    def to_uri(self) -> str: ...  # the request URI's user and host decide the route
    @property
    def to_user(self) -> str: ...
    @property
    def source(self) -> str: ...  # host:port of the peer
    @property
    def transport(self) -> str: ...  # udp | tcp | tls | ws
    @property
    def sip_call_id(self) -> str: ...
    @property
    def trunk(self) -> str: ...  # name of the trunk that the edge found for it; empty without one
    @property
    def headers(self) -> Mapping[str, str]: ...  # custom headers by lower-case name; repeated ones joined by ", "


class Leg(Protocol):
    """One party of a call. All methods belong to the loop; none blocks it.

    After the peer or we end the leg, exactly one `LegDisconnected` is emitted and `on_media` is not called again.
    Methods on a leg that is gone do nothing (`hangup`, `reject`) or raise `errors.CarrierError` (all others).
    """

    @property
    def offer(self) -> Offer: ...

    @property
    def playout(self) -> Playout:
        """Sound for the far end. The leg calls `playout.tick()` once per 20 ms."""
        ...

    @property
    def wants_inband_digits(self) -> bool:
        """True when neither telephone-event was negotiated nor an INFO digit has come: the call then detects tones."""
        ...

    def attach(self, emit: Emit, on_media: OnMedia) -> None:
        """Connect the call. Events that happened before are delivered at once. Called exactly once."""
        ...

    def hear(self, wanted: bool) -> None:
        """Whether `on_media` is to be called: sound that nobody wants costs nothing. It is, until this says otherwise.

        Nothing on a leg that is gone.
        """
        ...

    def loop_back(self, on: bool) -> None:
        """Send the far end's sound straight back to it, or no longer. `on_media` tells it as played. Nothing on a leg
        that is gone.
        """
        ...

    def feed(self, other: Any, on: bool) -> None:
        """Send this party's sound to another leg of this process, or no longer; mixed with all else that it gets.

        Both ways make a bridge, all pairs of several legs a conference. Between two SIP legs within PJMEDIA, no Python
        in the path; to a leg of another kind by its `take`. It holds through holds and re-INVITEs. Nothing on a leg
        that is gone.
        """
        ...

    def take(self, source: object, frame: Frame) -> None:
        """20 ms of another leg's sound for this party, once per tick of that leg, while that one feeds us.

        A few frames wait for our own clock, beyond that the oldest are dropped. source: who feeds; sources are mixed.
        Nothing on a leg that is gone.
        """
        ...

    async def ring(self) -> None:
        """180 Ringing. On a leg that we place: nothing."""
        ...

    async def early(self) -> None:
        """183 Session Progress with SDP; media flows both ways when it returns. On a leg that we place: nothing."""
        ...

    async def answer(self) -> None:
        """200 OK; returns when the ACK came or media runs, whichever is first. On a leg that we place: wait for the far
        end's 200; a refusal raises CarrierError with its status.
        """
        ...

    async def reject(self, code: int, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Refuse an unanswered leg with a final 4xx-6xx."""
        ...

    async def hangup(self, code: int = 0) -> None:
        """BYE when answered, CANCEL or a final answer otherwise."""
        ...

    async def send_digits(self, digits: str, duration_ms: int = 160) -> None:
        """RFC 4733 when negotiated, tones in band otherwise."""
        ...

    async def refer(self, to_uri: str, *, replaces: Any = None) -> int:
        """Have the peer call somebody else in our place (REFER, RFC 3515), and wait for its last word about it.

        replaces: a leg of the same kind, answered, whose dialog the new call is to replace (RFC 3891). Returns the
        final status of the peer's NOTIFY; emits `ReferProgress` for each. Raises CarrierError with the status when the
        peer refuses the REFER, when it does not tell within its time, or when the leg ends first. The leg goes on
        afterwards: the peer, or we, hang it up.
        """
        ...

    @property
    def can_refer(self) -> bool:
        """Whether the peer's Allow names REFER, or it sent none."""
        ...

    @property
    def can_replace(self) -> bool:
        """Whether the peer's Supported names `replaces`."""
        ...
