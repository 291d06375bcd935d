"""What legs over WebSockets and WebRTC tell beyond what every leg tells, and the steps that use somebody's bot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import Event, LegEvent, private


@dataclass(frozen=True, slots=True)
class StreamMessage(LegEvent):
    """One message of a stream's protocol, sound apart. summary: its name (`start`, `mark m1`). text: what it said."""

    kind: ClassVar[str] = "stream.message"
    direction: str  # received | sent
    summary: str
    text: str = private()


@dataclass(frozen=True, slots=True)
class StreamDropped(LegEvent):
    """The connection broke; the call waits for the client to come back."""

    kind: ClassVar[str] = "stream.dropped"
    code: int
    cause: str = ""


@dataclass(frozen=True, slots=True)
class StreamResumed(LegEvent):
    """The client came back after_ms later; replayed_ms of our sound were sent again."""

    kind: ClassVar[str] = "stream.resumed"
    after_ms: int
    replayed_ms: int = 0


@dataclass(frozen=True, slots=True)
class StreamStats(LegEvent):
    """Every 5 s and once at the end; totals. received, sent: 20 ms frames. concealed: frames that we made up because
    none came in time; discarded: frames thrown away because too many came. drift_ppm: how much faster the peer's clock
    runs than ours. bad: messages that could not be read; unknown: events that we do not know; both were ignored.
    round_trip_ms: from a mark to its return, or of a ping; None: not known.
    """

    kind: ClassVar[str] = "stream.stats"
    received: int
    sent: int
    concealed: int = 0
    discarded: int = 0
    drift_ppm: float | None = None
    bad: int = 0
    unknown: int = 0
    marks_played: int = 0
    marks_cleared: int = 0
    round_trip_ms: float | None = None


@dataclass(frozen=True, slots=True)
class IceChanged(LegEvent):
    """State of the path to a browser (W3C RTCIceConnectionState). pair: the kinds of both ends, e.g. `host-relay`."""

    kind: ClassVar[str] = "webrtc.ice"
    state: str
    pair: str = ""


@dataclass(frozen=True, slots=True)
class BitRateChanged(LegEvent):
    """What we send to a browser follows its receiver reports (RFC 3550, 6.4.1)."""

    kind: ClassVar[str] = "webrtc.bit_rate"
    bit_rate: int
    loss_percent: float
    round_trip_ms: float | None = None
    fec: bool = False
    dtx: bool = False


@dataclass(frozen=True, slots=True)
class BotConnected(Event):
    """The `stream` step reached somebody's bot."""

    kind: ClassVar[str] = "bot.connected"
    protocol: str
    took_ms: int
    url: str = private()


@dataclass(frozen=True, slots=True)
class BotDisconnected(Event):
    """It is over. by: who ended it: `bot`, `us`, `fault`. heard_ms: what the caller heard of the bot."""

    kind: ClassVar[str] = "bot.disconnected"
    by: str
    code: int = 0
    cause: str = ""
    sent_frames: int = 0
    heard_ms: int = 0


@dataclass(frozen=True, slots=True)
class BotMark(Event):
    """A mark of the bot was told back. played: False when a `clear` threw its sound away before it was heard."""

    kind: ClassVar[str] = "bot.mark"
    name: str
    played: bool
