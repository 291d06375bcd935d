"""What the sip thread tells the loop about one call: plain values, no pjsua2 object among them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One SIP message of the call as it was on the wire, not yet redacted."""

    direction: str  # received | sent
    peer: str
    text: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The three-way handshake is complete: the ACK came, or was sent. can_refer, can_replace: what the peer's Allow and
    Supported say, True where it sent no Allow.
    """

    can_refer: bool = True
    can_replace: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """A provisional answer came to our INVITE. media: with SDP."""

    code: int
    media: bool = False


@dataclass(frozen=True, slots=True)
class ReferStatus:
    """What the peer says about our REFER: its refusal, or its NOTIFY's status line. final: nothing follows. refused: it
    did not take the REFER at all.
    """

    code: int
    reason: str
    final: bool
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Referred:
    """The peer asked by REFER to be replaced by somebody else. code: our answer."""

    code: int
    target: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """Another dialog has taken the call's place. by: replaces | refer."""

    by: str
    uri: str
    source: str
    sip_call_id: str


@dataclass(frozen=True, slots=True)
class MediaUp:
    """The audio stream runs, for the first time or after a re-INVITE. held: the peer does not want to hear us.
    encrypted: by SRTP; None on a call whose trunk does not offer it.
    """

    codec: str
    payload_type: int
    clock_hz: int
    remote: str
    telephone_event: int | None
    held: bool
    encrypted: bool | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A piece of a key press. mark: the same for all pieces of one press."""

    digit: str
    method: str  # rfc4733 | info
    mark: int
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Totals of the leg's RTP at one moment; `source` and `ssrc` are empty and None before the first packet."""

    at_s: float  # time.monotonic()
    received: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    discarded: int = 0
    jitter_ms: float = 0.0
    sent: int = 0
    remote_lost: int = 0
    remote_jitter_ms: float = 0.0
    round_trip_ms: float | None = None
    buffer_ms: float = 0.0
    source: str = ""
    ssrc: int | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """PJSIP has let go of the call. by_peer: a BYE, CANCEL or refusal of the far end did it."""

    code: int
    cause: str
    by_peer: bool
    last: Snapshot | None


Fact = Message | Confirmed | Progress | ReferStatus | Referred | Replaced | MediaUp | Key | Snapshot | Ended
