"""Transfers as a PBX knows them: REFER out and in, INVITE with Replaces in. Tones on the wire show who hears whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from sipserver.errors import CarrierError
from sipserver.events import LegDisconnected, LegReplaced, ReferProgress, ReferReceived, SipMessage
from sipserver.sip import pjcall
from sipserver.trunks.settings import TrunkSettings
from tests.fakes.party import Party, media_port, parties
from tests.fakes.sip_peer import SipPeer, header, status_of
from tests.fakes.sip_rig import Listener, Rig, running
from tests.sip.test_feeds import dialled, join

PBX = TrunkSettings(name="pbx", sources=("127.0.0.1/32",), refer_to=("third",), replaces=True)
OTHER = TrunkSettings(name="other", sources=("127.0.0.1/32",))
FROM_PBX = "X-Sipserver-Trunk: pbx\r\n"
FROM_OTHER = "X-Sipserver-Trunk: other\r\n"


@asynccontextmanager
async def talking(trunk: str = FROM_PBX) -> AsyncIterator[tuple[Rig, Party, Party, Party, Listener, Listener]]:
    """Caller and callee are bridged; a third one waits. The edge tells the trunk."""
    async with (
        running(trunks=(PBX, OTHER), behind_edge=True) as rig,
        parties(rig, "caller", "callee", "third") as (caller, callee, third),
    ):
        one = await caller.calls(rig, headers=trunk)
        other = await dialled(rig, callee)
        join(one.leg, other.leg)
        await callee.hears("caller")
        yield rig, caller, callee, third, one, other


def notified(text: str) -> tuple[int, bool]:
    """Status and whether it was the last one, of a NOTIFY about a transfer."""
    assert header(text, "Event").startswith("refer")
    assert header(text, "Content-Type").startswith("message/sipfrag")
    return status_of(text.partition("\r\n\r\n")[2]), header(text, "Subscription-State").startswith("terminated")


async def notifications(party: Party) -> int:
    """Answer each NOTIFY until the last one; its status."""
    while True:
        text = await party.peer.receive("NOTIFY")
        party.peer.answer(text, "200 OK")
        status, last = notified(text)
        if last:
            return status


# --- REFER out --------------------------------------------------------------------------------------------------------


def tell(party: Party, sequence: int, line: str, state: str = "active;expires=60") -> None:
    """A NOTIFY of the party that was asked to call somebody."""
    assert party.call is not None
    headers = f"Event: refer\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag\r\n"
    party.peer.send(party.call.request("NOTIFY", headers=headers, body=f"{line}\r\n"))


@pytest.mark.parametrize(("line", "code"), [("SIP/2.0 200 OK", 200), ("SIP/2.0 486 Busy Here", 486)])
async def test_a_refer_waits_for_the_last_word(line: str, code: int) -> None:
    async with running() as rig, parties(rig, "caller") as (caller,):
        one = await caller.calls(rig)
        referring = asyncio.create_task(one.leg.refer("sip:300@example.org"))
        refer = await caller.peer.receive("REFER")
        assert "sip:300@example.org" in header(refer, "Refer-To")
        caller.peer.answer(refer, "202 Accepted")
        tell(caller, 1, "SIP/2.0 100 Trying")
        await caller.peer.receive(200)
        tell(caller, 2, "SIP/2.0 180 Ringing")
        await caller.peer.receive(200)
        assert not referring.done()
        tell(caller, 3, line, "terminated;reason=noresource")
        assert await referring == code
        assert [(told.code, told.final) for told in one.of(ReferProgress)][-2:] == [(180, False), (code, True)]
        assert not one.leg.is_gone


@pytest.mark.parametrize("status", ["603 Decline", "405 Method Not Allowed", "501 Not Implemented"])
async def test_a_refer_that_is_refused(status: str) -> None:
    async with running() as rig, parties(rig, "caller") as (caller,):
        one = await caller.calls(rig)
        referring = asyncio.create_task(one.leg.refer("sip:300@example.org"))
        caller.peer.answer(await caller.peer.receive("REFER"), status)
        with pytest.raises(CarrierError) as refused:
            await referring
        assert refused.value.status == int(status[:3])
        assert not one.leg.is_gone


async def test_the_peer_goes_while_its_transfer_is_under_way() -> None:
    async with running() as rig, parties(rig, "caller") as (caller,):
        one = await caller.calls(rig)
        referring = asyncio.create_task(one.leg.refer("sip:300@example.org"))
        caller.peer.answer(await caller.peer.receive("REFER"), "202 Accepted")
        assert caller.call is not None
        await caller.call.transact("BYE")
        with pytest.raises(CarrierError):
            await referring


async def test_a_refer_with_replaces_names_the_other_dialog() -> None:
    async with running() as rig, parties(rig, "caller", "callee") as (caller, callee):
        one, other = await caller.calls(rig), await dialled(rig, callee)
        referring = asyncio.create_task(one.leg.refer("", replaces=other.leg))
        refer = await caller.peer.receive("REFER")
        refer_to = header(refer, "Refer-To")
        assert "Replaces=" in refer_to
        assert header(callee.invite, "Call-ID").partition("@")[0] in refer_to
        assert f"to-tag%3D{'callee'}" in refer_to or "to-tag%3dcallee" in refer_to
        caller.peer.answer(refer, "202 Accepted")
        tell(caller, 1, "SIP/2.0 200 OK", "terminated;reason=noresource")
        assert await referring == 200


# --- REFER in ---------------------------------------------------------------------------------------------------------


def refer_to(party: Party) -> str:
    return f"Refer-To: <sip:{party.name}@127.0.0.1:{party.peer.port}>\r\n"


async def test_a_peer_transfers_us_and_the_new_one_takes_its_place() -> None:
    async with talking() as (rig, caller, callee, third, one, other):
        assert caller.call is not None
        assert (await caller.call.transact("REFER", headers=refer_to(third))).startswith("SIP/2.0 202")
        await third.is_called()
        await callee.hears("caller")
        await third.accepts()
        assert await notifications(caller) == 200
        replaced = await one.event(LegReplaced)
        assert (replaced.by, replaced.sip_call_id) == ("refer", header(third.invite, "Call-ID"))
        await callee.hears("third")
        await third.hears("callee")
        await caller.call.transact("BYE")
        await callee.hears("third")
        assert not one.leg.is_gone
        assert one.of(ReferReceived)[0].code == 202
        third.peer.send(third.request("BYE"))
        assert (await one.event(LegDisconnected)).by_peer
        assert not other.leg.is_gone
        assert rig.cell.calls == 1


async def test_a_transfer_that_fails_leaves_everything_as_it_was() -> None:
    async with talking() as (_rig, caller, callee, third, one, _other):
        assert caller.call is not None
        assert (await caller.call.transact("REFER", headers=refer_to(third))).startswith("SIP/2.0 202")
        third.peer.answer(await third.is_called(), "486 Busy Here")
        assert await notifications(caller) == 486
        await callee.hears("caller")
        await caller.hears("callee")
        assert not one.of(LegReplaced)


async def test_the_transferor_that_does_not_hang_up_is_hung_up() -> None:
    async with talking() as (_rig, caller, callee, third, one, _other):
        assert caller.call is not None
        await caller.call.transact("REFER", headers=refer_to(third))
        await third.is_called()
        await third.accepts()
        assert await notifications(caller) == 200
        caller.peer.answer(await caller.peer.receive("BYE", timeout_s=15), "200 OK")
        await callee.hears("third")
        assert not one.leg.is_gone


async def test_the_transferor_hangs_up_while_the_target_rings() -> None:
    async with talking() as (_rig, caller, _callee, third, one, other):
        assert caller.call is not None
        await caller.call.transact("REFER", headers=refer_to(third))
        third.peer.answer(await third.is_called(), "180 Ringing", tag="third")
        await caller.call.transact("BYE")
        await one.event(LegDisconnected)
        cancel = await third.peer.receive("CANCEL")
        third.peer.answer(cancel, "200 OK")
        third.peer.answer(third.invite, "487 Request Terminated", tag="third")
        assert not other.leg.is_gone


async def test_a_target_that_rings_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pjcall, "REFERRED_RING_S", 0.5)
    async with talking() as (_rig, caller, callee, third, _one, _other):
        assert caller.call is not None
        await caller.call.transact("REFER", headers=refer_to(third))
        third.peer.answer(await third.is_called(), "180 Ringing", tag="third")
        third.peer.answer(await third.peer.receive("CANCEL"), "200 OK", tag="third")
        third.peer.answer(third.invite, "487 Request Terminated", tag="third")
        assert await notifications(caller) == 487
        await callee.hears("caller")


@pytest.mark.parametrize(
    ("trunk", "target"),
    [
        (FROM_PBX, "<sip:elsewhere@127.0.0.1:9>"),
        (FROM_PBX, '"x <sip:third@127.0.0.1:9>" <sip:elsewhere@127.0.0.1:9>'),
        (FROM_PBX, "<sip:third@127.0.0.1:9;maddr=127.0.0.2>"),
        (FROM_OTHER, "<sip:third@127.0.0.1:9>"),
        ("", "<sip:third@127.0.0.1:9>"),
    ],
)
async def test_a_transfer_that_no_policy_allows_is_declined(trunk: str, target: str) -> None:
    async with talking(trunk) as (rig, caller, callee, _third, one, _other):
        assert caller.call is not None
        answer = await caller.call.transact("REFER", headers=f"Refer-To: {target}\r\n")
        assert answer.startswith("SIP/2.0 603")
        assert (await one.event(ReferReceived)).code == 603
        await callee.hears("caller")
        assert rig.cell.calls == 2


# --- by a trunk that challenges ---------------------------------------------------------------------------------------

CHALLENGE = 'Digest realm="pbx.test", nonce="n1", algorithm=MD5, qop="auth"'


@asynccontextmanager
async def challenged() -> AsyncIterator[tuple[Rig, Party, Party, SipPeer]]:
    """A cell that is registered at a PBX, which is one peer; caller and target speak from there, too."""
    async with AsyncExitStack() as stack:
        pbx = await stack.enter_async_context(SipPeer.open(0))
        place = f"127.0.0.1:{pbx.port}"
        trunk = TrunkSettings.model_validate({
            "name": "pbx", "sources": ["127.0.0.1/32"], "host": place, "registrar": place, "domain": "pbx.test",
            "register": {"user": "100"}, "credentials": {"user": "100", "password_env": "PBX"},
            "refer_to": ["third"], "replaces": True,
        })  # fmt: skip
        rig = await stack.enter_async_context(running(trunks=(trunk,), passwords={"PBX": "secret"}))
        pbx.server_port = rig.port
        register = await pbx.receive("REGISTER")
        pbx.answer(register, "200 OK", headers=f"Contact: {header(register, 'Contact')};expires=300\r\n")
        caller, third = await stack.enter_async_context(parties(rig, "caller", "third"))
        yield rig, caller, third, pbx


async def referred(pbx: SipPeer, third: Party) -> None:
    """The INVITE that a REFER led to comes by the PBX, is challenged there, and reaches the third one."""
    invite = await pbx.receive("INVITE")
    assert "sip:third@elsewhere.invalid" in invite.partition("\r\n")[0]
    assert "sip:100@pbx.test" in header(invite, "From")
    pbx.answer(invite, "407 Proxy Authentication Required", headers=f"Proxy-Authenticate: {CHALLENGE}\r\n")
    await pbx.receive("ACK")
    third.invite = await pbx.receive("INVITE")
    assert 'username="100"' in header(third.invite, "Proxy-Authorization")
    pbx.answer(third.invite, "200 OK", body=third.sdp, tag="third")
    await pbx.receive("ACK")
    await third.talk(media_port(third.invite))


async def no_credentials(caller: Party, one: Listener) -> None:
    """A challenge within the dialog that the peer began is not answered (our BYE gets one)."""
    assert caller.call is not None
    ending = asyncio.create_task(one.leg.hangup())
    bye = await caller.peer.receive("BYE")
    caller.peer.answer(bye, "407 Proxy Authentication Required", headers=f"Proxy-Authenticate: {CHALLENGE}\r\n")
    await ending
    await one.event(LegDisconnected)
    assert not [text for text in caller.peer.seen() if "Authorization" in text]


async def test_a_peer_of_a_trunk_that_challenges_transfers_us() -> None:
    async with challenged() as (rig, caller, third, pbx):
        one = await caller.calls(rig)
        assert caller.call is not None
        answer = await caller.call.transact("REFER", headers="Refer-To: <sip:third@elsewhere.invalid>\r\n")
        assert answer.startswith("SIP/2.0 202")
        await referred(pbx, third)
        assert await notifications(caller) == 200
        assert (await one.event(LegReplaced)).by == "refer"
        assert not [text for text in pbx.seen() if text.startswith("REGISTER")]


async def test_what_was_lent_for_a_transfer_serves_no_other_dialog() -> None:
    async with challenged() as (rig, caller, third, pbx):
        await caller.calls(rig)
        assert caller.call is not None
        await caller.call.transact("REFER", headers="Refer-To: <sip:third@elsewhere.invalid>\r\n")
        await referred(pbx, third)
        async with parties(rig, "fourth") as (fourth,):
            await no_credentials(fourth, await fourth.calls(rig))


async def test_a_party_that_we_called_by_the_trunk_transfers_us() -> None:
    async with challenged() as (rig, _caller, third, pbx):
        leg = await rig.cell.dial(f"sip:callee@127.0.0.1:{pbx.port}", trunk="pbx")
        listener = Listener(leg)
        async with parties(rig, "callee") as (callee,):
            callee.invite = await pbx.receive("INVITE")
            pbx.answer(callee.invite, "200 OK", body=callee.sdp, tag="callee")
            await leg.answer()
            pbx.send(callee.request("REFER", headers="Refer-To: <sip:third@elsewhere.invalid>\r\n"))
            await pbx.receive(202)
            await referred(pbx, third)
            assert (await listener.event(LegReplaced)).by == "refer"
            assert not [text for text in pbx.seen() if text.startswith("REGISTER")]


# --- INVITE with Replaces in ------------------------------------------------------------------------------------------


def replaces(caller: Party) -> str:
    """Our to-tag is the caller's from-tag in the dialog (RFC 3891, section 3)."""
    assert caller.call is not None
    ours = caller.call.to.rpartition("tag=")[2]
    return f"Require: replaces\r\nReplaces: {caller.call.call_id};to-tag={ours};from-tag={caller.call.tag}\r\n"


async def test_an_invite_replaces_a_leg_and_the_call_goes_on() -> None:
    async with talking() as (rig, caller, callee, third, one, other):
        third.call = third.peer.call("echo")
        third.call.invite(third.sdp, FROM_PBX + replaces(caller))
        assert status_of(await third.call.final()) == 200
        third.call.ack()
        await third.talk(third.call.media_port)
        caller.peer.answer(await caller.peer.receive("BYE"), "200 OK")
        await callee.hears("third")
        await third.hears("callee")
        replaced = await one.event(LegReplaced)
        assert (replaced.by, replaced.sip_call_id) == ("replaces", third.call.call_id)
        await third.call.transact("BYE")
        assert (await one.event(LegDisconnected)).by_peer
        assert not other.leg.is_gone
        assert [told.summary for told in one.of(SipMessage)].count("BYE") >= 1
        assert rig.cell.calls == 1


@pytest.mark.parametrize("trunk", [FROM_OTHER, ""])
async def test_a_stranger_replaces_nothing(trunk: str) -> None:
    async with talking() as (_rig, caller, callee, third, one, _other):
        third.call = third.peer.call("echo")
        third.call.invite(third.sdp, trunk + replaces(caller))
        assert status_of(await third.call.final()) == 603
        await callee.hears("caller")
        assert not one.of(LegReplaced)


async def test_without_an_edge_the_address_of_an_invite_tells_its_trunk() -> None:
    async with challenged() as (rig, caller, third, _pbx):
        one = await caller.calls(rig)
        third.call = third.peer.call("echo")
        third.call.invite(third.sdp, replaces(caller))
        assert status_of(await third.call.final()) == 200
        third.call.ack()
        assert (await one.event(LegReplaced)).by == "replaces"


async def test_replaces_of_a_dialog_that_is_not_there() -> None:
    async with running(trunks=(PBX,), behind_edge=True) as rig, parties(rig, "third") as (third,):
        third.call = third.peer.call("echo")
        third.call.invite(third.sdp, f"{FROM_PBX}Replaces: no-such;to-tag=1;from-tag=2\r\n")
        assert status_of(await third.call.final()) == 481
