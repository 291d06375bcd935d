"""Orders carried by a real cell to peers on real sockets: what is left on the wire when attempts are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sipserver.calls.dialled import DialledLeg, connect
from sipserver.calls.outbound import Order
from sipserver.errors import CarrierError
from sipserver.events import Event, Fault, LegAnswered, LegDisconnected, LegProgress, PartyDialed
from sipserver.outbound import TrunkOutbound
from tests.fakes.party import media_port, parties
from tests.fakes.sip_peer import SipPeer, header, sdp
from tests.fakes.sip_rig import Rig, running
from tests.fakes.until import until
from tests.trunks.make import trunk

NUMBER = "+493012345678"


@contextlib.asynccontextmanager
async def placing(rig: Rig, *peers: SipPeer) -> AsyncIterator[TrunkOutbound]:
    """One trunk a peer, each failing over to the next."""
    names = [f"peer{index}" for index in range(len(peers))]
    trunks = [
        trunk(name, host=f"127.0.0.1:{peer.port}", failover=names[index + 1 : index + 2])
        for index, (name, peer) in enumerate(zip(names, peers, strict=True))
    ]
    outbound = TrunkOutbound(rig.cell, trunks, "sipserver", own_address=lambda: f"127.0.0.1:{rig.port}")
    try:
        yield outbound
    finally:
        await outbound.close()


class Dialled:
    """An order on its way, its events kept."""

    def __init__(self, outbound: TrunkOutbound, order: Order, party: str = "") -> None:
        self.leg = DialledLeg(outbound, order, "acme", party=party)
        self.events: list[Event] = []
        self.leg.attach(self.events.append, lambda *_: None)
        self.answering = asyncio.create_task(self.leg.answer(), name="answering")

    def of(self, *kinds: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    async def gone(self) -> LegDisconnected:
        await until(lambda: bool(self.of(LegDisconnected)), "the end of the leg")
        (end,) = self.of(LegDisconnected)
        assert isinstance(end, LegDisconnected)
        return end


async def test_the_second_of_two_forks_that_answer_is_hung_up() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer, placing(rig, peer) as outbound:
        media = await peer.rtp()
        dialled = Dialled(outbound, Order(NUMBER))
        invite = await peer.receive("INVITE")
        peer.answer(invite, "180 Ringing", tag="first")
        peer.answer(invite, "180 Ringing", tag="second")
        peer.answer(invite, "200 OK", tag="first", body=sdp(media.port))
        await dialled.answering
        assert header(await peer.receive("ACK"), "To").endswith("tag=first")
        peer.answer(invite, "200 OK", tag="second", body=sdp(media.port))
        assert header(await peer.receive("ACK"), "To").endswith("tag=second")
        bye = await peer.receive("BYE")
        assert header(bye, "To").endswith("tag=second")
        peer.answer(bye, "200 OK")
        assert not dialled.of(LegDisconnected)
        await dialled.leg.hangup()
        bye = await peer.receive("BYE")
        assert header(bye, "To").endswith("tag=first")
        peer.answer(bye, "200 OK")
        await dialled.gone()
        assert len(dialled.of(LegAnswered)) == 1


async def test_taking_it_back_while_it_rings_cancels_it() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer, placing(rig, peer) as outbound:
        dialled = Dialled(outbound, Order(NUMBER))
        invite = await peer.receive("INVITE")
        peer.answer(invite, "180 Ringing")
        await until(lambda: bool(dialled.of(LegProgress)))
        dialled.answering.cancel()
        peer.answer(await peer.receive("CANCEL"), "200 OK")
        peer.answer(invite, "487 Request Terminated")
        await peer.receive("ACK")
        assert not (await dialled.gone()).by_peer
        assert rig.cell.calls == 0


async def test_an_answer_that_crosses_our_cancel_is_hung_up() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer, placing(rig, peer) as outbound:
        media = await peer.rtp()
        dialled = Dialled(outbound, Order(NUMBER))
        invite = await peer.receive("INVITE")
        peer.answer(invite, "180 Ringing")
        await until(lambda: bool(dialled.of(LegProgress)))
        dialled.answering.cancel()
        peer.answer(await peer.receive("CANCEL"), "200 OK")
        peer.answer(invite, "200 OK", body=sdp(media.port))
        await peer.receive("ACK")
        peer.answer(await peer.receive("BYE"), "200 OK")
        await dialled.gone()
        assert not dialled.of(LegAnswered)
        assert rig.cell.calls == 0


async def test_taking_it_back_before_the_first_word_cancels_after_it() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer, placing(rig, peer) as outbound:
        dialled = Dialled(outbound, Order(NUMBER))
        invite = await peer.receive("INVITE")
        dialled.answering.cancel()
        await dialled.gone()
        assert not [text for text in peer.seen() if text.startswith("CANCEL")]  # RFC 3261, section 9.1
        peer.answer(invite, "180 Ringing")
        peer.answer(await peer.receive("CANCEL"), "200 OK")
        peer.answer(invite, "487 Request Terminated")
        await peer.receive("ACK")


async def test_sound_follows_to_the_trunk_that_answers() -> None:
    """Caller and callee hear each other although the feeds were wanted before the first attempt, which failed."""
    async with (
        running() as rig,
        parties(rig, "caller", "callee", "third") as (caller, callee, third),
        placing(rig, third.peer, callee.peer) as outbound,
    ):
        inbound = await caller.calls(rig)
        dialled = Dialled(outbound, Order(NUMBER), party="party-1")
        connect(inbound.leg, dialled.leg, True)
        connect(dialled.leg, inbound.leg, True)
        third.peer.answer(await third.is_called(), "183 Session Progress", body=third.sdp, tag="third")
        await third.talk(media_port(third.invite))
        await caller.hears("third")
        await third.hears("caller")
        third.peer.answer(third.invite, "503 Service Unavailable", tag="third")
        await callee.is_called()
        await callee.accepts()
        await dialled.answering
        await caller.hears("callee")
        await callee.hears("caller")
        told = [type(event) for event in dialled.of(PartyDialed, Fault, LegAnswered, LegDisconnected)]
        assert told == [PartyDialed, Fault, PartyDialed, LegAnswered]
        connect(inbound.leg, dialled.leg, False)
        await callee.hears()


async def test_nobody_is_there_on_any_trunk() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        async with running() as rig:
            trunks = [
                trunk("one", host=host, transport="tcp", failover=["two"]),
                trunk("two", host=host, transport="tcp"),
            ]
            outbound = TrunkOutbound(rig.cell, trunks, "sipserver", own_address=lambda: f"127.0.0.1:{rig.port}")
            dialled = Dialled(outbound, Order(NUMBER, ring_s=20))
            with pytest.raises(CarrierError):
                await dialled.answering
            assert [fault.where for fault in dialled.of(Fault)] == ["trunk one"]
            end = await dialled.gone()
            assert (end.code, end.by_peer) == (503, False)
            assert rig.cell.calls == 0
            await outbound.close()


async def test_a_challenge_without_credentials_for_it_is_answered_once() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer, placing(rig, peer) as outbound:
        dialled = Dialled(outbound, Order(NUMBER))
        challenge = 'WWW-Authenticate: Digest realm="elsewhere", nonce="1", algorithm=MD5\r\n'
        peer.answer(await peer.receive("INVITE"), "401 Unauthorized", headers=challenge)
        with pytest.raises(CarrierError) as refused:
            await dialled.answering
        assert refused.value.status == 401
        await peer.receive("ACK")
        assert not [text for text in peer.seen() if text.startswith("INVITE")]
