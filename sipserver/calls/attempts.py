"""The INVITEs of one order: by one trunk after another, until somebody answers, refuses, or the time is over.

Owns their order, the time that they share, and which of their ends are told. Refuses to know what is done with the leg
of the moment (`dialled.py` does) and why somebody is called.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sipserver.calls.leg import Leg
from sipserver.calls.outbound import Order, Outbound, Way, tries_next
from sipserver.errors import CapacityError, CarrierError, Draining
from sipserver.events import Emit, Event, Fault, LegAnswered, LegDisconnected, LegProgress, PartyDialed, SipMessage

DEAF_S = 4.0
"""A trunk that has not said a word to the INVITE for so long is given up if there is another: 408 by PJSIP's own timer
would come after 32 s, when nobody waits any more. A trunk that has said 100 has all of the order's time.
"""

LEAST_RING_S = 0.5
"""With less than this left nobody else is called: nobody would be reached."""

_NO_ROOM = 503
_TAKEN_BACK = LegDisconnected(code=487, cause="taken back", by_peer=False)
_DEAF = LegDisconnected(code=408, cause=f"not a word to the INVITE within {DEAF_S:g} s", by_peer=False)


@dataclass(slots=True)
class _Attempt:
    """heard: the far end has answered our INVITE with anything at all. given_up: we ended it for another one."""

    way: Way
    leg: Leg
    heard: bool = False
    given_up: bool = False
    ended: LegDisconnected | None = None
    deaf: asyncio.TimerHandle | None = field(default=None, repr=False)


class Attempts:
    """Loop thread. Raises CallerError (403) when no trunk carries the order.

    party: named in `PartyDialed`; empty: none is told. emit: every event of every attempt, but the end of one whose
    place the next trunk takes. take: attach to the leg of a new attempt with the `Emit` that is given.
    """

    def __init__(
        self,
        outbound: Outbound,
        order: Order,
        tenant: str,
        party: str,
        *,
        emit: Emit,
        take: Callable[[Leg, Emit], None],
    ) -> None:
        self._outbound, self._order, self._party = outbound, order, party
        self._emit, self._take_leg = emit, take
        self._ways = deque(outbound.ways(order, tenant))
        self.way = self._ways[0]
        """That of the attempt of the moment, or of the last one."""
        self.latest: Leg | None = None
        """The leg of the moment or of the last attempt; None while an INVITE is being sent."""
        self.answered = False
        self._deadline_s: float | None = None
        self._count = 0
        self._now: _Attempt | None = None
        self._over = False  # no further attempt
        self._gone: LegDisconnected | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def leg(self) -> Leg | None:
        """The leg of the moment; None before the first INVITE and between two."""
        return self._now.leg if self._now is not None else None

    def require(self) -> None:
        """Raises CarrierError when it is over."""
        gone = self._gone or (_TAKEN_BACK if self._over else None)
        if gone is not None:
            raise CarrierError(f"the call is over: {gone.cause or gone.code}", gone.code)

    async def dial(self) -> None:
        """See `DialledLeg.dial`."""
        self.require()
        if self._now is None:
            await self._next()

    async def answer(self) -> None:
        """See `DialledLeg.answer`."""
        try:
            while True:
                self.require()
                if self.answered:
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

    async def hangup(self, code: int = 0) -> None:
        """CANCEL or BYE; no other trunk is tried."""
        self._over = True
        if self._now is not None:
            await self._now.leg.hangup(code)
        else:
            self._leave(_TAKEN_BACK)

    # --- one after another --------------------------------------------------------------------------------------------

    async def _next(self) -> None:
        """Send the next INVITE. Raises CapacityError, Draining, CarrierError when none can be sent; that is the end."""
        loop = asyncio.get_running_loop()
        if self._deadline_s is None:
            self._deadline_s = loop.time() + self._order.ring_s
        while True:
            self.way, self.latest = self._ways.popleft(), None
            self._count += 1
            try:
                leg = await self._send(self.way, self._deadline_s - loop.time())
            except (CapacityError, Draining) as problem:
                self._leave(LegDisconnected(code=_NO_ROOM, cause=str(problem), by_peer=False))
                raise
            except CarrierError as problem:
                self.require()  # hung up meanwhile
                self._tell_dialed("")
                gone = LegDisconnected(code=problem.status, cause=str(problem), by_peer=False)
                if not self._goes_on(problem.status):
                    self._leave(gone)
                    raise
                self._tell_replaced(gone)
                continue
            if self._over:  # hung up meanwhile
                await leg.hangup()
                self.require()
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
        attempt = self._now = _Attempt(self.way, leg)
        self.latest = leg
        self._tell_dialed(leg.offer.sip_call_id)
        if self._ways:
            attempt.deaf = asyncio.get_running_loop().call_later(DEAF_S, self._give_up, attempt)
        self._take_leg(leg, lambda event: self._on_event(attempt, event))

    async def _settle(self, attempt: _Attempt) -> None:
        """Wait for the last word of an attempt: it answered, it is over, or the next one takes its place."""
        try:
            await attempt.leg.answer()
        except CarrierError as refusal:  # which `LegDisconnected` has told already
            self._ended(attempt, LegDisconnected(code=refusal.status, cause=str(refusal), by_peer=False))
            return
        if attempt.given_up:  # the answer crossed our hangup
            self._ended(attempt, _DEAF)
        elif attempt is self._now:
            self.answered = True
            self._hush(attempt)

    def _goes_on(self, status: int) -> bool:
        if self._over or not self._ways or self._deadline_s is None:
            return False
        return tries_next(status) and self._deadline_s - asyncio.get_running_loop().time() >= LEAST_RING_S

    def _give_up(self, attempt: _Attempt) -> None:
        """A trunk is deaf. It may still answer later: its leg sees to it that nothing comes of that."""
        if attempt.ended is None and not attempt.heard and self._goes_on(_DEAF.code):
            attempt.given_up = True
            self._let_go(attempt.leg)

    def _unwanted(self, sending: asyncio.Task[Leg]) -> None:
        if not sending.cancelled() and sending.exception() is None:
            self._let_go(sending.result())

    def _let_go(self, leg: Leg) -> None:
        task = asyncio.get_running_loop().create_task(leg.hangup(), name="give up an attempt")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # --- what is told -------------------------------------------------------------------------------------------------

    def _on_event(self, attempt: _Attempt, event: Event) -> None:
        if isinstance(event, LegDisconnected):
            self._ended(attempt, event)
            return
        if isinstance(event, LegProgress) or (isinstance(event, SipMessage) and event.direction == "received"):
            self._hush(attempt)
        if (attempt is not self._now or attempt.given_up) and not isinstance(event, SipMessage):
            return
        if isinstance(event, LegAnswered):
            self.answered = True
            self._hush(attempt)
        self._emit(event)

    def _ended(self, attempt: _Attempt, event: LegDisconnected) -> None:
        if attempt.ended is not None:
            return
        attempt.ended = event
        self._hush(attempt)
        if attempt is not self._now:
            return
        if attempt.given_up and not self._over:
            self._now = None
            self._tell_replaced(_DEAF)
        elif not self.answered and self._goes_on(event.code):
            self._now = None
            self._tell_replaced(event)
        else:
            self._leave(event)

    def _hush(self, attempt: _Attempt) -> None:
        attempt.heard = True
        if attempt.deaf is not None:
            attempt.deaf.cancel()
            attempt.deaf = None

    def _leave(self, event: LegDisconnected) -> None:
        if self._gone is None:
            self._over = True
            self._gone = event
            self._emit(event)

    def _tell_dialed(self, sip_call_id: str) -> None:
        if self._party:
            way = self.way
            self._emit(PartyDialed(self._party, way.uri, way.trunk, self._count, sip_call_id))

    def _tell_replaced(self, end: LegDisconnected) -> None:
        status = f"{end.code} {end.cause}".strip() if end.code else end.cause
        self._emit(Fault(where=f"trunk {self.way.trunk}".strip(), error=f"{status}; the next one is tried"))
