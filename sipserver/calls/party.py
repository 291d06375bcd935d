"""A further party of a call: somebody whom we called for the caller.

Owns the party's leg from the first INVITE to its last event, its name in the call's record, its digits and its ears.
Refuses to decide why the party is called and what happens once it has answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from sipserver.audio.frame import Frame
from sipserver.calls.call import Call
from sipserver.calls.dialled import DialledLeg
from sipserver.calls.digits import DigitBuffer
from sipserver.calls.outbound import Order, Outcome, outcome_of
from sipserver.calls.tape import Tape
from sipserver.calls.wiring import Wiring
from sipserver.errors import CapacityError, CarrierError
from sipserver.events import (
    DigitReceived,
    Event,
    Fault,
    LegAnswered,
    LegDisconnected,
    LegEvent,
    LegHeld,
    LegResumed,
    MediaRecovered,
    MediaStalled,
    PartyEnded,
)

LEAVE_S = 3.0
"""How long a party's leg may take to hang up and to say that it is gone. Less than the call waits for its dialplan."""

LATE_S = 2.0
"""What an order may take beyond its own time before nobody waits for it any more."""

LegListener = Callable[[LegEvent], None]
"""Who acts on what a leg tells, after the record has it. Loop thread; must not block."""


class Party:
    """`async with Party(...) as party:` has a party for the length of the block; nothing is sent before `answer`, and
    whatever ends the block, the party is hung up when it is left. Loop thread.

    Raises CallerError when the order is not allowed or nobody carries it, CapacityError when no calls are placed here.
    """

    def __init__(self, call: Call, order: Order) -> None:
        outbound = call.services.outbound
        if outbound is None:
            raise CapacityError("this process places no calls")
        self.name = name = f"party-{next(call.party_numbers)}"
        self.leg = leg = DialledLeg(outbound, order, call.tenant, party=name)
        self.digits = DigitBuffer()
        self.held = False
        self.stalled = False
        """No RTP comes from it, hold apart."""
        self.gone: LegDisconnected | None = None
        self.listener: LegListener | None = None
        self.tape: Tape | None = None
        """It is recorded only beside the caller."""
        self.answered_at_ms: int | None = None
        """By the call's clock; None: it has not answered."""
        self.status = 0
        """What the far end's final answer was; 0: none has come."""
        self.wiring = Wiring(leg, None, self._on_event, inband=call.services.settings.inband_digits)
        self._call = call
        self._ring_s = order.ring_s
        self._outcome = Outcome.CALLER_GONE
        self._left = asyncio.Event()
        self._we_hung_up = False
        self._leaving: asyncio.Task[None] | None = None
        self._cause = ""

    async def __aenter__(self) -> Party:
        self.leg.attach(self._on_event, self._on_media)
        self.wiring.settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.hang_up()
        finally:
            self._tell_end()

    async def answer(self) -> Outcome:
        """Call the party and wait for what comes of it; `status` tells the final answer. Never raises CarrierError.

        A party that is gone before anybody could speak with it has failed. Safe to cancel.
        """
        try:
            async with asyncio.timeout(self._ring_s + LATE_S):
                await self.leg.answer()
            self.status = 200
            self._outcome = Outcome.ANSWERED
        except TimeoutError:
            self.status, self._cause = 408, "no answer"
            self._outcome = Outcome.NO_ANSWER
        except CarrierError as refusal:
            self.status, self._cause = refusal.status, str(refusal)
            self._outcome = outcome_of(refusal.status) if refusal.status >= 300 else Outcome.FAILED
        if self._outcome is Outcome.ANSWERED and self.gone is not None:
            return Outcome.FAILED
        return self._outcome

    def judge(self, outcome: Outcome) -> None:
        """What the record says became of the party, other than its signalling does: it did not accept the call."""
        self._outcome = outcome

    async def left(self) -> None:
        """Wait until the party is gone."""
        await self._left.wait()

    async def hang_up(self) -> None:
        """CANCEL or BYE, and wait for the leg's last word. Idempotent; raises nothing of its own. Cancelling it does
        not keep the party: it is hung up first.
        """
        if self.gone is not None:
            return
        if self._leaving is None:
            self._we_hung_up = True
            self._leaving = asyncio.create_task(self._leave(), name=f"hang up {self.name}")
        try:
            await asyncio.shield(self._leaving)
        except asyncio.CancelledError:
            await asyncio.wait({self._leaving})
            raise

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.leg.hangup()
                await self._left.wait()
        except (TimeoutError, CarrierError) as problem:
            self._call.emit(Fault(where=self.name, error=str(problem) or "the leg did not say that it is gone"))

    def _tell_end(self) -> None:
        """The record's last word about the party."""
        end = self.gone
        cause = self._cause or (end.cause if end is not None else "")
        by = "us" if self._we_hung_up or end is None or not end.by_peer else "party"
        self._call.emit(PartyEnded(party=self.name, outcome=self._outcome.value, code=self.status, cause=cause, by=by))

    def _on_media(self, inbound: Frame, outbound: Frame) -> None:
        with self._call.edge(self.name):
            self.wiring.on_media(inbound, outbound)

    def _on_event(self, event: Event) -> None:
        with self._call.edge(self.name):
            if isinstance(event, LegEvent):
                event = replace(event, leg=self.name)
            self._call.emit(event)
            match event:
                case LegAnswered():
                    self.answered_at_ms = self._call.at_ms
                case LegDisconnected():
                    self.gone = event
                    self._left.set()
                case DigitReceived():
                    self.digits.press(event.digit)
                case LegHeld():
                    self.held = True
                case LegResumed():
                    self.held = False
                case MediaStalled():
                    self.stalled = True
                case MediaRecovered():
                    self.stalled = False
                case _:
                    pass
            self.wiring.settle()
            if self.listener is not None and isinstance(event, LegEvent):
                self.listener(event)
