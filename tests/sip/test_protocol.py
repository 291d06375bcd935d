"""What a stranger or a careless peer may send: a proper answer or silence, and the next call works."""

from __future__ import annotations

import asyncio
import re

import pytest

from sipserver.errors import CarrierError
from sipserver.events import LegDisconnected, MediaStarted
from tests.fakes.sip_peer import SipPeer, body_of, header, sdp, status_of
from tests.fakes.sip_rig import Listener, Rig, running


async def works(rig: Rig, peer: SipPeer) -> None:
    """A plain call goes through."""
    call = peer.call()
    listener = await call.connect_with(rig, sdp(4000))
    assert status_of(await call.transact("BYE")) == 200
    await listener.event(LegDisconnected)


@pytest.mark.parametrize(
    "method", ["REGISTER", "INFO", "PUBLISH", "SUBSCRIBE", "MESSAGE", "NOTIFY", "REFER", "UPDATE", "FROB"]
)
async def test_unserved_methods_outside_a_dialog_get_405_with_allow(method: str) -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        answer = await peer.once(method, "Event: presence\r\nExpires: 60\r\nRefer-To: <sip:x@127.0.0.1>\r\n")
        assert status_of(answer) == 405
        assert "INVITE" in header(answer, "Allow")
        await works(rig, peer)


async def test_options_is_answered() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        answer = await peer.once("OPTIONS")
        assert status_of(answer) == 200
        assert "INVITE" in header(answer, "Allow")


async def test_a_bye_for_no_dialog_gets_481() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        assert status_of(await peer.once("BYE")) == 481
        stale = peer.call()
        stale.to += ";tag=gone"
        peer.send(stale.request("BYE"))
        assert status_of(await peer.receive("4xx")) == 481
        peer.send(peer.call().request("CANCEL"))
        assert status_of(await peer.receive("4xx")) == 481
        await works(rig, peer)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("REFER", "Refer-To: <sip:x@127.0.0.1:9>\r\n", 603),
        ("SUBSCRIBE", "Event: dialog\r\nExpires: 60\r\n", 405),
        ("PUBLISH", "Event: presence\r\n", 405),
        ("OPTIONS", "", 200),
    ],
)
async def test_requests_inside_a_dialog(method: str, headers: str, status: int) -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        await call.connect_with(rig, sdp(4000))
        assert status_of(await call.transact(method, headers=headers)) == status
        assert rig.cell.calls == 1
        assert status_of(await call.transact("BYE")) == 200


async def test_a_call_cannot_be_taken_over_by_replaces() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        victim = peer.call()
        listener = await victim.connect_with(rig, sdp(4000))
        local_tag = victim.to.rpartition("tag=")[2]
        thief = peer.call()
        thief.invite(
            sdp(4002), f"Replaces: {victim.call_id};to-tag={local_tag};from-tag={victim.tag}\r\nRequire: replaces\r\n"
        )
        assert status_of(await thief.final()) >= 400
        assert not listener.of(LegDisconnected)
        assert status_of(await victim.transact("BYE")) == 200


@pytest.mark.parametrize("formats", ["18", "3", "97"])
async def test_no_common_codec_gets_488(formats: str) -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000, formats, extra="a=rtpmap:97 speex/8000\r\n"))
        assert status_of(await call.final()) == 488
        assert rig.legs.empty()
        await works(rig, peer)


@pytest.mark.parametrize(
    ("codecs", "formats", "chosen"), [(("PCMA", "G722"), "0 8 9", "PCMA"), (("G722",), "0 8 9", "G722")]
)
async def test_only_the_codecs_of_the_settings_are_spoken(codecs: tuple[str, ...], formats: str, chosen: str) -> None:
    async with running(codecs=codecs) as rig, SipPeer.open(rig.port) as peer:
        listener = await peer.call().connect_with(rig, sdp(4000, formats))
        started = await listener.event(MediaStarted)
        assert (started.codec.upper(), started.clock_hz) == (chosen, 8000)


async def test_a_late_offer_is_answered_by_an_offer() -> None:
    async with running(codecs=("PCMU", "PCMA")) as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        call.invite("")
        listener = Listener(await rig.leg())
        assert not listener.leg.offer.has_sdp
        answering = asyncio.create_task(listener.leg.answer())
        offer = await call.final()
        assert "m=audio" in body_of(offer)
        assert not re.search("speex|iLBC|GSM", body_of(offer), re.I)
        call.ack(sdp(media.port))
        await answering
        async with media.stream(call.media_port, b"\x00\x80" * 80):
            await listener.until(lambda: listener.loudest() > 10_000)
        assert status_of(await call.transact("BYE")) == 200


async def test_early_media_after_a_late_offer_does_not_wait_for_ever() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite("")
        leg = await rig.leg()
        await leg.early()
        assert status_of(await peer.receive(183)) == 183
        await leg.reject(486)
        assert status_of(await call.final()) == 486


async def test_an_ack_without_sdp_after_a_late_offer_ends_the_call() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite("")
        listener = Listener(await rig.leg())
        answering = asyncio.create_task(listener.leg.answer())
        await call.final()
        call.ack()
        bye = await peer.receive("BYE")
        peer.answer(bye, "200 OK")
        await listener.event(LegDisconnected)
        await asyncio.gather(answering, return_exceptions=True)
        await works(rig, peer)


async def test_a_retransmitted_invite_is_not_a_second_call() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000))
        peer.send(call.invite_text)
        leg = await rig.leg()
        peer.send(call.invite_text)
        await leg.ring()
        await peer.receive(180)
        peer.send(call.invite_text)
        answering = asyncio.create_task(leg.answer())
        assert status_of(await call.final()) == 200
        call.ack()
        await answering
        assert rig.legs.empty()
        assert rig.cell.calls == 1
        assert status_of(await call.transact("BYE")) == 200


async def test_a_second_media_line_is_refused_with_port_0() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        call.invite(sdp(media.port, extra="m=video 4500 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=sendrecv\r\n"))
        listener = await rig.answered()
        answer = await call.final()
        call.ack()
        assert re.search(r"^m=audio [1-9]", body_of(answer), re.M)
        assert re.search(r"^m=video 0 ", body_of(answer), re.M)
        async with media.stream(call.media_port, b"\x00\x80" * 80):
            await listener.until(lambda: listener.loudest() > 10_000)


async def test_two_audio_lines_give_one_stream() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000, extra="m=audio 4500 RTP/AVP 0\r\na=sendrecv\r\n"))
        await rig.answered()
        answer = await call.final()
        call.ack()
        assert len(re.findall(r"^m=audio [1-9]", body_of(answer), re.M)) == 1
        assert len(re.findall(r"^m=audio 0 ", body_of(answer), re.M)) == 1


async def test_video_alone_gets_488() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000).replace("m=audio 4000 RTP/AVP 0 101", "m=video 4000 RTP/AVP 34"))
        assert status_of(await call.final()) == 488
        await works(rig, peer)


@pytest.mark.parametrize("ptime_ms", [10, 30, 60])
async def test_other_packet_lengths_are_heard_and_echoed(ptime_ms: int) -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        listener = await call.connect_with(rig, sdp(media.port, ptime=ptime_ms), echo=True)
        async with media.stream(call.media_port, b"\x00\x80" * (4 * ptime_ms), ptime_ms=ptime_ms):
            await listener.until(lambda: listener.loudest() > 10_000)
            while set((await media.receive()).payload) <= {0xFF, 0x7F}:
                pass


GARBAGE = [
    b"\x00" * 40,
    b"INVITE",
    b"INVITE sip:a@b SIP/2.0\r\n\r\n",
    b"SIP/2.0 200 OK\r\n\r\n",
    b"SIP/2.0 99999 OK\r\nVia: x\r\n\r\n",
    b"INVITE sip:a@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKa\r\n"
    b"CSeq: 9999999999999 INVITE\r\n\r\n",
    b"INVITE sip:" + b"a" * 5000 + b"@127.0.0.1 SIP/2.0\r\n\r\n",
    b"BYE sip:a@127.0.0.1 SIP/3.0\r\nVia: SIP/3.0/UDP 127.0.0.1\r\n\r\n",
    b"\r\n\r\n\r\n\r\n",
    bytes(range(256)),
]


@pytest.mark.parametrize("packet", GARBAGE)
async def test_malformed_messages_do_no_harm(packet: bytes) -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        peer.send(packet)
        await works(rig, peer)
        assert rig.legs.empty()


@pytest.mark.parametrize(
    "body",
    [
        "v=0\r\n",
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nm=audio",
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n",  # no c= line
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 99999999 RTP/AVP 0\r\n",
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP "
        + "0 " * 300
        + "\r\n",
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        "m=audio 4000 RTP/AVP 0\r\na=ptime:0\r\n",
    ],
)
async def test_broken_sdp_is_refused_or_served(body: str) -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(body)
        final = asyncio.create_task(call.final())
        arrival = asyncio.create_task(rig.leg())
        done, _ = await asyncio.wait({final, arrival}, return_when=asyncio.FIRST_COMPLETED)
        if arrival in done and not final.done():
            await arrival.result().reject(488)
        assert status_of(await final) in (400, 415, 488, 500)
        arrival.cancel()
        await asyncio.gather(arrival, return_exceptions=True)
        await works(rig, peer)


async def test_session_timer_refreshed_by_us() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000), "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\nMin-SE: 90\r\n")
        await rig.answered()
        answer = await call.final()
        call.ack()
        assert header(answer, "Session-Expires").replace(" ", "") == "90;refresher=uas"
        assert status_of(await call.transact("BYE")) == 200


async def test_session_timer_refreshed_by_the_peer() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000), "Supported: timer\r\nSession-Expires: 120;refresher=uac\r\n")
        listener = await rig.answered()
        answer = await call.final()
        call.ack()
        assert header(answer, "Session-Expires").replace(" ", "") == "120;refresher=uac"
        timer = "Supported: timer\r\nSession-Expires: 120;refresher=uac\r\n"
        assert status_of(await call.transact("UPDATE", headers=timer)) == 200
        assert status_of(await call.transact("INVITE", body=sdp(4000), headers=timer)) == 200
        assert not listener.of(LegDisconnected)
        assert status_of(await call.transact("BYE")) == 200


async def test_a_session_timer_that_is_too_short_gets_422() -> None:
    async with running(min_session_expires_s=120) as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000), "Supported: timer\r\nSession-Expires: 90\r\n")
        answer = await call.final()
        assert (status_of(answer), header(answer, "Min-SE")) == (422, "120")


async def test_calls_over_tcp() -> None:
    async with running() as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        local = writer.get_extra_info("sockname")[1]
        body = sdp(4000)
        writer.write(
            (
                f"INVITE sip:demo@127.0.0.1:{rig.port} SIP/2.0\r\n"
                f"Via: SIP/2.0/TCP 127.0.0.1:{local};branch=z9hG4bKtcp\r\n"
                f"Max-Forwards: 70\r\nFrom: <sip:peer@127.0.0.1>;tag=a\r\nTo: <sip:demo@127.0.0.1>\r\n"
                f"Call-ID: tcp@peer\r\n"
                f"CSeq: 1 INVITE\r\nContact: <sip:peer@127.0.0.1:{local};transport=tcp>\r\n"
                f"Content-Type: application/sdp\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode()
        )
        leg = await rig.leg()
        assert leg.offer.transport == "tcp"
        await leg.reject(486)
        async with asyncio.timeout(5):
            while not (line := await reader.readline()).startswith(b"SIP/2.0 486"):
                assert line
        writer.close()
        await writer.wait_closed()
        with pytest.raises(CarrierError):
            await leg.ring()


async def test_tcp_can_be_off() -> None:
    async with running(tcp=False) as rig, SipPeer.open(rig.port) as peer:
        with pytest.raises(OSError, match=r"refused|Connect"):
            await asyncio.open_connection("127.0.0.1", rig.port)
        await works(rig, peer)
