"""Legs of a cell that hear each other within PJMEDIA: tones on the wire show who hears whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sipserver.audio.frame import Frame
from sipserver.events import LegDisconnected, LegHeld, LegResumed, MediaStarted
from sipserver.sip.leg import SipLeg
from tests.fakes.party import Party, media_port, parties
from tests.fakes.sip_peer import header, sdp
from tests.fakes.sip_rig import Listener, Rig, running


class Foreign:
    """A leg of another kind, as far as a feed needs one: it passes on what it takes."""

    def __init__(self, leg: SipLeg) -> None:
        self._leg = leg

    def take(self, source: object, frame: Frame) -> None:
        self._leg.take(source, frame)


def join(one: SipLeg, other: SipLeg) -> None:
    one.feed(other, True)
    other.feed(one, True)


async def dialled(rig: Rig, party: Party) -> Listener:
    """The server calls the party, which accepts."""
    leg = await rig.cell.dial(f"sip:{party.name}@127.0.0.1:{party.peer.port}")
    listener = Listener(leg)
    await party.is_called()
    await party.accepts()
    await leg.answer()
    return listener


@asynccontextmanager
async def bridged() -> AsyncIterator[tuple[Rig, Party, Party, Listener, Listener]]:
    async with running() as rig, parties(rig, "caller", "callee") as (caller, callee):
        one = await caller.calls(rig)
        one.leg.hear(False)
        other = await dialled(rig, callee)
        other.leg.hear(False)
        join(one.leg, other.leg)
        await callee.hears("caller")
        await caller.hears("callee")
        yield rig, caller, callee, one, other


async def test_a_bridge_carries_sound_both_ways_and_no_python_hears_it() -> None:
    async with bridged() as (_rig, _caller, _callee, one, other):
        for listener in (one, other):
            listener.heard.clear()
        await _caller.hears("callee")
        assert not one.heard
        assert not other.heard


async def test_a_feed_goes_one_way_and_ends() -> None:
    async with running() as rig, parties(rig, "caller", "callee") as (caller, callee):
        one, other = await caller.calls(rig), await dialled(rig, callee)
        one.leg.feed(other.leg, True)
        await callee.hears("caller")
        await caller.hears()
        one.leg.feed(other.leg, False)
        await callee.hears()


async def test_a_feed_wanted_before_there_is_media_begins_with_it() -> None:
    async with running() as rig, parties(rig, "caller", "callee") as (caller, callee):
        one = await caller.calls(rig)
        leg = await rig.cell.dial(f"sip:x@127.0.0.1:{callee.peer.port}")
        listener = Listener(leg)
        join(one.leg, leg)
        callee.peer.answer(await callee.is_called(), "183 Session Progress", body=callee.sdp, tag="callee")
        await listener.event(MediaStarted)
        await callee.talk(media_port(callee.invite))
        await caller.hears("callee")
        await callee.hears("caller")


async def test_legs_of_another_kind_are_heard_and_hear_though_nobody_else_does() -> None:
    async with running() as rig, parties(rig, "caller", "callee") as (caller, callee):
        one, other = await caller.calls(rig), await dialled(rig, callee)
        one.leg.hear(False)
        other.leg.hear(False)
        to_callee, to_caller = Foreign(other.leg), Foreign(one.leg)
        one.leg.feed(to_callee, True)
        other.leg.feed(to_caller, True)
        await callee.hears("caller")
        await caller.hears("callee")
        one.heard.clear()
        await caller.hears("callee")
        assert not one.heard
        one.leg.feed(to_callee, False)
        await callee.hears()
        await caller.hears("callee")


async def test_a_leg_of_another_kind_is_summed_with_one_of_the_cell() -> None:
    async with running() as rig, parties(rig, "caller", "callee", "third") as (caller, callee, third):
        legs = [(await party.calls(rig)).leg for party in (caller, callee, third)]
        legs[1].feed(legs[0], True)
        legs[2].feed(Foreign(legs[0]), True)
        await caller.hears("callee", "third")
        legs[1].feed(legs[0], False)
        await caller.hears("third")


async def test_three_legs_make_a_conference_without_an_echo() -> None:
    async with running() as rig, parties(rig, "caller", "callee", "third") as (caller, callee, third):
        legs = [(await party.calls(rig)).leg for party in (caller, callee, third)]
        for one in legs:
            for other in legs:
                if one is not other:
                    one.feed(other, True)
        await caller.hears("callee", "third")
        await callee.hears("caller", "third")
        await third.hears("caller", "callee")
        for other in legs[1:]:
            legs[0].feed(other, False)  # muted
        await callee.hears("third")
        await caller.hears("callee", "third")


async def test_codecs_may_differ() -> None:
    async with running() as rig, parties(rig, "caller", "callee") as (caller, callee):
        one = await caller.calls(rig)
        leg = await rig.cell.dial(f"sip:x@127.0.0.1:{callee.peer.port}")
        listener = Listener(leg)
        callee.peer.answer(await callee.is_called(), "200 OK", body=sdp(callee.media.port, "9 101"), tag="callee")
        await leg.answer()
        join(one.leg, leg)
        assert (await listener.event(MediaStarted)).codec == "G722"
        packet = await callee.media.receive()
        assert packet.payload_type == 9
        assert len(packet.payload) == 160


async def test_a_hold_mutes_the_holder_and_the_other_one_hears_nothing_of_it() -> None:
    async with bridged() as (_rig, caller, callee, one, _other):
        assert caller.call is not None
        answer = await caller.call.transact("INVITE", body=sdp(caller.media.port, direction="sendonly", version=2))
        assert "a=recvonly" in answer
        await one.event(LegHeld)
        await callee.hears()
        await caller.call.transact("INVITE", body=sdp(caller.media.port, version=3))
        await one.event(LegResumed)
        await callee.hears("caller")
        await caller.hears("callee")


async def test_a_re_invite_of_one_leg_does_not_disturb_the_other() -> None:
    async with bridged() as (_rig, caller, callee, _one, _other):
        assert caller.call is not None
        await caller.silence()
        caller.media = await caller.peer.rtp()
        assert (await caller.call.transact("INVITE", body=sdp(caller.media.port, version=2))).startswith("SIP/2.0 200")
        await caller.talk(caller.call.media_port)
        await callee.hears("caller")
        await caller.hears("callee")
        assert not [text for text in callee.peer.seen() if not text.startswith("SIP/2.0")]


async def test_an_update_of_one_leg_does_not_disturb_the_other() -> None:
    async with bridged() as (_rig, caller, callee, _one, _other):
        assert caller.call is not None
        answer = await caller.call.transact("UPDATE", body=sdp(caller.media.port, version=2))
        assert answer.startswith("SIP/2.0 200")
        await callee.hears("caller")
        await caller.hears("callee")


async def test_a_leg_that_goes_leaves_the_other_one_alone() -> None:
    async with bridged() as (rig, caller, callee, one, other):
        assert caller.call is not None
        await caller.call.transact("BYE")
        await one.event(LegDisconnected)
        await callee.hears()
        assert not other.leg.is_gone
        third = await dialled_again(rig, caller)
        join(third.leg, other.leg)
        await callee.hears("caller")
        await caller.hears("callee")


async def dialled_again(rig: Rig, party: Party) -> Listener:
    """The party calls once more; its old dialog is over."""
    await party.silence()
    return await party.calls(rig)


async def test_the_far_end_of_a_bridge_hangs_up() -> None:
    async with bridged() as (_rig, caller, callee, _one, other):
        callee.peer.send(callee.request("BYE"))
        assert header(await callee.peer.receive(200), "CSeq") == "1 BYE"
        assert (await other.event(LegDisconnected)).by_peer
        await caller.hears()
