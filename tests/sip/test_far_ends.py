"""Far ends that we call and that do what RFC 3261 allows, or what it does not."""

from __future__ import annotations

import asyncio

import pjsua2 as pj
import pytest

from sipserver.errors import CarrierError
from sipserver.events import LegAnswered, LegProgress, MediaStarted
from sipserver.sip.leg import SipLeg
from tests.fakes.party import Party, parties
from tests.fakes.sip_peer import header, sdp, status_of
from tests.fakes.sip_rig import Listener, Rig, running


async def dial(rig: Rig, party: Party, timeout_s: float = 60) -> tuple[SipLeg, Listener]:
    leg = await rig.cell.dial(f"sip:x@127.0.0.1:{party.peer.port}", timeout_s=timeout_s)
    listener = Listener(leg)
    await party.is_called()
    return leg, listener


async def test_progress_is_told_with_whether_it_brought_media() -> None:
    async with running() as rig, parties(rig, "callee") as (callee,):
        _leg, listener = await dial(rig, callee)
        callee.peer.answer(callee.invite, "180 Ringing")
        callee.peer.answer(callee.invite, "183 Session Progress", body=callee.sdp)
        await listener.event(LegProgress, 2)
        told = [(event.code, event.media) for event in listener.of(LegProgress)]
        assert told == [(180, False), (183, True)]


async def test_a_200_that_comes_after_the_cancel_is_acknowledged_and_ended() -> None:
    async with running() as rig, parties(rig, "callee") as (callee,):
        leg, listener = await dial(rig, callee, timeout_s=0.1)
        callee.peer.answer(callee.invite, "180 Ringing")
        callee.peer.answer(await callee.peer.receive("CANCEL"), "200 OK")
        callee.peer.answer(callee.invite, "200 OK", body=callee.sdp)
        await callee.peer.receive("ACK")
        callee.peer.answer(await callee.peer.receive("BYE"), "200 OK")
        with pytest.raises(CarrierError):
            await leg.answer()
        assert not listener.of(LegAnswered)
        assert (await leg.ended()).code == 408


async def test_of_two_that_answer_one_is_kept_and_the_other_one_let_go() -> None:
    """A proxy forked the call (RFC 3261, section 13.2.2.4)."""
    async with running() as rig, parties(rig, "callee", "third") as (callee, third):
        leg, _listener = await dial(rig, callee)
        callee.peer.answer(callee.invite, "180 Ringing", tag="one")
        callee.peer.answer(callee.invite, "200 OK", body=callee.sdp, tag="one")
        await leg.answer()
        ack = await callee.peer.receive("ACK")
        assert header(ack, "To").endswith("tag=one")
        callee.peer.answer(callee.invite, "200 OK", body=sdp(third.media.port), tag="two")
        second = await callee.peer.receive("ACK")
        assert header(second, "To").endswith("tag=two")
        bye = await callee.peer.receive("BYE")
        assert header(bye, "To").endswith("tag=two")
        assert not leg.is_gone


async def test_reliable_progress_is_acknowledged() -> None:
    """RFC 3262: the 183 is sent again until its PRACK comes."""
    async with running() as rig, parties(rig, "callee") as (callee,):
        leg, listener = await dial(rig, callee)
        assert "100rel" in header(callee.invite, "Supported")
        reliable = "Require: 100rel\r\nRSeq: 7\r\n"
        callee.peer.answer(callee.invite, "183 Session Progress", body=callee.sdp, headers=reliable)
        prack = await callee.peer.receive("PRACK")
        assert header(prack, "RAck") == f"7 {header(callee.invite, 'CSeq')}"
        callee.peer.answer(prack, "200 OK")
        await listener.event(MediaStarted)
        callee.peer.answer(callee.invite, "200 OK")
        await leg.answer()


async def test_an_offer_by_update_before_the_answer() -> None:
    """RFC 3311, after a reliable answer in the 183."""
    async with running() as rig, parties(rig, "callee") as (callee,):
        leg, listener = await dial(rig, callee)
        reliable = "Require: 100rel\r\nRSeq: 1\r\nAllow: INVITE, ACK, BYE, CANCEL, UPDATE, PRACK\r\n"
        callee.peer.answer(callee.invite, "183 Session Progress", body=callee.sdp, headers=reliable, tag="callee")
        callee.peer.answer(await callee.peer.receive("PRACK"), "200 OK")
        await listener.event(MediaStarted)
        callee.peer.send(callee.request("UPDATE", body=sdp(callee.media.port, "8 101", version=2)))
        while status_of(answer := await callee.peer.receive(200, 491)) != 200 or "UPDATE" not in header(answer, "CSeq"):
            pass
        assert "PCMA" in answer
        callee.peer.answer(callee.invite, "200 OK", tag="callee")
        await leg.answer()
        assert listener.of(MediaStarted)[-1].codec == "PCMA"


async def test_a_session_interval_that_is_too_small_is_raised_and_sent_again() -> None:
    """RFC 4028, section 7.3."""
    async with running(session_expires_s=120) as rig, parties(rig, "callee") as (callee,):
        leg, _listener = await dial(rig, callee)
        callee.peer.answer(callee.invite, "422 Session Interval Too Small", headers="Min-SE: 600\r\n")
        await callee.peer.receive("ACK")
        await callee.is_called()
        assert int(header(callee.invite, "Session-Expires").partition(";")[0]) >= 600
        assert header(callee.invite, "Min-SE") == "600"
        await callee.accepts()
        await leg.answer()


async def test_an_answer_without_a_common_codec_ends_the_call() -> None:
    async with running() as rig, parties(rig, "callee") as (callee,):
        leg, _listener = await dial(rig, callee)
        callee.peer.answer(callee.invite, "200 OK", body=sdp(callee.media.port, "18"))
        await callee.peer.receive("ACK")
        callee.peer.answer(await callee.peer.receive("BYE"), "200 OK")
        assert (await leg.ended()).code >= 400


async def test_ringing_for_ever_is_cancelled_when_the_time_is_over() -> None:
    async with running() as rig, parties(rig, "callee") as (callee,):
        leg, _listener = await dial(rig, callee, timeout_s=0.5)
        waiting = asyncio.create_task(leg.answer())
        while not waiting.done():
            callee.peer.answer(callee.invite, "183 Session Progress", body=callee.sdp)
            await asyncio.wait({waiting}, timeout=0.1)
            if any(text.startswith("CANCEL") for text in callee.peer.seen()):
                break
        callee.peer.answer(await callee.peer.receive("CANCEL"), "200 OK")
        callee.peer.answer(callee.invite, "487 Request Terminated")
        with pytest.raises(CarrierError) as refused:
            await waiting
        assert refused.value.status == 408


async def test_an_offer_that_comes_while_another_is_open_is_refused_and_the_call_lives() -> None:
    """RFC 3261, section 14.2: 500 or 491 to the second, and a later one succeeds."""
    async with running() as rig, parties(rig, "callee") as (callee,):
        leg, _listener = await dial(rig, callee)
        await callee.accepts()
        await leg.answer()
        for sequence in (1, 2):
            body = sdp(callee.media.port, version=1 + sequence)
            callee.peer.send(callee.request("INVITE", sequence=sequence, body=body))
        answers = {header(answer, "CSeq"): status_of(answer) for answer in [await _final(callee) for _ in range(2)]}
        assert answers["1 INVITE"] == 200
        assert answers["2 INVITE"] in (491, 500)
        callee.peer.send(callee.request("ACK", sequence=1))
        callee.peer.send(callee.request("INVITE", sequence=3, body=sdp(callee.media.port, version=4)))
        while header(answer := await _final(callee), "CSeq") != "3 INVITE":
            pass
        assert status_of(answer) == 200
        assert not leg.is_gone


async def _final(party: Party) -> str:
    return await party.peer.receive("2xx", "4xx", "5xx")


async def test_our_re_invite_that_meets_theirs_is_sent_again() -> None:
    """Glare (RFC 3261, section 14.1). PJSIP re-INVITEs to refresh a session, after 45 s or more; here at once."""
    async with running() as rig, parties(rig, "callee") as (callee,):
        leg, _listener = await dial(rig, callee)
        await callee.accepts()
        await leg.answer()
        await rig.cell.command(lambda board: board._calls[leg.serial].reinvite(pj.CallOpParam(True)))
        first = await callee.peer.receive("INVITE")
        callee.peer.answer(first, "491 Request Pending", tag="callee")
        again = await callee.peer.receive("INVITE", timeout_s=10)
        assert int(header(again, "CSeq").split()[0]) > int(header(first, "CSeq").split()[0])
        callee.peer.answer(again, "200 OK", body=sdp(callee.media.port, version=2), tag="callee")
        await callee.peer.receive("ACK")
        assert not leg.is_gone
