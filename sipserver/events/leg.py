"""What a leg tells: the call's own, or another party's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import LegEvent, private


@dataclass(frozen=True, slots=True)
class SipMessage(LegEvent):
    """One SIP message on the wire; text is the whole message with credentials and SDP keys redacted."""

    kind: ClassVar[str] = "sip.message"
    direction: str  # received | sent
    summary: str  # "INVITE" or "200 OK (INVITE)"
    peer: str = ""
    text: str = private()


@dataclass(frozen=True, slots=True)
class LegProgress(LegEvent):
    """A provisional answer to a call that we place. media: it came with SDP, so that early media may be heard."""

    kind: ClassVar[str] = "leg.progress"
    code: int
    media: bool = False


@dataclass(frozen=True, slots=True)
class LegAnswered(LegEvent):
    """Somebody answered: the caller got our answer, or a party that we called gave theirs."""

    kind: ClassVar[str] = "leg.answered"
    code: int = 200


@dataclass(frozen=True, slots=True)
class LegDisconnected(LegEvent):
    """The leg is gone for good; the leg's last event but one `RtpStats`. by_peer: the far end sent BYE or CANCEL."""

    kind: ClassVar[str] = "leg.disconnected"
    code: int
    cause: str
    by_peer: bool


@dataclass(frozen=True, slots=True)
class LegReplaced(LegEvent):
    """Another party took the leg's place: by INVITE with Replaces, or because the peer transferred us (REFER)."""

    kind: ClassVar[str] = "leg.replaced"
    by: str  # replaces | refer
    uri: str = private()
    source: str = ""
    sip_call_id: str = ""


@dataclass(frozen=True, slots=True)
class ReferReceived(LegEvent):
    """The peer asks that we call somebody in its place (RFC 3515). code: our answer, 202 or 603."""

    kind: ClassVar[str] = "refer.received"
    code: int
    target: str = private()


@dataclass(frozen=True, slots=True)
class ReferProgress(LegEvent):
    """What the peer's NOTIFY says about the REFER that we sent. final: it is the last word."""

    kind: ClassVar[str] = "refer.progress"
    code: int
    final: bool = False


@dataclass(frozen=True, slots=True)
class LegHeld(LegEvent):
    """The far end, or we, put the leg on hold."""

    kind: ClassVar[str] = "leg.held"
    by_peer: bool = True


@dataclass(frozen=True, slots=True)
class LegResumed(LegEvent):
    """The leg is off hold again."""

    kind: ClassVar[str] = "leg.resumed"
    by_peer: bool = True


@dataclass(frozen=True, slots=True)
class MediaStarted(LegEvent):
    """Sound flows; also again, when the codec or the address was agreed anew."""

    kind: ClassVar[str] = "media.started"
    codec: str
    payload_type: int
    clock_hz: int
    remote: str  # host:port
    telephone_event: int | None = None  # negotiated payload type; None: digits need INFO or in-band detection
    encrypted: bool | None = None  # by SRTP; None where the trunk does not offer it, or an edge does it


@dataclass(frozen=True, slots=True)
class MediaSourceChanged(LegEvent):
    """RTP comes from another address or SSRC than before: a moved peer, or a stranger."""

    kind: ClassVar[str] = "media.source_changed"
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class MediaStalled(LegEvent):
    """No RTP packet arrived for silent_ms although the call is not on hold."""

    kind: ClassVar[str] = "media.stalled"
    silent_ms: int


@dataclass(frozen=True, slots=True)
class MediaRecovered(LegEvent):
    """RTP comes again after a standstill of silent_ms."""

    kind: ClassVar[str] = "media.recovered"
    silent_ms: int


@dataclass(frozen=True, slots=True)
class RtpStats(LegEvent):
    """Every 5 s and once at the end. Counts are totals since the leg began. mos: estimated (ITU-T G.107 E-model)."""

    kind: ClassVar[str] = "media.rtp"
    received: int
    lost: int
    duplicated: int
    reordered: int
    discarded: int
    jitter_ms: float
    sent: int
    remote_lost: int
    remote_jitter_ms: float
    round_trip_ms: float | None
    mos: float | None


@dataclass(frozen=True, slots=True)
class DigitReceived(LegEvent):
    """The far end pressed a key."""

    kind: ClassVar[str] = "digit.received"
    digit: str = private()
    method: str = "rfc4733"  # rfc4733 | info | inband
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True)
class DigitsSent(LegEvent):
    """We pressed keys for the far end to hear."""

    kind: ClassVar[str] = "digit.sent"
    digits: str = private()
