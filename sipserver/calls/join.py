"""Two parties that hear each other, until one of them is gone.

Owns the feeds between their legs, what each hears while the other one holds, the digits that pass, the watch over
silence, and the recording of both. The sound itself stays inside the media engine; frames come here only while a
recording runs. Refuses to call anybody and to hang anybody up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

from sipserver.audio.frame import Frame, Samples
from sipserver.audio.hold_music import gentle
from sipserver.calls.call import Call
from sipserver.calls.dialled import connect
from sipserver.calls.digits import DigitBuffer
from sipserver.calls.leg import Leg
from sipserver.calls.music import Music
from sipserver.calls.pair import Pair
from sipserver.calls.states import EndReason
from sipserver.calls.tape import Tape
from sipserver.calls.wiring import Wiring
from sipserver.errors import CallerError, CarrierError
from sipserver.events import (
    Bridged,
    DigitReceived,
    Fault,
    LegDisconnected,
    LegEvent,
    LegHeld,
    LegResumed,
    MediaRecovered,
    MediaStalled,
    Unbridged,
)

DIGITS_WAITING = 64
"""Digits that wait to be passed on; further ones are dropped, and the record says so."""


class Partner(Protocol):
    """The other one: a party that we called (`calls.party.Party`), or somebody who has a call of their own.

    tape: theirs, None if they have none. stalled: nothing comes from them, and nobody else watches that. gone: None
    while they are there. answered_at_ms: by the clock of the call that they join; None: they were there before.
    """

    listener: Callable[[LegEvent], None] | None

    @property
    def name(self) -> str: ...
    @property
    def leg(self) -> Leg: ...
    @property
    def digits(self) -> DigitBuffer: ...
    @property
    def wiring(self) -> Wiring: ...
    @property
    def tape(self) -> Tape | None: ...
    @property
    def held(self) -> bool: ...
    @property
    def stalled(self) -> bool: ...
    @property
    def gone(self) -> object | None: ...
    @property
    def answered_at_ms(self) -> int | None: ...


@asynccontextmanager
async def joined(call: Call, party: Partner, *, music: Samples | None, rtp_timeout_s: float) -> AsyncIterator[Join]:
    """Join for the length of an `async with` block; leaving it parts, and tells why. Safe to cancel anywhere."""
    join, began_ms = Join(call, party, music, rtp_timeout_s), call.at_ms
    after_ms = 0 if party.answered_at_ms is None else began_ms - party.answered_at_ms
    try:
        with join.connected():
            call.emit(Bridged(party=party.name, after_ms=after_ms))
            yield join
    finally:
        join.end("step_over")
        call.emit(Unbridged(party=party.name, reason=join.reason, lasted_ms=call.at_ms - began_ms))
        await join.close()


class Join:
    """Loop thread. Made by `joined`.

    music: what one hears while the other one holds; None: `audio.hold_music`, which the process made at its start.
    rtp_timeout_s: how long one may be silent on the wire, hold apart.
    """

    def __init__(self, call: Call, party: Partner, music: Samples | None, rtp_timeout_s: float) -> None:
        self._call, self._party = call, party
        self._tapes = [call.tape] if party.tape is None else [call.tape, party.tape]
        self._pair = Pair(self._record)
        self._handing_over = False
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._sides = (
            _Side(call, party, music, rtp_timeout_s, self._caller_silent, self._fault, f"to {party.name}"),
            _Side(party, call, music, rtp_timeout_s, self._party_silent, self._fault, f"from {party.name}"),
        )

    @contextmanager
    def connected(self) -> Iterator[None]:
        """The two hear each other, and what they do comes here, for the length of a `with` block."""
        call, party = self._call, self._party
        with (
            call.digits.handed_to(_drop),
            party.digits.handed_to(_drop),
            call.wiring.joined(self._pair.left, self._recording),
            party.wiring.joined(self._pair.right, self._recording),
            call.wiring.aside.keeper(self._settle),
            party.wiring.aside.keeper(self._settle),
        ):
            call.listener, party.listener = self._from_caller, self._from_party
            for tape in self._tapes:
                tape.watchers.append(self._tape_changed)
            try:
                self._sides[0].begin(held=call.held, stalled=False)  # the call itself watches what was before
                self._sides[1].begin(held=party.held, stalled=party.stalled)
                if party.gone is not None:
                    self.end("party_hangup")
                yield
            finally:
                call.listener = party.listener = None
                for tape in self._tapes:
                    tape.watchers.remove(self._tape_changed)
                for side in self._sides:
                    side.part()
                self._pair.flush()

    async def close(self) -> None:
        """See the tasks out."""
        for side in self._sides:
            await side.close()

    def hand_over(self, on: bool) -> None:
        """While on, one of the legs is about to be replaced by REFER: a hold is no reason for music, and a party that
        goes is no reason to part.
        """
        self._handing_over = on
        for side in self._sides:
            side.hush(on)
        if not on and self._party.gone is not None:
            self.end("party_hangup")

    def end(self, reason: str) -> None:
        """Why it is over: a reason of `Unbridged`. The first one stays."""
        if not self._over.done():
            self._over.set_result(reason)

    async def over(self, longest_s: float | None = None) -> str:
        """Wait for the end. Returns why: party_hangup | caller_hangup | media_timeout | max_duration, or what `end`
        said. A caller who is gone usually ends the call, and this wait with it.
        """
        try:
            async with asyncio.timeout(longest_s):
                return await asyncio.shield(self._over)
        except TimeoutError:
            self.end("max_duration")
        return self.reason

    @property
    def reason(self) -> str:
        """Why it is over; it must be."""
        return self._over.result()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _from_caller(self, event: LegEvent) -> None:
        if isinstance(event, LegDisconnected) and event.by_peer:
            self.end("caller_hangup")
        self._sides[0].on_event(event)

    def _from_party(self, event: LegEvent) -> None:
        if isinstance(event, LegDisconnected) and not self._handing_over:
            self.end("party_hangup")
        self._sides[1].on_event(event)

    def _settle(self) -> None:
        for side in self._sides:
            side.settle()

    def _caller_silent(self) -> None:
        self.end("media_timeout")
        self._call.end(EndReason.MEDIA_TIMEOUT)

    def _party_silent(self) -> None:
        self.end("media_timeout")

    def _recording(self) -> bool:
        return any(tape.running for tape in self._tapes)

    def _record(self, caller: Frame, party: Frame) -> None:
        """On each one's own tape they are left, and the other one is right."""
        self._call.tape.hear(caller, party)
        if self._party.tape is not None:
            self._party.tape.hear(party, caller)

    def _tape_changed(self) -> None:
        self._call.wiring.settle()
        self._party.wiring.settle()
        if not self._recording():
            self._pair.flush()

    def _fault(self, error: str) -> None:
        self._call.emit(Fault(where="bridge", error=error))


class _Heard(Protocol):
    """What a call and a partner have in common."""

    @property
    def leg(self) -> Leg: ...
    @property
    def wiring(self) -> Wiring: ...


class _Side:
    """What one party's leg means for the other one. silent: called when it has sent nothing for too long."""

    def __init__(
        self,
        one: _Heard,
        other: _Heard,
        music: Samples | None,
        timeout_s: float,
        silent: Callable[[], None],
        fault: Callable[[str], None],
        name: str,
    ) -> None:
        self._leg, self._other = one.leg, other.leg
        self._aside, self._others = one.wiring.aside, other.wiring.aside
        self._fault = fault
        self._music = Music(other.leg.playout, gentle() if music is None else music, f"hold: {name}")
        self._timeout_s, self._silent, self._name = timeout_s, silent, name
        self._held = self._hushed = self._feeds = False
        self._stalled = False
        self._timer: asyncio.TimerHandle | None = None
        self._digits: asyncio.Queue[str] = asyncio.Queue(DIGITS_WAITING)
        self._passing: asyncio.Task[None] | None = None

    def begin(self, *, held: bool, stalled: bool) -> None:
        """The other one hears this one from now on. held, stalled: it holds already, and sends nothing already."""
        self._held, self._stalled = held, stalled
        self._passing = asyncio.create_task(self._pass_digits(), name=f"digits: {self._name}")
        self.settle()
        self._watch(0 if stalled and not held else None)

    def part(self) -> None:
        """The other one hears it no longer."""
        self._watch(None)
        self._music.stop()
        self._feed(False)
        if self._passing is not None:
            self._passing.cancel()

    async def close(self) -> None:
        await self._music.close()
        if self._passing is not None:
            await asyncio.wait({self._passing})

    def hush(self, on: bool) -> None:
        self._hushed = on
        self.settle()

    def on_event(self, event: LegEvent) -> None:
        match event:
            case DigitReceived():
                self._digit(event)
            case LegHeld():
                self._held = True
                self._watch(None)
                self.settle()
            case LegResumed():
                self._held = False
                self._watch(0 if self._stalled else None)
                self.settle()
            case MediaStalled():
                self._stalled = True
                self._watch(None if self._held else event.silent_ms)
            case MediaRecovered():
                self._stalled = False
                self._watch(None)
            case LegDisconnected():
                self._watch(None)
            case _:
                pass

    def settle(self) -> None:
        """The feed stays through a hold of the telephone: the leg itself keeps the holder's sound back."""
        self._feed(self._aside.heard and self._others.listens)
        waits = (self._held and not self._hushed) or self._others.on_hold
        plays = waits and not self._others.announced
        if plays == self._music.on:
            return
        if plays:
            self._music.start()
        else:
            self._music.stop()

    def _feed(self, on: bool) -> None:
        if on != self._feeds:
            self._feeds = on
            connect(self._leg, self._other, on)

    def _watch(self, silent_ms: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if silent_ms is not None:
            rest_s = max(0.0, self._timeout_s - silent_ms / 1000)
            self._timer = asyncio.get_running_loop().call_later(rest_s, self._silent)

    def _digit(self, event: DigitReceived) -> None:
        """A tone in band is in the sound that passes; an event is not."""
        if event.method == "inband":
            return
        try:
            self._digits.put_nowait(event.digit)
        except asyncio.QueueFull:
            self._fault(f"{self._name}: a digit was dropped, {DIGITS_WAITING} are waiting")

    async def _pass_digits(self) -> None:
        while True:
            digit = await self._digits.get()
            try:
                await self._other.send_digits(digit)
            except (CarrierError, CallerError) as problem:
                self._fault(f"{self._name}: a digit was not passed on: {problem}")


def _drop(_digit: str) -> None:
    """Digits of joined parties are for the other one; none is kept for a later menu."""
