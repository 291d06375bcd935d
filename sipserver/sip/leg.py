"""A SIP leg as the rest of the server sees it: plain asyncio, no pjsua2 object in reach.

Owns the leg's events, its media as frames and its commands. It is fed with facts by the cell. Satisfies
`calls.leg.Leg` structurally. Refuses to know PJSIP, dialplans and other legs.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from sipserver.audio import tones
from sipserver.audio.frame import SILENCE_PAYLOAD, Frame
from sipserver.audio.inlet import Taker
from sipserver.audio.playout import Playout
from sipserver.errors import CallerError, CarrierError
from sipserver.events import (
    DigitReceived,
    DigitsSent,
    Emit,
    Event,
    Fault,
    LegAnswered,
    LegDisconnected,
    LegHeld,
    LegProgress,
    LegReplaced,
    LegResumed,
    MediaStarted,
    ReferProgress,
    ReferReceived,
    SipMessage,
)
from sipserver.log import logger
from sipserver.sip import facts
from sipserver.sip.digits import PressFilter
from sipserver.sip.message import SipText, redact
from sipserver.sip.offer import SipOffer
from sipserver.sip.port import MediaLine
from sipserver.sip.rtp_watch import RtpWatch

OnMedia = Callable[[Frame, Frame], None]

_EARLIER_EVENTS = 1000  # kept until `attach`; beyond it the oldest go
_UNAVAILABLE = 480
NO_ANSWER = 408
"""What a call that we place ends with when nobody answered in time."""
REFER_S = 70.0
"""How long the peer of a REFER may take to tell how it went; a phone rings a minute at most."""
_PAUSE_MS = 60  # PJSIP's pause between two digits that it sends, rounded up


class Control(Protocol):
    """How a leg reaches its call on the sip thread. What can be awaited raises CarrierError when the call is gone."""

    def respond(self, code: int, reason: str, headers: Mapping[str, str]) -> Awaitable[None]: ...

    def end(self, code: int) -> Awaitable[None]: ...

    def press(self, keys: str, duration_ms: int) -> Awaitable[None]: ...

    def refer(self, uri: str, replaced: int | None) -> Awaitable[None]: ...

    def wire(self) -> None:
        """Connect the sound as the line wants it. Nothing when the call is gone."""
        ...


class SipLeg:
    """All methods: loop thread. Made by the cell. serial: the cell's name for it, also when another dialog takes the
    place of the leg's first one.
    """

    def __init__(self, serial: int, offer: SipOffer, control: Control, line: MediaLine, *, stalled_s: float) -> None:
        self.serial = serial
        self.can_refer = True
        self.can_replace = False
        self._offer = offer
        self._control = control
        self._line = line
        line.playout.first_use = lambda: self._want(speaks=True)
        self._heard = True
        self._takers: tuple[Taker, ...] = ()
        self._stalled_s = stalled_s
        self._watch = RtpWatch(stalled_s)
        self._refer_code: int | None = None  # None: we have no REFER out
        self._refer_refused = False
        self._refer_over = asyncio.Event()
        self._presses = PressFilter()
        self._earlier: deque[Event] = deque(maxlen=_EARLIER_EVENTS)
        self._emit: Emit = self._earlier.append
        self._on_media: OnMedia | None = None
        self._media: facts.MediaUp | None = None
        self._info_seen = False
        self._accepted = False  # we said 200
        self._own_end: tuple[int, str] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._gone: LegDisconnected | None = None
        self._media_up = asyncio.Event()
        self._confirmed = asyncio.Event()
        self._ended = asyncio.Event()

    # --- calls.leg.Leg ------------------------------------------------------------------------------------------------

    @property
    def offer(self) -> SipOffer:
        return self._offer

    @property
    def playout(self) -> Playout:
        """Sound for the far end; nothing is taken from it while the peer holds the call."""
        return self._line.playout

    @property
    def wants_inband_digits(self) -> bool:
        """True when neither telephone-event was negotiated nor an INFO digit has come."""
        return self._media is not None and self._media.telephone_event is None and not self._info_seen

    def attach(self, emit: Emit, on_media: OnMedia) -> None:
        """Connect the call; delivers what happened before."""
        earlier, self._emit, self._on_media = self._earlier, emit, on_media
        self._earlier = deque()
        self._line.frames.clear()
        for event in earlier:
            emit(event)

    def hear(self, wanted: bool) -> None:
        """Whether `on_media` is to be called. Takes effect within a tick or two."""
        self._heard = wanted
        self._want(hears=wanted or bool(self._takers))

    def loop_back(self, on: bool) -> None:
        """Send the far end's sound straight back to it, within PJMEDIA; `on_media` tells it as played."""
        self._want(loops=on)

    def feed(self, other: SipLeg | Taker, on: bool) -> None:
        """Send the far end's sound to another leg as well: within PJMEDIA to one of the cell; see `calls.leg.Leg`."""
        if isinstance(other, SipLeg):
            feeds = self._line.wanted.feeds
            self._want(feeds=feeds | {other.serial} if on else feeds - {other.serial})
            return
        others = tuple(taker for taker in self._takers if taker is not other)
        self._takers = (*others, other) if on else others
        self._want(hears=self._heard or bool(self._takers))

    def take(self, source: object, frame: Frame) -> None:
        """20 ms of a leg of another kind for the far end; see `calls.leg.Leg`."""
        if self._gone is None:
            if not self._line.wanted.speaks:
                self._want(speaks=True)
            self._line.inlet.put(source, frame.samples.tobytes())

    async def ring(self) -> None:
        """180 Ringing. Raises CarrierError when the leg is gone. Nothing on a leg that we place."""
        self._require()
        if self._placed:
            return
        await self._control.respond(180, "", {})

    async def early(self) -> None:
        """183 with SDP; returns when media flows. After a late offer it returns at once: media waits for the ACK.
        Nothing on a leg that we place.
        """
        self._require()
        if self._placed:
            return
        await self._control.respond(183, "", {})
        if self._offer.has_sdp:
            await self._first(self._media_up)

    async def answer(self) -> None:
        """200 OK; returns when the ACK came or media runs. Raises CarrierError when the leg is or goes away. Answering
        twice does nothing. Cancelling it does not take the answer back. On a leg that we place: `answered`.
        """
        self._require()
        if self._placed:
            await self.answered()
            return
        if not self._accepted:
            self._accepted = True
            await self._control.respond(200, "", {})
            self._emit(LegAnswered(200))
        await self._first(self._media_up, self._confirmed)

    async def reject(self, code: int, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Refuse an unanswered leg with a final 4xx-6xx."""
        if not 400 <= code <= 699:
            raise ValueError(f"{code} does not refuse a call")
        if self._accepted:
            await self.hangup(code)
        elif self._gone is None:
            await self._quietly(self._control.respond(code, reason, headers or {}))

    async def hangup(self, code: int = 0) -> None:
        """BYE when answered, CANCEL or a final answer (480 unless a code is given) otherwise. Returns once it is on
        its way; `LegDisconnected` follows.
        """
        if self._gone is None:
            await self._quietly(self._control.end(code or _UNAVAILABLE))

    async def send_digits(self, digits: str, duration_ms: int = 160) -> None:
        """RFC 4733 when negotiated, tones in band otherwise. Returns when the last digit is over."""
        keys = digits.upper()
        if not keys or any(key not in tones.DIGITS for key in keys):
            raise CallerError("digits must be 0-9, *, # and A-D")
        self._require()
        if self._media is None:
            raise CarrierError("digits need media")
        self._emit(DigitsSent(keys))
        if self._media.telephone_event is not None:
            await self._control.press(keys, duration_ms)
            await self._first(timeout_s=len(keys) * (duration_ms + _PAUSE_MS) / 1000)
        else:
            clip = self.playout.begin("digits")
            await clip.write(tones.digits(keys, duration_ms))
            clip.finish()
            await clip.heard()

    async def refer(self, to_uri: str, *, replaces: SipLeg | None = None) -> int:
        """See `calls.leg.Leg`. One at a time: CallerError while another one runs."""
        self._require()
        if self._refer_code is not None:
            raise CallerError("a transfer of this leg is under way")
        self._refer_code = 0
        self._refer_over.clear()
        try:
            await self._control.refer(to_uri, None if replaces is None else replaces.serial)
            await self._first(self._refer_over, timeout_s=REFER_S)
            if not self._refer_over.is_set():
                raise CarrierError("the peer does not tell how the transfer went", NO_ANSWER)
            if self._refer_refused:
                raise CarrierError("the peer does not take the transfer", self._refer_code)
            return self._refer_code
        finally:
            self._refer_code = None

    # --- beyond calls.leg.Leg: for legs that we place -----------------------------------------------------------------

    async def answered(self) -> None:
        """Wait until the far end answers. Raises CarrierError with the SIP status when it refuses or the leg ends."""
        await self._first(self._confirmed)

    async def ended(self) -> LegDisconnected:
        """Wait until the leg is gone."""
        await self._ended.wait()
        assert self._gone is not None
        return self._gone

    def placed(self, sip_call_id: str) -> None:
        """The INVITE is out under this Call-ID. For the cell."""
        self._offer = replace(self._offer, sip_call_id=sip_call_id)

    def give_up(self) -> None:
        """Cancel the call if nobody has answered. For the cell."""
        if self._gone is None and not self._confirmed.is_set():
            self._end_ourselves("no answer", NO_ANSWER)

    @property
    def is_gone(self) -> bool:
        return self._gone is not None

    @property
    def overruns(self) -> int:
        """Frames lost because the loop was a second late."""
        return self._line.overruns

    # --- fed by the cell ----------------------------------------------------------------------------------------------

    def apply(self, fact: facts.Fact) -> None:
        """One fact from the sip thread. Nothing counts after the end."""
        if self._gone is not None:
            return
        match fact:
            case facts.Message():
                message = SipText.parse(fact.text)
                self._emit(SipMessage(fact.direction, message.summary, fact.peer, redact(fact.text)))
            case facts.Progress():
                self._emit(LegProgress(fact.code, fact.media))
            case facts.Confirmed():
                self._confirmed_by(fact)
            case facts.ReferStatus() | facts.Referred() | facts.Replaced():
                self._transferred(fact)
            case facts.MediaUp():
                self._media_changed(fact)
            case facts.Key():
                self._info_seen = self._info_seen or fact.method == "info"
                if self._presses.is_new(fact, time.monotonic()):
                    self._emit(DigitReceived(fact.digit, fact.method, fact.duration_ms))
            case facts.Snapshot():
                self._observe(fact)
            case facts.Ended():
                self._end(fact)

    def deliver(self) -> None:
        """Hand over the frames of the ticks since the last call. Called by the cell when a tick had something."""
        frames = self._line.frames
        while frames:
            at_ns, received, played = frames.popleft()
            if self._gone is None:
                try:
                    self._hand_over(_frame(received, at_ns), _frame(played, at_ns))
                except Exception:
                    logger("sip").exception("a listener of the leg failed")
        self._line.playout.tick()

    # --- inside -------------------------------------------------------------------------------------------------------

    @property
    def _placed(self) -> bool:
        return self._offer.direction == "outbound"

    def _hand_over(self, received: Frame, played: Frame) -> None:
        if self._media is None or not self._media.held:  # as in the cell: whoever holds is not heard
            for taker in self._takers:
                taker.take(self, received)
        if self._heard and self._on_media is not None:
            self._on_media(received, played)

    def _want(self, **changes: Any) -> None:
        self._line.wanted = replace(self._line.wanted, **changes)
        self._rewire()

    def _rewire(self) -> None:
        """Have the wires changed if media runs already; if not, it starts with those that are wanted then."""
        if self._media is not None and self._gone is None and self._line.wanted != self._line.wired:
            self._control.wire()

    def _require(self) -> None:
        if self._gone is not None:
            raise CarrierError(f"the leg is gone: {self._gone.cause}", self._gone.code)

    async def _first(self, *events: asyncio.Event, timeout_s: float | None = None) -> None:
        """Wait for the first of the events, at most so long. Raises CarrierError when the leg ends before."""
        if not any(event.is_set() for event in events):
            waits = [asyncio.ensure_future(event.wait()) for event in (*events, self._ended)]
            try:
                await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
        if not any(event.is_set() for event in events):
            self._require()

    @staticmethod
    async def _quietly(command: Awaitable[None]) -> None:
        """For commands that may meet a leg that has just gone."""
        try:
            await command
        except CarrierError:
            return

    def _media_changed(self, media: facts.MediaUp) -> None:
        before, self._media = self._media, media
        self._watch.codec = media.codec
        if before is None or (before.codec, before.remote, before.telephone_event, before.encrypted) != (
            media.codec,
            media.remote,
            media.telephone_event,
            media.encrypted,
        ):
            self._emit(
                MediaStarted(
                    media.codec,
                    media.payload_type,
                    media.clock_hz,
                    media.remote,
                    media.telephone_event,
                    media.encrypted,
                )
            )
            if media.encrypted is False:
                self._emit(Fault("srtp", f"the peer of {self._offer.trunk} takes no keys: its sound is not encrypted"))
        if media.held != (before is not None and before.held):
            self._emit(LegHeld() if media.held else LegResumed())
        self._rewire()
        self._media_up.set()

    def _observe(self, seen: facts.Snapshot) -> None:
        held = self._media is not None and self._media.held
        for event in self._watch.observe(seen, held=held):
            self._emit(event)

    def _confirmed_by(self, fact: facts.Confirmed) -> None:
        self.can_refer, self.can_replace = fact.can_refer, fact.can_replace
        if not self._confirmed.is_set() and self._placed:
            self._emit(LegAnswered(200))
        self._confirmed.set()

    def _transferred(self, fact: facts.ReferStatus | facts.Referred | facts.Replaced) -> None:
        match fact:
            case facts.ReferStatus():
                self._emit(ReferProgress(fact.code, fact.final))
                if fact.final and self._refer_code is not None:
                    self._refer_code, self._refer_refused = fact.code, fact.refused
                    self._refer_over.set()
            case facts.Referred():
                self._emit(ReferReceived(fact.code, fact.target))
            case facts.Replaced():  # what was learnt of the old peer does not hold for the new one
                self._watch, self._info_seen = RtpWatch(self._stalled_s), False
                self._emit(LegReplaced(fact.by, fact.uri, fact.source, fact.sip_call_id))

    def _end_ourselves(self, cause: str, code: int) -> None:
        logger("sip").info("ending the call", cause=cause, sip_call_id=self._offer.sip_call_id)
        self._own_end = code, cause
        self._ending = asyncio.create_task(self.hangup(code), name="end leg")

    def _end(self, end: facts.Ended) -> None:
        if end.last is not None:
            self._emit(self._watch.report(end.last))
        code, cause = self._own_end or (end.code, end.cause)
        self._gone = LegDisconnected(code, cause, end.by_peer)
        self._takers = ()
        self._emit(self._gone)
        self._line.playout.flush()
        self._ended.set()


def _frame(payload: bytes, at_ns: int) -> Frame:
    return Frame.silence(at_ns) if payload is SILENCE_PAYLOAD else Frame.of_payload(payload, at_ns)
