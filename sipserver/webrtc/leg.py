"""A browser as the rest of the server sees it: plain asyncio, no aiortc in reach.

Owns time, sound, digits and events of the leg, whichever connection carries them now. Refuses to know SDP, HTTP and
what is done with the call. Satisfies `calls.leg.Leg` structurally.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sipserver.audio import tones
from sipserver.audio.clock import LegClock
from sipserver.audio.frame import FRAME_MS, Frame
from sipserver.audio.inlet import joined
from sipserver.audio.playout import Playout
from sipserver.audio.soft_leg import SoftLeg
from sipserver.codecs import table
from sipserver.errors import CarrierError
from sipserver.events import (
    BitRateChanged,
    DigitReceived,
    IceChanged,
    LegAnswered,
    MediaRecovered,
    MediaStalled,
    MediaStarted,
    RtpStats,
)
from sipserver.webrtc.bit_rate import BitRate
from sipserver.webrtc.peer import PathReport
from sipserver.webrtc.sound import FromNetwork, ToNetwork

_MOST_DIGITS = 64
"""In one message."""
_REPORT_TICKS = 1000 // FRAME_MS
_STATS_REPORTS = 5
_SILENT_TICKS = 10
"""With DTX, silence of so long is no longer sent,"""
_COMFORT_TICKS = 20
"""but for one packet in 400 ms (RFC 7587, 3.1.3)."""
_MOST_SHOWN = 100
"""Messages that wait for the data channel to open; beyond them the oldest go."""


class Carrier(Protocol):
    """The connection that carries the leg now; `peer.Peer` satisfies it."""

    codec: table.Codec
    payload_type: int

    @property
    def has_channel(self) -> bool: ...

    def send(self, payload: bytes, timestamp: int) -> None: ...

    def tell(self, text: str) -> bool: ...

    def pair(self) -> tuple[str, str]: ...

    async def report(self) -> PathReport: ...


@dataclass(frozen=True, slots=True)
class BrowserOffer:
    """Satisfies `calls.leg.Offer`. sip_call_id: the id of the session. variables: of its token."""

    to_user: str
    from_user: str
    source: str
    sip_call_id: str
    direction: str = "inbound"
    trunk: str = ""
    transport: str = "webrtc"
    headers: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    call_id: str = ""
    tenant: str = ""

    @property
    def from_uri(self) -> str:
        return f"sip:{self.from_user}@webrtc.invalid"

    @property
    def to_uri(self) -> str:
        return f"sip:{self.to_user}@webrtc.invalid"


class BrowserLeg(SoftLeg):
    """Loop thread. Made when the path to the browser is there; `use` gives it that path and every later one.

    on_end: called once, after the last word: the session closes its connection. stalled_s: no packet for so long is
    told.
    """

    def __init__(
        self,
        offer: BrowserOffer,
        bit_rates: tuple[int, int],
        on_end: Callable[[], object],
        clock: LegClock,
        *,
        stalled_s: float = 2.0,
    ) -> None:
        super().__init__(clock)
        self._offer, self._on_end = offer, on_end
        self._bit_rate = BitRate(*bit_rates)
        self._stalled_s = stalled_s
        self._carrier: Carrier | None = None
        self._inbound: FromNetwork | None = None
        self._outbound: ToNetwork | None = None
        self._shown: deque[str] = deque(maxlen=_MOST_SHOWN)
        self._timestamp = 0
        self._looped_to = 0
        self._ticks = self._quiet_ticks = self._reports = 0
        self._heard_s = 0.0
        self._stalled = False
        self._reporting: asyncio.Task[None] | None = None
        self._path = PathReport()
        self._reported_at: object = None
        self._before = (0, 0, 0, 0)  # received, lost, sent, remote_lost of earlier connections
        self._answered = False

    # --- calls.leg.Leg ------------------------------------------------------------------------------------------------

    @property
    def offer(self) -> BrowserOffer:
        return self._offer

    @property
    def playout(self) -> Playout:
        return self._playout

    @property
    def wants_inband_digits(self) -> bool:
        """True for a page without a data channel."""
        return self._carrier is not None and not self._carrier.has_channel

    @property
    def can_refer(self) -> bool:
        return False

    async def ring(self) -> None:
        """Tell the page. Raises CarrierError when the leg is gone."""
        self._require()
        self.show({"kind": "call.state", "state": "ringing"})

    async def early(self) -> None:
        """Nothing: sound flows both ways since the leg began."""
        self._require()

    async def answer(self) -> None:
        """Raises CarrierError when the leg is gone. Answering twice does nothing."""
        self._require()
        if not self._answered:
            self._answered = True
            self._emit(LegAnswered(200))
            self.show({"kind": "call.state", "state": "answered"})

    async def reject(self, code: int, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Tell the page the code and the reason, and end the session."""
        if not 400 <= code <= 699:
            raise ValueError(f"{code} does not refuse a call")
        self.gone(code, reason or f"refused with {code}", by_peer=False)

    async def hangup(self, code: int = 0) -> None:
        """Tell the page and end the session. `LegDisconnected` is out when it returns."""
        self.gone(code, "hung up", by_peer=False)

    async def send_digits(self, digits: str, duration_ms: int = 160) -> None:
        """To the page as a message, and as tones, which a person hears. Returns when the last digit is over."""
        keys = self._keys(digits)
        self.show({"kind": "digits", "digits": keys})
        await self._play_tones(keys, duration_ms)

    async def refer(self, to_uri: str, *, replaces: Any = None) -> int:
        """Raises CarrierError (501): a page has nobody to call in our place."""
        self._require()
        raise CarrierError("a browser cannot be transferred", 501)

    # --- beyond calls.leg.Leg -----------------------------------------------------------------------------------------

    def show(self, message: Mapping[str, Any]) -> None:
        """Tell the page something about its call. Waits while there is no channel; beyond 100 the oldest go."""
        if self._gone is None:
            self._shown.append(json.dumps(message, separators=(",", ":")))
            self._tell()

    @property
    def unshown(self) -> tuple[str, ...]:
        """Messages for the page that no channel has taken yet."""
        return tuple(self._shown)

    # --- fed by the session -------------------------------------------------------------------------------------------

    def use(self, carrier: Carrier) -> None:
        """This connection carries the leg from now on. It is connected."""
        if self._gone is not None:
            return
        before, self._carrier = self._carrier, carrier
        if before is None or before.codec != carrier.codec:
            self._outbound = ToNetwork(carrier.codec, self._bit_rate.sending)
            self._timestamp = self._looped_to = 0
        received, lost, sent, remote_lost = self._before
        path, self._path = self._path, PathReport()
        self._before = (received + path.received, lost + path.lost, sent + path.sent, remote_lost + path.remote_lost)
        self._inbound = FromNetwork(carrier.codec)
        self._heard_s = time.monotonic()
        pair, remote = carrier.pair()
        self._emit(IceChanged("connected", pair))
        self._emit(
            MediaStarted(
                carrier.codec.encoding,
                carrier.payload_type,
                carrier.codec.clock_hz,
                remote or self._offer.source,
                encrypted=True,
            )
        )
        self._tell()
        self._clock.join(self, self._tick)

    def heard(self, sequence: int, timestamp: int, payload: bytes) -> None:
        """A packet of the connection that carries the leg."""
        if self._gone is not None or self._carrier is None or self._inbound is None:
            return
        now_s = time.monotonic()
        if self._stalled:
            self._stalled = False
            self._emit(MediaRecovered(round((now_s - self._heard_s) * 1000)))
        self._heard_s = now_s
        if self._loops:
            step = self._carrier.codec.clock_hz * FRAME_MS // 1000
            self._looped_to = max(self._looped_to + step, self._timestamp)
            self._carrier.send(payload, self._looped_to)
        if self._listened:
            self._inbound.put(sequence, timestamp, payload)

    def told(self, text: str) -> None:
        """A message of the page: `{"digits": "123"}`, `{"ping": ...}`, `{"hangup": true}`. What is none is ignored."""
        if self._gone is not None:
            return
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(body, dict):
            return
        if isinstance(digits := body.get("digits"), str):
            for digit in digits[:_MOST_DIGITS].upper():
                if digit in tones.DIGITS:
                    self._emit(DigitReceived(digit, "webrtc"))
        if isinstance(at := body.get("ping"), int | float) and self._carrier is not None:
            self._carrier.tell(json.dumps({"pong": at}))
        if body.get("hangup") is True:
            self.gone(0, "hung up", by_peer=True)

    def opened(self) -> None:
        """The data channel is there."""
        self._tell()

    def dropped(self, state: str) -> None:
        """The path broke; the clock goes on while another one may come."""
        if self._gone is None:
            self._emit(IceChanged(state))

    def gone(self, code: int, cause: str, *, by_peer: bool) -> None:
        """The last word. Idempotent."""
        if self._gone is not None:
            return
        self.show({"kind": "hangup", "code": code, "reason": cause})
        self._clock.leave(self)
        if self._reporting is not None:
            self._reporting.cancel()
        if self._inbound is not None:
            self._emit(self._stats())
        self._last_word(code, cause, by_peer=by_peer)
        self._on_end()

    # --- the clock ----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._ticks += 1
        assert self._inbound is not None
        assert self._carrier is not None
        self._timestamp += self._carrier.codec.clock_hz * FRAME_MS // 1000
        samples = self._inbound.pull() if self._listened else None
        own = self._playout.pull()
        played = joined(own, self._inlet.pull())
        if not self._loops:
            self._send(played)
        if self._listened:
            self._hand_over(samples, own)
        if self._playout.watched:
            self._playout.tick()
        self._watch()

    def _send(self, played: bytes | None) -> None:
        assert self._carrier is not None
        assert self._outbound is not None
        if played is None:
            self._quiet_ticks += 1
            quiet = self._quiet_ticks - _SILENT_TICKS
            if self._bit_rate.sending.dtx and quiet > 0 and quiet % _COMFORT_TICKS:
                return
        else:
            self._quiet_ticks = 0
        frame = Frame.silence(0) if played is None else Frame.of_payload(played, 0)
        if payload := self._outbound.encode(frame.samples):
            self._carrier.send(payload, self._timestamp)

    def _watch(self) -> None:
        silent_s = time.monotonic() - self._heard_s
        if not self._stalled and silent_s >= self._stalled_s:
            self._stalled = True
            self._emit(MediaStalled(round(silent_s * 1000)))
        if self._ticks % _REPORT_TICKS == 0 and (self._reporting is None or self._reporting.done()):
            self._reporting = asyncio.create_task(self._report(), name="webrtc report")

    # --- statistics ---------------------------------------------------------------------------------------------------

    async def _report(self) -> None:
        carrier = self._carrier
        assert carrier is not None
        path = await carrier.report()
        if carrier is not self._carrier or self._gone is not None:
            return
        self._path = path
        if path.remote_loss_percent is not None and path.at != self._reported_at:
            self._reported_at = path.at
            self._adapt(path.remote_loss_percent, path.round_trip_ms)
        self._reports += 1
        if self._reports % _STATS_REPORTS == 0:
            self._emit(self._stats())

    def _adapt(self, loss_percent: float, round_trip_ms: float | None) -> None:
        if self._outbound is None or self._carrier is None or self._carrier.codec.encoding != "opus":
            return
        sending = self._bit_rate.report(loss_percent, round_trip_ms)
        if sending is not None:
            self._outbound.set(sending)
            trip_ms = None if round_trip_ms is None else round(round_trip_ms, 1)
            loss = round(self._bit_rate.loss_percent, 1)
            self._emit(BitRateChanged(sending.bit_rate, loss, trip_ms, sending.fec, sending.dtx))

    def _stats(self) -> RtpStats:
        path, jitter = self._path, None if self._inbound is None else self._inbound.jitter
        received, lost, sent, remote_lost = self._before
        trip_ms = path.round_trip_ms
        return RtpStats(
            received=received + path.received,
            lost=lost + path.lost,
            duplicated=0 if jitter is None else jitter.duplicated,
            reordered=0 if jitter is None else jitter.reordered,
            discarded=0 if jitter is None else jitter.discarded + jitter.late,
            jitter_ms=round(path.jitter_ms, 2),
            sent=sent + path.sent,
            remote_lost=remote_lost + path.remote_lost,
            remote_jitter_ms=round(path.remote_jitter_ms, 2),
            round_trip_ms=None if trip_ms is None else round(trip_ms, 2),
            mos=None,
        )

    # --- inside -------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        carrier = self._carrier
        while self._shown and carrier is not None and carrier.tell(self._shown[0]):
            self._shown.popleft()
