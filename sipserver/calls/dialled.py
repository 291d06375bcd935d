"""A leg that stands for whoever answers an order: the trunks are tried one after another, and it looks like one leg.

Owns the attempts: their order, the time they share, and which of their ends are told. Refuses to know why somebody is
called and what happens once somebody has answered. Satisfies `calls.leg.Leg`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sipserver.audio.frame import Frame
from sipserver.audio.playout import Playout
from sipserver.calls.leg import Leg, OnMedia
from sipserver.calls.outbound import Order, Outbound, Way, tries_next
from sipserver.dialplan.facts import split_uri
from sipserver.errors import CapacityError, CarrierError, Draining
from sipserver.events import (
    Emit,
    Event,
    Fault,
    LegAnswered,
    LegDisconnected,
    LegProgress,
    PartyDialed,
    SipMessage,
)

DEAF_S = 4.0
"""A trunk that has not said a word to the INVITE for so long is given up if there is another: 408 by PJSIP's own timer
would come after 32 s, when nobody waits any more. A trunk that has said 100 has all of the order's time.
"""

LEAST_RING_S = 0.5
"""With less than this left nobody else is called: nobody would be reached."""

_NO_ROOM = 503
_TAKEN_BACK = LegDisconnected(code=487, cause="taken back", by_peer=False)
_DEAF = LegDisconnected(code=408, cause=f"not a word to the INVITE within {DEAF_S:g} s", by_peer=False)
_EARLIER_EVENTS = 1000  # kept until `attach`; beyond it the oldest go


@dataclass(frozen=True, slots=True)
class DialledOffer:
    """Satisfies `calls.leg.Offer`: the facts of the attempt of the moment. headers: those of the order."""

    from_uri: str
    from_user: str
    to_uri: str
    to_user: str
    source: str
    transport: str
    sip_call_id: str
    trunk: str
    headers: Mapping[str, str]
    direction: str = "outbound"

    @classmethod
    def of(cls, way: Way, leg: Leg | None) -> DialledOffer:
        """leg: None while the INVITE is not out."""
        sent = leg.offer if leg is not None else None
        from_uri = (sent.from_uri if sent is not None else "") or way.from_uri
        to_user, to_host = split_uri(way.uri)
        return cls(
            from_uri=from_uri,
            from_user=split_uri(from_uri)[0],
            to_uri=way.uri,
            to_user=to_user,
            source=sent.source if sent is not None else to_host,
            transport=sent.transport if sent is not None else "",
            sip_call_id=sent.sip_call_id if sent is not None else "",
            trunk=way.trunk,
            headers=MappingProxyType({name.lower(): value for name, value in way.headers.items()}),
        )


@dataclass(slots=True)
class _Attempt:
    """heard: the far end has answered our INVITE with anything at all. given_up: we ended it for another one."""

    way: Way
    leg: Leg
    heard: bool = False
    given_up: bool = False
    ended: LegDisconnected | None = None
    deaf: asyncio.TimerHandle | None = field(default=None, repr=False)


class DialledLeg:
    """Loop thread. party: the name of the party in a call that has it called; empty for the call's own leg.

    Attach, then `await answer()`, which sends the first INVITE unless `dial` has. Every event of every attempt is
    passed on, except the end of one whose place the next trunk takes (transport failure, 408, 5xx; see `tries_next`).
    So there is one `LegDisconnected`, at most one `LegAnswered`, and a `Fault` for each attempt that was replaced.
    Raises CallerError (403) when no trunk carries the order.
    """

    def __init__(self, outbound: Outbound, order: Order, tenant: str, *, party: str = "") -> None:
        self._outbound, self._order, self._party = outbound, order, party
        ways = list(outbound.ways(order, tenant))
        self._way = ways[0]
        self._ways = deque(ways)
        self._deadline_s: float | None = None
        self._attempts = 0
        self._now: _Attempt | None = None
        self._answered = False
        self._over = False  # no further attempt
        self._gone: LegDisconnected | None = None
        self._earlier: deque[Event] = deque(maxlen=_EARLIER_EVENTS)
        self._emit: Emit = self._earlier.append
        self._on_media: OnMedia = _nobody_hears
        self._hears: bool | None = None
        self._loops = False
        self._feeds: dict[int, Any] = {}
        self._fed_by: dict[int, Any] = {}
        self._idle = Playout()
        self._leaving: set[asyncio.Task[None]] = set()

    # --- placing it ---------------------------------------------------------------------------------------------------

    async def dial(self) -> None:
        """Send the first INVITE that can be sent, and return. Nothing when one is out already.

        Raises CapacityError and Draining when this process can place no call, CarrierError when no trunk could be
        asked; `LegDisconnected` is told then, too. Safe to cancel: what was being sent is cancelled.
        """
        self._require()
        if self._now is None:
            await self._next()

    async def answer(self) -> None:
        """Wait until somebody answers; the order's time bounds it. Raises CarrierError with the last status when nobody
        does, 503 when this process has no room. Cancelling it takes the call back; no leg stays behind.
        """
        try:
            while True:
                self._require()
                if self._answered:
                    return
                if self._now is None:
                    await self._next()
                else:
                    await self._settle(self._now)
        except asyncio.CancelledError:
            await self.hangup()
            raise
        except (CapacityError, Draining) as problem:
            raise CarrierError(str(problem), _NO_ROOM) from problem

    async def _settle(self, attempt: _Attempt) -> None:
        """Wait for the last word of an attempt: it answered, it is over, or the next one takes its place."""
        try:
            await attempt.leg.answer()
        except CarrierError as refusal:  # which `LegDisconnected` has told already
            self._ended(attempt, LegDisconnected(code=refusal.status, cause=str(refusal), by_peer=False))
        else:
            self._answered = self._answered or attempt is self._now
            self._hush(attempt)

    async def _next(self) -> None:
        """Send the next INVITE. Raises CapacityError, Draining, CarrierError when none can be sent; that is the end."""
        loop = asyncio.get_running_loop()
        if self._deadline_s is None:
            self._deadline_s = loop.time() + self._order.ring_s
        while True:
            self._way = self._ways.popleft()
            self._attempts += 1
            try:
                leg = await self._send(self._way, self._deadline_s - loop.time())
            except (CapacityError, Draining) as problem:
                self._leave(LegDisconnected(code=_NO_ROOM, cause=str(problem), by_peer=False))
                raise
            except CarrierError as problem:
                self._tell_dialed("")
                gone = LegDisconnected(code=problem.status, cause=str(problem), by_peer=False)
                if not self._goes_on(problem.status):
                    self._leave(gone)
                    raise
                self._tell_replaced(gone)
                continue
            if self._over:  # hung up meanwhile
                await leg.hangup()
                self._require()
            self._take(leg)
            return

    async def _send(self, way: Way, timeout_s: float) -> Leg:
        """The INVITE is sent to its end also when nobody waits for it any more: the leg is hung up then."""
        sending = asyncio.create_task(self._outbound.dial(way, timeout_s=timeout_s), name=f"dial {way.trunk}")
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            sending.add_done_callback(self._unwanted)
            self._leave(_TAKEN_BACK)
            raise

    def _take(self, leg: Leg) -> None:
        attempt = self._now = _Attempt(self._way, leg)
        self._tell_dialed(leg.offer.sip_call_id)
        if self._ways:
            attempt.deaf = asyncio.get_running_loop().call_later(DEAF_S, self._give_up, attempt)
        leg.attach(lambda event: self._on_event(attempt, event), self._on_frames)
        if self._hears is not None:
            leg.hear(self._hears)
        if self._loops:
            leg.loop_back(True)
        for other in self._feeds.values():
            leg.feed(underlying(other), True)
        for other in self._fed_by.values():
            underlying(other).feed(leg, True)

    # --- what the attempts tell ---------------------------------------------------------------------------------------

    def _on_event(self, attempt: _Attempt, event: Event) -> None:
        if isinstance(event, LegDisconnected):
            self._ended(attempt, event)
            return
        if isinstance(event, LegProgress) or (isinstance(event, SipMessage) and event.direction == "received"):
            self._hush(attempt)
        if attempt is not self._now and not isinstance(event, SipMessage):
            return
        if isinstance(event, LegAnswered):
            self._answered = True
            self._hush(attempt)
        self._emit(event)

    def _on_frames(self, heard: Frame, played: Frame) -> None:
        self._on_media(heard, played)

    def _ended(self, attempt: _Attempt, event: LegDisconnected) -> None:
        if attempt.ended is not None:
            return
        attempt.ended = event
        self._hush(attempt)
        if attempt is not self._now:
            return
        if not self._answered and (attempt.given_up or self._goes_on(event.code)):
            self._now = None
            self._tell_replaced(_DEAF if attempt.given_up else event)
        else:
            self._leave(event)

    def _goes_on(self, status: int) -> bool:
        if self._over or not self._ways or self._deadline_s is None:
            return False
        return tries_next(status) and self._deadline_s - asyncio.get_running_loop().time() >= LEAST_RING_S

    def _give_up(self, attempt: _Attempt) -> None:
        """A trunk is deaf. It may still answer later: its leg sees to it that nothing comes of that."""
        if attempt.ended is None and not attempt.heard and self._goes_on(408):
            attempt.given_up = True
            self._let_go(attempt.leg)

    def _hush(self, attempt: _Attempt) -> None:
        attempt.heard = True
        if attempt.deaf is not None:
            attempt.deaf.cancel()
            attempt.deaf = None

    def _leave(self, event: LegDisconnected) -> None:
        if self._gone is None:
            self._over = True
            self._gone = event
            self._idle.flush()
            self._emit(event)

    def _tell_dialed(self, sip_call_id: str) -> None:
        if self._party:
            self._emit(
                PartyDialed(
                    party=self._party,
                    to=self._way.uri,
                    trunk=self._way.trunk,
                    attempt=self._attempts,
                    sip_call_id=sip_call_id,
                )
            )

    def _tell_replaced(self, end: LegDisconnected) -> None:
        status = f"{end.code} {end.cause}".strip() if end.code else end.cause
        self._emit(Fault(where=f"trunk {self._way.trunk}".strip(), error=f"{status}; the next one is tried"))

    def _unwanted(self, sending: asyncio.Task[Leg]) -> None:
        if not sending.cancelled() and sending.exception() is None:
            self._let_go(sending.result())

    def _let_go(self, leg: Leg) -> None:
        task = asyncio.get_running_loop().create_task(leg.hangup(), name="give up an attempt")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _require(self) -> None:
        gone = self._gone or (_TAKEN_BACK if self._over else None)
        if gone is not None:
            raise CarrierError(f"the call is over: {gone.cause or gone.code}", gone.code)

    # --- calls.leg.Leg ------------------------------------------------------------------------------------------------

    @property
    def offer(self) -> DialledOffer:
        return DialledOffer.of(self._way, self._now.leg if self._now is not None else None)

    @property
    def now(self) -> Leg | None:
        """The leg of the moment; None before the first INVITE and between two."""
        return self._now.leg if self._now is not None else None

    @property
    def playout(self) -> Playout:
        """Of the leg of the moment: sound that is queued before the answer may be lost with its attempt."""
        return self._now.leg.playout if self._now is not None else self._idle

    @property
    def wants_inband_digits(self) -> bool:
        return self._now is not None and self._now.leg.wants_inband_digits

    @property
    def can_refer(self) -> bool:
        return self._now is not None and self._now.leg.can_refer

    @property
    def can_replace(self) -> bool:
        return self._now is not None and self._now.leg.can_replace

    def attach(self, emit: Emit, on_media: OnMedia) -> None:
        """Connect the call; delivers what happened before."""
        earlier, self._earlier = self._earlier, deque()
        self._emit, self._on_media = emit, on_media
        for event in earlier:
            emit(event)

    def hear(self, wanted: bool) -> None:
        self._hears = wanted
        if self._now is not None:
            self._now.leg.hear(wanted)

    def loop_back(self, on: bool) -> None:
        self._loops = on
        if self._now is not None:
            self._now.leg.loop_back(on)

    def feed(self, other: Any, on: bool) -> None:
        """As `Leg.feed`, from whichever leg is the one of the moment. other: may be a `DialledLeg` that is answered."""
        _note(self._feeds, other, on)
        if self._now is not None:
            self._now.leg.feed(underlying(other), on)

    def fed_by(self, other: Any, on: bool) -> None:
        """The other direction: `other` feeds whichever leg is the one of the moment."""
        _note(self._fed_by, other, on)
        if self._now is not None:
            underlying(other).feed(self._now.leg, on)

    async def ring(self) -> None:
        """Nothing: the far end rings."""

    async def early(self) -> None:
        """Nothing: the far end decides about early media."""

    async def reject(self, code: int, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        """We placed it: nobody waits for our answer. As `hangup`."""
        await self.hangup(code)

    async def hangup(self, code: int = 0) -> None:
        """CANCEL or BYE; no other trunk is tried."""
        self._over = True
        if self._now is not None:
            await self._now.leg.hangup(code)
        else:
            self._leave(_TAKEN_BACK)

    async def send_digits(self, digits: str, duration_ms: int = 160) -> None:
        await self._answering().send_digits(digits, duration_ms)

    async def refer(self, to_uri: str, *, replaces: Any = None) -> int:
        return await self._answering().refer(to_uri, replaces=None if replaces is None else underlying(replaces))

    def _answering(self) -> Leg:
        self._require()
        if self._now is None or not self._answered:
            raise CarrierError("nobody has answered yet")
        return self._now.leg


def underlying(leg: Any) -> Any:
    """The leg that the telephony room knows, of any leg: what `feed` and `refer` of such a leg take.

    Raises CarrierError for a `DialledLeg` that has no INVITE out.
    """
    if not isinstance(leg, DialledLeg):
        return leg
    if leg.now is None:
        raise CarrierError("nobody is being called at this moment")
    return leg.now


def connect(source: Leg, target: Leg, on: bool) -> None:
    """Let `target` hear `source`, or no longer, whatever kind of leg each is; it stays so when an attempt is replaced.

    Of two dialled legs the source must be answered.
    """
    if isinstance(target, DialledLeg):
        target.fed_by(source, on)
    else:
        source.feed(target, on)


def _nobody_hears(_heard: Frame, _played: Frame) -> None:
    """Until `attach`."""


def _note(legs: dict[int, Any], leg: Any, on: bool) -> None:
    if on:
        legs[id(leg)] = leg
    else:
        legs.pop(id(leg), None)
