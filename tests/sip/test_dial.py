"""Calls that the cell places."""

from __future__ import annotations

import asyncio
import re

import pytest

from sipserver.errors import CapacityError, CarrierError
from sipserver.events import DigitReceived, LegAnswered, LegDisconnected, MediaStarted, SipMessage
from tests.fakes.sip_peer import SipPeer, body_of, header, sdp
from tests.fakes.sip_rig import Listener, running

LOUD = b"\x00\x80" * 80


def media_port(invite: str) -> int:
    found = re.search(r"^m=audio (\d+)", body_of(invite), re.M)
    assert found
    return int(found.group(1))


async def test_dials_hears_early_media_and_is_answered() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        leg = await rig.cell.dial(
            f"sip:200@127.0.0.1:{peer.port}", headers={"X-Reason": "test"}, from_user="100", from_display='The "Server"'
        )
        listener = Listener(leg)
        invite = await peer.receive("INVITE")
        assert header(invite, "X-Reason") == "test"
        assert header(invite, "From").startswith('"The Server" <sip:100@127.0.0.1>')
        assert leg.offer.sip_call_id == header(invite, "Call-ID")
        assert (leg.offer.direction, leg.offer.to_user, leg.offer.from_user) == ("outbound", "200", "100")
        assert not re.search("speex|iLBC|GSM", body_of(invite), re.I)
        peer.answer(invite, "180 Ringing")
        peer.answer(invite, "183 Session Progress", body=sdp(media.port))
        await listener.event(MediaStarted)
        async with media.stream(media_port(invite), LOUD):
            await listener.until(lambda: listener.loudest() > 10_000)
        assert not listener.of(LegAnswered)
        peer.answer(invite, "200 OK", body=sdp(media.port))
        await leg.answered()
        await peer.receive("ACK")
        await listener.event(LegAnswered)
        await leg.hangup()
        peer.answer(await peer.receive("BYE"), "200 OK")
        assert not (await leg.ended()).by_peer
        assert len(listener.of(LegAnswered)) == 1
        summaries = [one.summary for one in listener.of(SipMessage) if one.direction == "sent"]
        assert summaries == ["INVITE", "ACK", "BYE"]


async def test_digits_are_offered_as_most_expect_them_and_heard_so() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        leg = await rig.cell.dial(f"sip:x@127.0.0.1:{peer.port}")
        listener = Listener(leg)
        invite = await peer.receive("INVITE")
        assert "a=rtpmap:101 telephone-event/8000" in body_of(invite)
        assert "a=fmtp:101 0-16" in body_of(invite)
        assert re.search(r"^m=audio \d+ RTP/AVP [\d ]*101\r$", body_of(invite), re.M)
        peer.answer(invite, "200 OK", body=sdp(media.port))
        await leg.answered()
        assert (await listener.event(MediaStarted)).telephone_event == 101
        await media.press(media_port(invite), 7)
        assert (await listener.event(DigitReceived)).digit == "7"


@pytest.mark.parametrize("status", ["486 Busy Here", "404 Not Found", "603 Decline"])
async def test_a_refusal_is_told_with_its_status(status: str) -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        leg = await rig.cell.dial(f"sip:x@127.0.0.1:{peer.port}")
        listener = Listener(leg)
        peer.answer(await peer.receive("INVITE"), status)
        with pytest.raises(CarrierError) as refused:
            await leg.answered()
        assert refused.value.status == int(status[:3])
        gone = await listener.event(LegDisconnected)
        assert (gone.code, gone.by_peer) == (int(status[:3]), True)
        assert rig.cell.calls == 0


async def test_redirects_are_not_followed() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer, SipPeer.open(rig.port) as other:
        leg = await rig.cell.dial(f"sip:x@127.0.0.1:{peer.port}")
        invite = await peer.receive("INVITE")
        moved = f"Contact: <sip:y@127.0.0.1:{other.port}>\r\n"
        peer.answer(invite, "302 Moved Temporarily", headers=moved)
        with pytest.raises(CarrierError) as refused:
            await leg.answered()
        assert refused.value.status == 302
        assert not other.seen()


async def test_no_answer_is_cancelled() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        leg = await rig.cell.dial(f"sip:x@127.0.0.1:{peer.port}", timeout_s=0.1)
        listener = Listener(leg)
        invite = await peer.receive("INVITE")
        peer.answer(invite, "180 Ringing")
        peer.answer(await peer.receive("CANCEL"), "200 OK")
        peer.answer(invite, "487 Request Terminated")
        with pytest.raises(CarrierError, match="no answer"):
            await leg.answered()
        assert not (await listener.event(LegDisconnected)).by_peer


async def test_hangup_before_the_answer_cancels() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        leg = await rig.cell.dial(f"sip:x@127.0.0.1:{peer.port}")
        invite = await peer.receive("INVITE")
        peer.answer(invite, "180 Ringing")
        await leg.hangup()
        peer.answer(await peer.receive("CANCEL"), "200 OK")
        peer.answer(invite, "487 Request Terminated")
        assert (await leg.ended()).code == 487


async def test_the_timeout_does_not_end_an_answered_call() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        leg = await rig.cell.dial(f"sip:x@127.0.0.1:{peer.port}", timeout_s=1)
        peer.answer(await peer.receive("INVITE"), "200 OK", body=sdp(media.port))
        await leg.answered()
        await asyncio.sleep(1.2)
        assert not leg.is_gone


@pytest.mark.parametrize("uri", ["nonsense", "sip:", "http://x", "sip:x@127.0.0.1:99999999"])
async def test_a_uri_that_is_none_raises(uri: str) -> None:
    async with running() as rig:
        with pytest.raises(CarrierError, match="could not be placed"):
            await rig.cell.dial(uri)
        assert rig.cell.calls == 0


async def test_calls_that_were_given_up_and_keep_their_slot_are_told_as_no_room() -> None:
    """PJSIP keeps what a deaf far end has not answered until its INVITE times out (RFC 3261, timer B)."""
    async with running() as rig, SipPeer.open(rig.port) as deaf:
        for _ in range(rig.cell.capacity):
            leg = await rig.cell.dial(f"sip:x@127.0.0.1:{deaf.port}")
            await leg.hangup()
        with pytest.raises(CapacityError):
            await rig.cell.dial(f"sip:x@127.0.0.1:{deaf.port}")


async def test_two_legs_of_one_cell_talk_to_each_other() -> None:
    async with running() as rig:
        leg = await rig.cell.dial(f"sip:me@127.0.0.1:{rig.port}")
        caller = Listener(leg)
        callee = await rig.answered(echo=True)
        await leg.answered()
        await callee.event(MediaStarted)
        await leg.send_digits("42")
        await callee.event(DigitReceived, 2)
        assert [one.digit for one in callee.of(DigitReceived)] == ["4", "2"]
        await leg.hangup()
        await caller.event(LegDisconnected)
        assert (await callee.event(LegDisconnected)).by_peer


async def test_dialling_on_a_cell_that_does_not_run_raises() -> None:
    async with running() as rig:
        await rig.cell.stop()
        with pytest.raises(CarrierError, match="does not run"):
            await rig.cell.dial("sip:x@127.0.0.1:9")
