"""One call: its identity, its clock, its state, and the one way in which it ends.

Owns the state, the digits, the tape and the timers of a call. Refuses to know what the dialplan says (the runner does)
and how sound is wired (wiring does). All of it belongs to the loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

from sipserver import events
from sipserver.audio.frame import Frame
from sipserver.calls.digits import DigitBuffer
from sipserver.calls.ids import new_id
from sipserver.calls.leg import Leg
from sipserver.calls.screen import Screen
from sipserver.calls.services import Services
from sipserver.calls.states import RETRY_AFTER_S, SIP_CODES, Change, Ending, EndReason, State, after, unanswered
from sipserver.calls.tape import Tape
from sipserver.calls.wiring import Wiring
from sipserver.errors import CarrierError
from sipserver.events import Event, LegEvent, Stamped
from sipserver.log import logger

HANGUP_S = 5.0
"""How long the leg may take to hang up, the dialplan to let go and the leg to say that it is gone; each for itself."""

TAIL_S = 0.15
"""What a telephone's jitter buffer may still hold of our last words, and would throw away at a BYE."""

NOTABLE = frozenset({"call.started", "call.routed", "call.limited", "call.state", "media.started", "call.ended"})
"""Kinds of events that are logged at INFO, with everything about recordings; faults are warnings, the rest is DEBUG."""


@cache
def _level(kind: str) -> int:
    if kind.startswith("fault."):
        return logging.WARNING
    return logging.INFO if kind in NOTABLE or kind.startswith("recording.") else logging.DEBUG


class Call:
    """A call from its first event to its last. Made and run by the registry.

    outbound: we placed it. It is answered when the far end says so, and early while that lets us hear something before.
    """

    def __init__(self, leg: Leg, services: Services, tenant: str, *, call_id: str = "") -> None:
        self.id = call_id or new_id()
        self.tenant = tenant
        self.leg = leg
        self.outbound = leg.offer.direction == "outbound"
        self.services = services
        self.state = State.RINGING
        self.held = False
        self.digits = DigitBuffer()
        self.listener: Callable[[LegEvent], None] | None = None
        """Who acts on what the leg tells, after the call itself: whoever joined it with others."""
        self.when_answered: Callable[[], None] | None = None
        """Who has something to do from then on."""
        self.party_numbers = itertools.count(1)
        """For the names of further parties."""
        self.log = logger("calls", call=self.id, tenant=tenant).bind()
        self.screen = Screen(services.redact_of(tenant))
        self.tape = Tape(
            services.recorder,
            tenant=tenant,
            day=services.now(),
            call_id=self.id,
            emit=self.emit,
            note=lambda path, status: services.records.recording(call_id=self.id, path=path, status=status),
        )
        self.wiring = Wiring(leg, self.tape, self._on_event, inband=services.settings.inband_digits)
        self._began_ns = services.clock()
        self._answer_sent = False
        self._answered = False
        self.answered_at_ms: int | None = None
        """By the call's own clock; None: it is not answered."""
        self._stalled = False
        self._ending: Ending | None = None
        self._over = asyncio.Event()
        self._gone = asyncio.Event()
        self._beside: set[asyncio.Task[None]] = set()
        self._longest: asyncio.TimerHandle | None = None
        self._media_timer: asyncio.TimerHandle | None = None

    # --- what happened ------------------------------------------------------------------------------------------------

    @property
    def at_ms(self) -> int:
        """The call's own clock: milliseconds since it began."""
        return (self.services.clock() - self._began_ns) // 1_000_000

    def emit(self, event: Event) -> None:
        """Stamp what of an event may be told, append it to the record, tell the listeners, log it."""
        at_ms = self.at_ms
        shown = self.screen.shown(event, at_ms)
        if shown is None:
            return
        event, stamped = shown, Stamped(self.id, self.tenant, at_ms, shown)
        self.services.records.append(stamped)
        for listener in self.services.listeners:
            listener(stamped)
        level = _level(event.kind)
        if self.log.is_enabled_for(level):
            self.log.log(level, event.kind, **event.fields())

    # --- what may be done ---------------------------------------------------------------------------------------------

    async def ring(self) -> None:
        """180 Ringing, for a call that is not answered soon; nothing for one that we place."""
        if self.state is State.RINGING and not self.outbound:
            await self.leg.ring()

    async def early(self) -> None:
        """183 with SDP; nothing if media runs already, or if we place the call. Raises CarrierError when the leg is
        gone.
        """
        if self.state is State.RINGING and not self.outbound:
            await self.leg.early()
            if self.state is State.RINGING:
                self._change(Change.EARLY)

    async def answer(self) -> None:
        """200 OK, or wait for the far end's; nothing if it was answered already. Raises CarrierError when the leg is
        gone or refused.
        """
        if self.state in (State.RINGING, State.EARLY):
            self._answer_sent = not self.outbound
            await self.leg.answer()
            self._is_answered()

    async def open_media(self) -> None:
        """Answer a call that a step wants to speak or listen to, unless early media runs that we opened."""
        if self.state is State.RINGING or self.outbound:
            await self.answer()

    @contextmanager
    def secured(self) -> Iterator[None]:
        """For the length of a `with` block nothing is kept of what is said and typed, nor heard by who only listens.

        What was typed within and not collected is forgotten. Not to be nested.
        """
        self.screen.secured, self.screen.hidden = True, 0
        self.tape.secure(True)
        self.wiring.deaf_beside = True
        try:
            yield
        finally:
            self.digits.clear()
            self.wiring.deaf_beside = False
            self.tape.secure(False)
            self.screen.secured = False

    def beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run something beside the dialplan, until it is over or the call ends, which cancels it.

        What it raises is told as a fault, and the call goes on.
        """
        task = asyncio.create_task(work, name=name)
        self._beside.add(task)
        task.add_done_callback(self._beside_is_over)

    @property
    def answered(self) -> bool:
        return self._answered

    def end(
        self,
        reason: EndReason,
        detail: str = "",
        *,
        code: int = 0,
        phrase: str = "",
        refusal: str = "",
        retry_after_s: int = RETRY_AFTER_S,
    ) -> None:
        """The only way out. Idempotent: the first reason stays. Returns at once; `run` does what is left to do.

        code, phrase: the final SIP answer if the call was not answered, instead of the one that belongs to the reason.
        refusal, retry_after_s: see `Ending`.
        """
        if self._ending is None:
            self._ending = Ending(reason, detail, code or SIP_CODES[reason], phrase, refusal, retry_after_s)
            self._change(Change.END)
            self._over.set()

    async def run(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Live: attach to the leg, run the story (the dialplan at work), close. Returns when the record is closed.

        Whatever the story raises ends this call and no other. Cancelling `run` ends the call with reason `drain`.
        """
        telling: asyncio.Task[None] | None = None
        try:
            self._begin()
            self.leg.attach(self._on_event, self._on_media)
            self.wiring.settle()
            telling = asyncio.create_task(story(), name=f"dialplan of {self.id}")
            await self._until_over(telling)
        except asyncio.CancelledError:
            self.end(EndReason.DRAIN, "the server stopped")
            raise
        except Exception as problem:  # the edge of a call
            self._broke("call", problem)
        finally:
            await self._close(telling)

    # --- from the leg -------------------------------------------------------------------------------------------------

    def _on_media(self, inbound: Frame, outbound: Frame) -> None:
        if self._ending is None:
            try:  # not `edge`: this runs 50 times a second
                self.wiring.on_media(inbound, outbound)
            except Exception as problem:  # the edge of a call
                self._broke("media", problem)

    def _on_event(self, event: Event) -> None:
        with self.edge("event"):
            self.emit(event)
            match event:
                case events.LegDisconnected():
                    self._gone.set()
                    if event.by_peer and self._answer_sent and event.code != SIP_CODES[EndReason.CANCELLED]:
                        self._is_answered()  # it was, however late this loop hears of both
                    code = event.code if self.outbound else 0
                    self.end(self._why_gone(event), f"{event.code} {event.cause}", code=code)
                case events.LegProgress(media=True) if self.state is State.RINGING:
                    self._change(Change.EARLY)
                case events.LegAnswered() if self.outbound:
                    self._is_answered()
                case events.MediaStarted() if self.outbound and not self._answered:
                    self._stalled = False  # it may be that of the next trunk
                case events.DigitReceived():
                    self.digits.press(event.digit)
                case events.LegHeld():
                    self.held = True
                    self._watch_media(None)
                case events.LegResumed():
                    self.held = False
                    self._watch_media(0 if self._stalled else None)
                case events.MediaStalled():
                    self._stalled = True
                    self._watch_media(None if self.held else event.silent_ms)
                case events.MediaRecovered():
                    self._stalled = False
                    self._watch_media(None)
                case _:
                    pass
            self.wiring.settle()
            if self.listener is not None and isinstance(event, LegEvent):
                self.listener(event)

    def _is_answered(self) -> None:
        if self.state in (State.RINGING, State.EARLY):
            self._answered = True
            self.answered_at_ms = self.at_ms
            self.wiring.answered()
            self._change(Change.ANSWER)
            self.services.records.answered(self.id)
            if self.outbound:
                self.emit(events.CallCarried(self.leg.offer.trunk))
            if self.when_answered is not None:
                self.when_answered()
            self._watch_media(0 if self._stalled and not self.held else None)

    def _why_gone(self, event: events.LegDisconnected) -> EndReason:
        if self.outbound and not self._answered:
            return unanswered(event.code)
        if event.by_peer and self.outbound:
            return EndReason.CALLEE_HANGUP
        if event.by_peer:
            return EndReason.CALLER_HANGUP if self._answered else EndReason.CANCELLED
        return EndReason.MEDIA_TIMEOUT if self._stalled else EndReason.LEG_LOST

    def _watch_media(self, silent_ms: int | None) -> None:
        """End the call when the caller's media stays away for the rest of the time allowed; None: nothing is wrong.

        Whom we call need not let us hear anything before the answer.
        """
        if self._media_timer is not None:
            self._media_timer.cancel()
            self._media_timer = None
        if silent_ms is not None and self._ending is None and (self._answered or not self.outbound):
            rest_s = max(0.0, self.services.settings.media_timeout_s - silent_ms / 1000)
            self._media_timer = asyncio.get_running_loop().call_later(rest_s, self.end, EndReason.MEDIA_TIMEOUT)

    @contextmanager
    def edge(self, where: str) -> Iterator[None]:
        """A mistake of ours in a callback ends this call; it must not reach the leg, which serves others too."""
        try:
            yield
        except Exception as problem:  # the edge of a call
            self._broke(where, problem)

    # --- the course of it ---------------------------------------------------------------------------------------------

    def _change(self, change: Change) -> None:
        """The one setter of the state."""
        old, self.state = self.state, after(self.state, change)
        self.emit(events.CallStateChanged(old=old.value, new=self.state.value))

    def _begin(self) -> None:
        offer = self.leg.offer
        facts = {
            "direction": offer.direction,
            "from_uri": offer.from_uri,
            "to_uri": offer.to_uri,
            "source": offer.source,
            "sip_call_id": offer.sip_call_id,
        }
        self.services.records.started(call_id=self.id, tenant=self.tenant, **facts)
        self.emit(events.CallStarted(**facts, trunk=offer.trunk))
        loop, longest_s = asyncio.get_running_loop(), self.services.settings.max_duration_s
        self._longest = loop.call_later(longest_s, self.end, EndReason.MAX_DURATION)

    async def _until_over(self, telling: asyncio.Task[None]) -> None:
        over = asyncio.create_task(self._over.wait(), name=f"end of {self.id}")
        try:
            await asyncio.wait({telling, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
        if self._ending is not None:
            return
        problem = None if telling.cancelled() else telling.exception()
        if problem is None:
            self.end(EndReason.DIALPLAN_HANGUP)
        elif isinstance(problem, CarrierError):
            await self._wait_until_gone()
            self.end(EndReason.LEG_LOST, str(problem))
        else:
            self._broke("dialplan", problem)

    def _broke(self, where: str, problem: BaseException) -> None:
        self.log.error("call broke", where=where, exc_info=problem)
        self.emit(events.Fault(where=where, error=f"{type(problem).__name__}: {problem}"))
        self.end(EndReason.INTERNAL_ERROR, where)

    async def _close(self, telling: asyncio.Task[None] | None) -> None:
        """Hang up, let the dialplan go, close the tape, close the record; the last one happens whatever goes wrong."""
        self.end(EndReason.INTERNAL_ERROR, "ended without a reason")
        ending = cast(Ending, self._ending)
        if self._longest is not None:
            self._longest.cancel()
        self._watch_media(None)
        try:
            await self._hang_up(ending)
            self.leg.playout.flush()
            if telling is not None:
                await self._let_go(telling)
                await asyncio.gather(*map(self._let_go, tuple(self._beside)))
                await self.tape.stop()
                await self._wait_until_gone()
        finally:
            reason, code = ending.reason.value, 200 if self._answered else ending.code
            self._change(Change.CLOSE)
            self.emit(events.CallEnded(reason=reason, sip_code=code, detail=ending.detail))
            self.services.records.ended(call_id=self.id, reason=reason, sip_code=code)

    async def _hang_up(self, ending: Ending) -> None:
        if self._answered and ending.reason is EndReason.DIALPLAN_HANGUP and self.leg.playout.queued:
            await asyncio.wait([gone := asyncio.ensure_future(self._gone.wait())], timeout=TAIL_S)
            gone.cancel()
        if self._gone.is_set():
            return
        try:
            async with asyncio.timeout(HANGUP_S):
                if self._answer_sent or self.outbound:
                    await self.leg.hangup()
                else:
                    await self.leg.reject(ending.code, ending.phrase, ending.headers)
        except (TimeoutError, CarrierError) as problem:
            self.emit(events.Fault(where="hangup", error=str(problem) or "the leg did not answer in time"))

    async def _let_go(self, telling: asyncio.Task[None]) -> None:
        telling.cancel()
        await asyncio.wait({telling}, timeout=HANGUP_S)
        if not telling.done():
            self.emit(events.Fault(where="dialplan", error="it did not let go in time"))
        elif not telling.cancelled() and (problem := telling.exception()) is not None:
            self.log.debug("dialplan ended late", error=str(problem))

    def _beside_is_over(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self.log.error("work beside the dialplan broke", task=task.get_name(), exc_info=problem)
            self.emit(events.Fault(where=task.get_name(), error=f"{type(problem).__name__}: {problem}"))

    async def _wait_until_gone(self) -> None:
        """The leg's last word, for the record; it may never come."""
        try:
            async with asyncio.timeout(HANGUP_S):
                await self._gone.wait()
        except TimeoutError:
            self.emit(events.Fault(where="leg", error="it did not say that it is gone"))
