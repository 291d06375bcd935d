"""One leg that stands for many attempts: what is told, what is hidden, what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from sipserver.audio.frame import Frame
from sipserver.calls.attempts import DEAF_S
from sipserver.calls.dialled import DialledLeg, connect, underlying
from sipserver.calls.leg import Leg
from sipserver.calls.outbound import Order
from sipserver.errors import CallerError, CapacityError, CarrierError, Draining
from sipserver.events import (
    Event,
    Fault,
    LegAnswered,
    LegDisconnected,
    LegProgress,
    MediaStarted,
    PartyDialed,
    ReferProgress,
    SipMessage,
)
from tests.fakes.leg import FakeLeg, breathe
from tests.fakes.outbound import FakeOutbound, PlacedLeg
from tests.fakes.virtual_time import virtual

ORDER = Order("+493012345", ring_s=20)


class Watched:
    """A dialled leg whose events are kept, with somebody who waits for its answer."""

    def __init__(self, outbound: FakeOutbound, order: Order = ORDER, *, party: str = "") -> None:
        self.outbound = outbound
        self.leg = DialledLeg(outbound, order, "acme", party=party)
        self.events: list[Event] = []
        self.frames: list[Frame] = []
        self.leg.attach(self.events.append, lambda heard, _: self.frames.append(heard))
        self.answering = asyncio.create_task(self.leg.answer(), name="answering")

    def of(self, *kinds: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    async def refused(self) -> CarrierError:
        with pytest.raises(CarrierError) as problem:
            await self.answering
        return problem.value


def satisfies(leg: Leg) -> Leg:
    return leg


@virtual
async def test_it_is_a_leg() -> None:
    leg = satisfies(DialledLeg(FakeOutbound(), ORDER, "acme"))
    assert (leg.offer.direction, leg.offer.to_uri, leg.offer.to_user) == (
        "outbound",
        "sip:+493012345@carrier.example",
        "+493012345",
    )
    assert (leg.offer.trunk, leg.offer.sip_call_id) == ("carrier", "")


@virtual
async def test_the_first_trunk_answers() -> None:
    outbound = FakeOutbound("one", "two")
    watched = Watched(outbound)
    placed = await outbound.leg()
    placed.progress(183, media=True)
    placed.tick_now(np.ones(320, np.int16))
    placed.picks_up()
    await watched.answering
    assert watched.events == [LegProgress(code=183, media=True), LegAnswered()]
    assert len(watched.frames) == 1
    assert [(way.trunk, left_s) for way, left_s in outbound.dialled] == [("one", 20)]
    assert (watched.leg.offer.sip_call_id, watched.leg.offer.trunk) == ("1@placed", "one")
    await watched.leg.answer()
    placed.peer_leaves()
    assert watched.of(LegDisconnected) == [LegDisconnected(code=200, cause="Normal", by_peer=True)]
    with pytest.raises(CarrierError):
        await watched.leg.answer()


@pytest.mark.parametrize("code", [0, 408, 500, 503, 504])
def test_the_next_trunk_takes_what_the_first_cannot_carry(code: int) -> None:
    @virtual
    async def course() -> None:
        outbound = FakeOutbound("one", "two")
        watched = Watched(outbound)
        first = await outbound.leg()
        await asyncio.sleep(2)
        first.tell(SipMessage(direction="received", summary=f"{code} (INVITE)"))
        first.refuses(code, "Sorry")
        second = await outbound.leg(2)
        second.picks_up()
        await watched.answering
        assert [type(event) for event in watched.events] == [SipMessage, Fault, LegAnswered]
        (fault,) = watched.of(Fault)
        assert fault.where == "trunk one"
        assert fault.error == f"{code} Sorry; the next one is tried".removeprefix("0 ")
        assert [(way.trunk, left_s) for way, left_s in outbound.dialled] == [("one", 20), ("two", 18)]
        assert watched.leg.offer.trunk == "two"
        await watched.leg.hangup()
        assert len(watched.of(LegDisconnected)) == 1
        assert second.actions == ["hangup"]

    course()


@pytest.mark.parametrize("code", [302, 401, 404, 407, 480, 486, 487, 488, 600, 603])
def test_what_the_far_end_decides_is_the_last_word(code: int) -> None:
    @virtual
    async def course() -> None:
        outbound = FakeOutbound("one", "two")
        watched = Watched(outbound)
        (await outbound.leg()).refuses(code, "No")
        refusal = await watched.refused()
        assert refusal.status == code
        assert watched.events == [LegDisconnected(code=code, cause="No", by_peer=True)]
        assert len(outbound.dialled) == 1

    course()


@virtual
async def test_the_last_trunk_says_what_came_of_it() -> None:
    outbound = FakeOutbound("one", "two")
    watched = Watched(outbound)
    (await outbound.leg()).refuses(503)
    (await outbound.leg(2)).refuses(502, "Bad Gateway")
    assert (await watched.refused()).status == 502
    assert watched.of(LegDisconnected) == [LegDisconnected(code=502, cause="Bad Gateway", by_peer=True)]


@virtual
async def test_nobody_answers_in_time_and_no_other_trunk_is_tried() -> None:
    outbound = FakeOutbound("one", "two")
    watched = Watched(outbound)
    (await outbound.leg()).progress()
    assert (await watched.refused()).status == 408
    assert asyncio.get_running_loop().time() == 20
    assert len(outbound.dialled) == 1
    assert watched.of(LegDisconnected) == [LegDisconnected(code=408, cause="no answer", by_peer=False)]


@virtual
async def test_the_time_is_shared_by_all_trunks() -> None:
    outbound = FakeOutbound("one", "two", "three")
    watched = Watched(outbound)
    first = await outbound.leg()
    first.progress(100)
    await asyncio.sleep(19.8)
    first.refuses(503)
    assert (await watched.refused()).status == 503
    assert len(outbound.dialled) == 1


@virtual
async def test_a_trunk_that_says_nothing_is_given_up_for_the_next() -> None:
    outbound = FakeOutbound("one", "two")
    watched = Watched(outbound)
    first = await outbound.leg()
    second = await outbound.leg(2)
    assert asyncio.get_running_loop().time() == DEAF_S
    assert first.actions == ["hangup"]
    assert watched.of(Fault)[0].error.startswith("408 not a word")
    first.picks_up()  # too late: its leg says BYE
    assert not watched.of(LegAnswered)
    await asyncio.sleep(2 * DEAF_S)  # there is no third
    second.picks_up()
    await watched.answering


@virtual
async def test_an_answer_that_crosses_the_giving_up_counts_for_nothing() -> None:
    outbound = FakeOutbound("one", "two")
    watched = Watched(outbound)
    first = await outbound.leg()
    first.silent_hangup = True
    await asyncio.sleep(DEAF_S)
    first.picks_up()
    second = await outbound.leg(2)
    first.tell(LegDisconnected(code=200, cause="", by_peer=False))
    assert not watched.of(LegAnswered, LegDisconnected)
    second.picks_up()
    await watched.answering
    assert [type(event) for event in watched.events] == [Fault, LegAnswered]
    assert watched.leg.now is second


@pytest.mark.parametrize("word", [LegProgress(code=100), SipMessage(direction="received", summary="100 Trying")])
def test_a_trunk_that_said_a_word_has_all_the_time(word: Event) -> None:
    @virtual
    async def course() -> None:
        outbound = FakeOutbound("one", "two")
        watched = Watched(outbound)
        first = await outbound.leg()
        first.tell(SipMessage(direction="sent", summary="INVITE"))
        await asyncio.sleep(1)
        first.tell(word)
        await asyncio.sleep(2 * DEAF_S)
        first.picks_up()
        await watched.answering
        assert len(outbound.dialled) == 1

    course()


@virtual
async def test_a_refusal_that_comes_before_anybody_looks_leaves_the_facts_of_its_attempt() -> None:
    """A record that begins then has the Call-ID of the INVITE that was sent."""
    outbound = FakeOutbound("one", "two")
    leg = DialledLeg(outbound, ORDER, "acme")
    await leg.dial()
    (await outbound.leg()).refuses(503)
    assert leg.now is None
    assert (leg.offer.sip_call_id, leg.offer.trunk) == ("1@placed", "one")
    await leg.hangup()


@virtual
async def test_an_invite_that_cannot_be_sent_goes_by_the_next_trunk() -> None:
    outbound = FakeOutbound("one", "two", fails=[CarrierError("no transport")])
    watched = Watched(outbound, party="party-1")
    (await outbound.leg()).picks_up()
    await watched.answering
    assert watched.events == [
        PartyDialed(party="party-1", to="sip:+493012345@one.example", trunk="one", attempt=1),
        Fault(where="trunk one", error="no transport; the next one is tried"),
        PartyDialed(party="party-1", to="sip:+493012345@two.example", trunk="two", attempt=2, sip_call_id="1@placed"),
        LegAnswered(),
    ]


@pytest.mark.parametrize("problem", [CapacityError("all 4 calls are taken"), Draining("the cell is draining")])
def test_a_process_without_room_tries_nobody_else(problem: CapacityError | Draining) -> None:
    @virtual
    async def course() -> None:
        outbound = FakeOutbound("one", "two", fails=[problem])
        watched = Watched(outbound)
        assert (await watched.refused()).status == 503
        assert watched.events == [LegDisconnected(code=503, cause=str(problem), by_peer=False)]
        leg = DialledLeg(FakeOutbound(fails=[problem]), ORDER, "acme")
        with pytest.raises(type(problem)):
            await leg.dial()
        with pytest.raises(CarrierError):
            await leg.answer()

    course()


@virtual
async def test_no_trunk_can_be_asked() -> None:
    outbound = FakeOutbound("one", "two", fails=[CarrierError("a"), CarrierError("b", 503)])
    watched = Watched(outbound)
    assert (await watched.refused()).status == 503
    assert watched.of(LegDisconnected) == [LegDisconnected(code=503, cause="b", by_peer=False)]


def test_an_order_that_nobody_carries_raises_at_once() -> None:
    @virtual
    async def course() -> None:
        outbound = FakeOutbound()
        outbound.refuses = CallerError("no trunk carries it")
        with pytest.raises(CallerError, match="no trunk carries it"):
            DialledLeg(outbound, ORDER, "acme")

    course()


@virtual
async def test_it_answers_and_dies_at_once() -> None:
    outbound = FakeOutbound("one", "two")
    watched = Watched(outbound)
    placed = await outbound.leg()
    placed.picks_up()
    placed.peer_leaves()
    assert (await watched.refused()).status == 200
    assert [type(event) for event in watched.events] == [LegAnswered, LegDisconnected]
    assert len(outbound.dialled) == 1


# --- taking it back ---------------------------------------------------------------------------------------------------


@virtual
async def test_cancelling_the_wait_hangs_up() -> None:
    outbound = FakeOutbound("one", "two")
    watched = Watched(outbound)
    placed = await outbound.leg()
    placed.progress()
    watched.answering.cancel()
    await asyncio.wait({watched.answering})
    assert watched.answering.cancelled()
    assert placed.actions == ["hangup"]
    assert watched.of(LegDisconnected) == [LegDisconnected(code=487, cause="", by_peer=False)]


@virtual
async def test_cancelling_while_the_invite_is_being_sent_leaves_no_leg() -> None:
    outbound = FakeOutbound("one", "two")
    outbound.slow = True
    watched = Watched(outbound)
    await breathe()
    watched.answering.cancel()
    await asyncio.wait({watched.answering})
    assert watched.of(LegDisconnected) == [LegDisconnected(code=487, cause="taken back", by_peer=False)]
    outbound.go_on.set()
    placed = await outbound.leg()
    await breathe()
    assert placed.actions == ["hangup"]
    with pytest.raises(CarrierError):
        await watched.leg.dial()


@virtual
async def test_hanging_up_while_the_invite_is_being_sent_leaves_no_leg() -> None:
    outbound = FakeOutbound("one", "two")
    outbound.slow = True
    watched = Watched(outbound)
    await breathe()
    await watched.leg.hangup()
    outbound.go_on.set()
    assert (await watched.refused()).status == 487
    assert outbound.legs[0].actions == ["hangup"]
    assert len(watched.of(LegDisconnected)) == 1


@virtual
async def test_hanging_up_ends_the_attempts() -> None:
    outbound = FakeOutbound("one", "two")
    watched = Watched(outbound)
    placed = await outbound.leg()
    placed.silent_hangup = True
    await watched.leg.reject(603)
    placed.refuses(503)  # crossed our CANCEL
    assert (await watched.refused()).status == 487
    assert len(outbound.dialled) == 1
    await watched.leg.hangup()


@virtual
async def test_hanging_up_before_anybody_was_called() -> None:
    outbound = FakeOutbound()
    leg = DialledLeg(outbound, ORDER, "acme")
    await leg.hangup()
    events: list[Event] = []
    leg.attach(events.append, lambda *_: None)
    assert events == [LegDisconnected(code=487, cause="taken back", by_peer=False)]
    with pytest.raises(CarrierError):
        await leg.answer()
    assert not outbound.dialled


# --- what is passed on ------------------------------------------------------------------------------------------------


@virtual
async def test_dial_places_it_and_attach_delivers_what_happened_before() -> None:
    outbound = FakeOutbound("one", "two", fails=[CarrierError("no transport", 0)])
    leg = DialledLeg(outbound, ORDER, "acme")
    await leg.dial()
    await leg.dial()
    outbound.legs[0].progress()
    events: list[Event] = []
    leg.attach(events.append, lambda *_: None)
    assert [type(event) for event in events] == [Fault, LegProgress]
    assert len(outbound.legs) == 1
    await leg.hangup()


@contextlib.asynccontextmanager
async def answered(outbound: FakeOutbound) -> AsyncIterator[tuple[Watched, PlacedLeg]]:
    watched = Watched(outbound)
    placed = await outbound.leg()
    placed.picks_up()
    await watched.answering
    yield watched, placed
    await watched.leg.hangup()


@virtual
async def test_everything_else_is_the_leg_of_the_moment() -> None:
    async with answered(FakeOutbound()) as (watched, placed):
        leg = watched.leg
        assert leg.playout is placed.playout
        placed.wants_inband_digits = True
        assert leg.wants_inband_digits
        assert leg.can_refer
        placed.can_replace = False
        assert not leg.can_replace
        await leg.ring()
        await leg.early()
        await leg.send_digits("12")
        assert await leg.refer("sip:x@y", replaces=FakeLeg()) == 200
        assert placed.actions == ["digits 12", "refer sip:x@y replaces"]
        assert watched.of(ReferProgress)


@virtual
async def test_before_an_answer_there_is_nobody_to_send_digits_to() -> None:
    outbound = FakeOutbound()
    watched = Watched(outbound)
    placed = await outbound.leg()
    with pytest.raises(CarrierError, match="nobody has answered"):
        await watched.leg.send_digits("1")
    with pytest.raises(CarrierError, match="nobody has answered"):
        await watched.leg.refer("sip:x@y")
    placed.refuses(486)
    await watched.refused()


@virtual
async def test_what_was_wanted_is_wanted_of_the_next_leg_too() -> None:
    outbound = FakeOutbound("one", "two", "three")
    caller, monitor = FakeLeg(), FakeLeg()
    watched = Watched(outbound)
    leg = watched.leg
    leg.hear(False)
    leg.feed(caller, True)
    leg.feed(monitor, True)
    first = await outbound.leg()
    connect(caller, leg, True)
    leg.loop_back(True)
    assert (first.heard, first.looped, first.feeds, caller.feeds) == (False, True, {caller, monitor}, {first})
    first.refuses(503)
    leg.feed(monitor, False)
    second = await outbound.leg(2)
    assert (second.heard, second.looped, second.feeds) == (False, True, {caller})
    assert second in caller.feeds
    leg.hear(True)
    leg.loop_back(False)
    connect(leg, caller, False)
    connect(caller, leg, False)
    assert (second.heard, second.looped, second.feeds) == (True, False, set())
    assert second not in caller.feeds
    second.tell(MediaStarted(codec="PCMA", payload_type=8, clock_hz=8000, remote="127.0.0.1:9"))
    second.picks_up()
    await watched.answering
    assert underlying(leg) is second
    other = FakeLeg()
    connect(leg, other, True)
    connect(other, leg, True)
    assert (second.feeds, other.feeds) == ({other}, {second})
    assert underlying(other) is other


@virtual
async def test_no_leg_no_underlying_one() -> None:
    with pytest.raises(CarrierError):
        underlying(DialledLeg(FakeOutbound(), ORDER, "acme"))
