"""A leg that stands for whoever answers an order: by whichever trunk that is, it looks like one leg.

Owns what was wanted of the leg while its attempts come and go. Refuses to know when the next trunk is tried
(`attempts.py` does) and why somebody is called. Satisfies `calls.leg.Leg`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sipserver.audio.frame import Frame
from sipserver.audio.playout import Playout
from sipserver.calls.attempts import Attempts
from sipserver.calls.leg import Leg, OnMedia
from sipserver.calls.outbound import Order, Outbound, Way
from sipserver.dialplan.facts import split_uri
from sipserver.errors import CarrierError
from sipserver.events import Emit, Event, LegDisconnected

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


class DialledLeg:
    """Loop thread. party: the name of the party in a call that has it called; empty for the call's own leg.

    Attach, then `await answer()`, which sends the first INVITE unless `dial` has. Every event of every attempt is
    passed on, except the end of one whose place the next trunk takes (transport failure, 408, 5xx; see `tries_next`).
    So there is one `LegDisconnected`, at most one `LegAnswered`, and a `Fault` for each attempt that was replaced.
    Raises CallerError (403) when no trunk carries the order.
    """

    def __init__(self, outbound: Outbound, order: Order, tenant: str, *, party: str = "") -> None:
        self._attempts = Attempts(outbound, order, tenant, party, emit=self._tell, take=self._take)
        self._earlier: deque[Event] = deque(maxlen=_EARLIER_EVENTS)
        self._emit: Emit = self._earlier.append
        self._on_media: OnMedia = _nobody_hears
        self._hears: bool | None = None
        self._loops = False
        self._feeds: dict[int, Any] = {}
        self._fed_by: dict[int, Any] = {}
        self._idle = Playout()

    async def dial(self) -> None:
        """Send the first INVITE that can be sent, and return. Nothing when one is out already.

        Raises CapacityError and Draining when this process can place no call, CarrierError when no trunk could be
        asked; `LegDisconnected` is told then, too. Safe to cancel: what was being sent is cancelled.
        """
        await self._attempts.dial()

    async def answer(self) -> None:
        """Wait until somebody answers; the order's time bounds it. Raises CarrierError with the last status when nobody
        does, 503 when this process has no room. Cancelling it takes the call back; no leg stays behind.
        """
        await self._attempts.answer()

    # --- calls.leg.Leg ------------------------------------------------------------------------------------------------

    @property
    def offer(self) -> DialledOffer:
        """Between two attempts that of the last one: a refusal can come before the record begins."""
        return DialledOffer.of(self._attempts.way, self._attempts.latest)

    @property
    def now(self) -> Leg | None:
        """The leg of the moment; None before the first INVITE and between two."""
        return self._attempts.leg

    @property
    def playout(self) -> Playout:
        """Of the leg of the moment: sound that is queued before the answer may be lost with its attempt."""
        return self.now.playout if self.now is not None else self._idle

    @property
    def wants_inband_digits(self) -> bool:
        return self.now is not None and self.now.wants_inband_digits

    @property
    def can_refer(self) -> bool:
        return self.now is not None and self.now.can_refer

    @property
    def can_replace(self) -> bool:
        return self.now is not None and self.now.can_replace

    def attach(self, emit: Emit, on_media: OnMedia) -> None:
        """Connect the call; delivers what happened before."""
        earlier, self._earlier = self._earlier, deque()
        self._emit, self._on_media = emit, on_media
        for event in earlier:
            emit(event)

    def hear(self, wanted: bool) -> None:
        self._hears = wanted
        if self.now is not None:
            self.now.hear(wanted)

    def loop_back(self, on: bool) -> None:
        self._loops = on
        if self.now is not None:
            self.now.loop_back(on)

    def feed(self, other: Any, on: bool) -> None:
        """As `Leg.feed`, from whichever leg is the one of the moment. other: may be a `DialledLeg` that is answered."""
        _note(self._feeds, other, on)
        if self.now is not None:
            self.now.feed(underlying(other), on)

    def fed_by(self, other: Any, on: bool) -> None:
        """The other direction: `other` feeds whichever leg is the one of the moment."""
        _note(self._fed_by, other, on)
        if self.now is not None:
            underlying(other).feed(self.now, on)

    def take(self, source: object, frame: Frame) -> None:
        """As `Leg.take`, for whichever leg is the one of the moment."""
        if self.now is not None:
            self.now.take(source, frame)

    async def ring(self) -> None:
        """Nothing: the far end rings."""

    async def early(self) -> None:
        """Nothing: the far end decides about early media."""

    async def reject(self, code: int, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        """We placed it: nobody waits for our answer. As `hangup`."""
        await self.hangup(code)

    async def hangup(self, code: int = 0) -> None:
        """CANCEL or BYE; no other trunk is tried."""
        await self._attempts.hangup(code)

    async def send_digits(self, digits: str, duration_ms: int = 160) -> None:
        await self._answering().send_digits(digits, duration_ms)

    async def refer(self, to_uri: str, *, replaces: Any = None) -> int:
        return await self._answering().refer(to_uri, replaces=None if replaces is None else underlying(replaces))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _answering(self) -> Leg:
        self._attempts.require()
        if self.now is None or not self._attempts.answered:
            raise CarrierError("nobody has answered yet")
        return self.now

    def _tell(self, event: Event) -> None:
        if isinstance(event, LegDisconnected):
            self._idle.flush()
        self._emit(event)

    def _take(self, leg: Leg, emit: Emit) -> None:
        """The leg of the moment is another one: what was wanted of the one before is wanted of it."""
        leg.attach(emit, self._on_frames)
        if self._hears is not None:
            leg.hear(self._hears)
        if self._loops:
            leg.loop_back(True)
        for other in self._feeds.values():
            leg.feed(underlying(other), True)
        for other in self._fed_by.values():
            underlying(other).feed(leg, True)

    def _on_frames(self, heard: Frame, played: Frame) -> None:
        self._on_media(heard, played)


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
