"""A call over a WebSocket as the rest of the server sees it: plain asyncio, no message in reach.

Owns time: which frame is due, what was played, what is missing; the events and commands of the leg. Refuses to know the
words of a protocol (`contract.Line` speaks them) and what is done with the call. Satisfies `calls.leg.Leg` and
`contract.Told`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sipserver.audio import tones
from sipserver.audio.clock import LegClock
from sipserver.audio.frame import FRAME_MS, SILENCE_PAYLOAD, Frame
from sipserver.audio.inlet import joined
from sipserver.audio.playout import Playout
from sipserver.audio.soft_leg import SoftLeg
from sipserver.errors import BadPayload, CarrierError
from sipserver.events import (
    DigitReceived,
    LegAnswered,
    LegProgress,
    MediaRecovered,
    MediaStalled,
    MediaStarted,
    StreamDropped,
    StreamMessage,
    StreamResumed,
    StreamStats,
)
from sipserver.gate.tokens import Claims
from sipserver.log import logger
from sipserver.streams.ahead import Ahead
from sipserver.streams.contract import Line, StreamOffer
from sipserver.streams.inbound import MOST_MS, Inbound
from sipserver.streams.wire import RATES_HZ, FromWire, ToWire

_STATS_TICKS = 5000 // FRAME_MS
_SECOND = 1000 // FRAME_MS
_NO_ANSWER = 408


class Accept(Protocol):
    """Who makes calls of legs."""

    def __call__(self, leg: StreamLeg, claims: Claims) -> None: ...


class StreamLeg(SoftLeg):
    """All methods: loop thread. One that a carrier brings is answered already; one that we place waits for `connected`.

    stalled_s: no sound from the peer for so long is told. record_messages: tell the protocol's messages as events.
    waiting_ms: so much of the peer's sound may wait for its time.
    """

    def __init__(
        self,
        offer: StreamOffer,
        line: Line,
        clock: LegClock,
        *,
        stalled_s: float = 2.0,
        record_messages: bool = True,
        waiting_ms: int = MOST_MS,
    ) -> None:
        super().__init__(clock)
        self._offer, self._line = offer, line
        self._stalled_ticks, self._records = round(stalled_s * 1000 / FRAME_MS), record_messages
        self._playout.unheard = lambda: self._ahead.unheard(self._playout.taken)
        self._playout.on_flush = self._flushed
        self._inbound, self._ahead = Inbound(most_ms=waiting_ms), Ahead()
        self._from_wire, self._to_wire = FromWire(line.wire), ToWire(line.wire)
        self._lead = line.lead_ms // FRAME_MS
        self._marked_to = 0
        self._ticks = self._silent_ticks = 0
        self._silent_since_s = 0.0
        self._stalled = False
        self._received = self._sent = self._bad = self._unknown = 0
        self._answered = self._started = False
        self._dropped_at_s: float | None = None
        self._up = asyncio.Event()
        self.round_trip_ms: Callable[[], float | None] = _unknown
        """Of the connection, for the statistics."""
        self.show: Callable[[Mapping[str, Any]], None] | None = None
        """Tells the far end something about its call; None: it did not ask for that."""
        self.replayed_ms: Callable[[], int] = _nothing
        """How much of our sound the line sent again after the last resume."""

    # --- calls.leg.Leg ------------------------------------------------------------------------------------------------

    @property
    def offer(self) -> StreamOffer:
        return self._offer

    @property
    def playout(self) -> Playout:
        """Sound for the far end. A clip counts as heard when the far end has played it, as far as it tells."""
        return self._playout

    @property
    def wants_inband_digits(self) -> bool:
        """Carriers and browsers tell digits by messages."""
        return False

    @property
    def can_refer(self) -> bool:
        return self._line.can_refer

    async def ring(self) -> None:
        """Nothing: the carrier has answered its caller, or rings whom we call."""
        self._require()

    async def early(self) -> None:
        """Nothing: there is no sound before the answer that is not sound after it."""
        self._require()

    async def answer(self) -> None:
        """Return when the stream runs. Raises CarrierError when the leg is or goes away first. On a leg that we place:
        wait for the far end. Safe to cancel, also twice.
        """
        self._require()
        if not self._up.is_set():
            waits = [asyncio.ensure_future(event.wait()) for event in (self._up, self._ended)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
            self._require()
        self._accept()

    async def reject(self, code: int, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        """End the call at the carrier, which has answered it already: the code can only be told as a reason."""
        if not 400 <= code <= 699:
            raise ValueError(f"{code} does not refuse a call")
        await self._end(code, reason or f"refused with {code}")

    async def hangup(self, code: int = 0) -> None:
        """End the call. `LegDisconnected` follows."""
        await self._end(code, "")

    async def send_digits(self, digits: str, duration_ms: int = 160) -> None:
        """By the protocol where it can, tones otherwise. Returns when the last digit is over."""
        keys = self._keys(digits)
        if not await self._line.press(keys, duration_ms):
            await self._play_tones(keys, duration_ms)

    async def refer(self, to_uri: str, *, replaces: Any = None) -> int:
        """Have the carrier connect its caller to somebody else; see `calls.leg.Leg`.

        Raises CarrierError (501) where the protocol cannot, and for `replaces`: carriers know no dialogs.
        """
        self._require()
        if replaces is not None or not self._line.can_refer:
            raise CarrierError("the far end cannot be transferred", 501)
        return await self._line.refer(to_uri)

    # --- beyond calls.leg.Leg -----------------------------------------------------------------------------------------

    def progress(self, code: int) -> None:
        """The carrier tells how a call that we placed goes on: 180, 183."""
        if self._gone is None and not self._answered:
            self._emit(LegProgress(code))

    # --- contract.Told ------------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """The stream runs, for the first time or again."""
        if self._gone is not None:
            return
        self._silent_ticks = 0
        self._clock.join(self, self._tick)
        if self._dropped_at_s is not None:
            after_s, self._dropped_at_s = time.monotonic() - self._dropped_at_s, None
            self._emit(StreamResumed(after_ms=round(after_s * 1000), replayed_ms=self.replayed_ms()))
        if not self._started:
            self._started = True
            wire = self._line.wire
            codec, payload_type = ("PCMU", 0) if wire == "mulaw8" else ("L16", -1)
            self._emit(MediaStarted(codec, payload_type, RATES_HZ[wire], self._offer.source))
        self._up.set()
        if self._offer.direction == "outbound":
            self._accept()

    def heard(self, payload: bytes) -> None:
        """Sound of the far end. Before `connected`, and while nobody hears, it is not decoded."""
        if self._gone is not None:
            return
        self._received += 1
        if self._silent_ticks:
            self._speaks_again()
        if self._loops:
            self._line.play(payload)
            self._sent += 1
        if self._listened:
            try:
                self._inbound.put(self._from_wire.decode(payload))
            except BadPayload:
                self.misread()

    def marked(self, name: str, *, cleared: bool = False) -> None:
        """A mark came back: what was before it has been heard, or was thrown away."""
        if cleared:
            self._ahead.threw += 1
        else:
            self._ahead.returned(name)
        self._playout.tick()

    def pressed(self, digit: str) -> None:
        if self._gone is None and digit in tones.DIGITS:
            self._emit(DigitReceived(digit, "stream"))

    def noted(self, direction: str, summary: str, text: str = "") -> None:
        if self._records and self._gone is None:
            self._emit(StreamMessage(direction, summary, text))

    def misread(self, *, unknown: bool = False) -> None:
        if unknown:
            self._unknown += 1
        else:
            self._bad += 1

    def dropped(self, code: int, cause: str) -> None:
        """The connection broke: nothing goes out until `connected`; the clock goes on, so that silence is told."""
        if self._gone is None and self._dropped_at_s is None:
            self._dropped_at_s = time.monotonic()
            self._emit(StreamDropped(code, cause))

    def gone(self, code: int, cause: str, *, by_peer: bool) -> None:
        if self._gone is not None:
            return
        self._clock.leave(self)
        if self._started:
            self._emit(self._stats())
        self._playout.unheard = _nothing
        self._playout.on_flush = _nothing
        self._last_word(code, cause, by_peer=by_peer)

    # --- the clock ----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._ticks += 1
        self._watch()
        samples = self._inbound.pull() if self._listened else None
        played = None
        if self._dropped_at_s is None:
            played = self._ahead.tick()
            self._send()
        if self._listened:
            self._hand_over(samples, played)
        if self._playout.watched:
            self._playout.tick()
        if self._ticks % _STATS_TICKS == 0:
            self._emit(self._stats())

    def _send(self) -> None:
        """One frame, and at the beginning of a sound as many as are to lie with the far end."""
        playout, ahead, line = self._playout, self._ahead, self._line
        inlet, own = self._inlet.pull(), playout.pull()
        payload = joined(own, inlet)
        while payload is not None:
            line.play(self._to_wire.encode(Frame.of_payload(payload, 0).samples))
            self._sent += 1
            ahead.sent(own or SILENCE_PAYLOAD)  # what other legs say is told by them
            if inlet is not None or ahead.frames > self._lead:
                break
            payload = own = playout.pull()
        if line.marks and playout.watched:
            for end in playout.ends():
                if self._marked_to < end <= playout.taken:
                    self._marked_to = end
                    line.mark(ahead.mark(end))

    def _watch(self) -> None:
        """Count the ticks without sound; carriers send silence, too."""
        self._silent_ticks += 1
        if self._silent_ticks == self._stalled_ticks and not self._stalled:
            self._stalled = True
            self._silent_since_s = time.monotonic()
            self._emit(MediaStalled(silent_ms=self._silent_ticks * FRAME_MS))

    def _speaks_again(self) -> None:
        if self._stalled:
            self._stalled = False
            silent_s = time.monotonic() - self._silent_since_s
            self._emit(MediaRecovered(silent_ms=self._stalled_ticks * FRAME_MS + round(silent_s * 1000)))
        self._silent_ticks = 0

    # --- inside -------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        if not self._answered:
            self._answered = True
            self._emit(LegAnswered(200))

    def _flushed(self) -> None:
        """The playout was emptied: what lies with the far end is thrown away, too."""
        if self._ahead.lies:
            self._line.clear()
        self._ahead.cleared()
        self._marked_to = self._playout.queued

    async def _end(self, code: int, reason: str) -> None:
        if self._gone is not None:
            return
        try:
            await self._line.hang_up(code, reason)
        except CarrierError as problem:
            logger("streams").warning("not hung up in order", error=str(problem))
        self.gone(code, reason or "hung up", by_peer=False)

    def _stats(self) -> StreamStats:
        round_trip_ms = self.round_trip_ms()
        return StreamStats(
            received=self._received,
            sent=self._sent,
            concealed=self._inbound.concealed,
            discarded=self._inbound.discarded,
            drift_ppm=self._inbound.drift_ppm,
            bad=self._bad,
            unknown=self._unknown,
            marks_played=self._ahead.played,
            marks_cleared=self._ahead.threw,
            round_trip_ms=None if round_trip_ms is None else round(round_trip_ms, 1),
        )


def _unknown() -> float | None:
    return None


def _nothing() -> int:
    return 0
