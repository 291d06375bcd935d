"""Calls through a real cell, with a hand-made peer on the other side of real sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
import time

import numpy as np
import pytest

from sipserver.errors import CapacityError, CarrierError, ConfigError
from sipserver.events import (
    CallEnded,
    DigitReceived,
    LegAnswered,
    LegDisconnected,
    LegHeld,
    LegResumed,
    MediaRecovered,
    MediaSourceChanged,
    MediaStalled,
    MediaStarted,
    RtpStats,
    SipMessage,
)
from sipserver.sip import capacity
from sipserver.sip.cell import Cell
from sipserver.sip.settings import SipSettings
from tests.fakes.sip_peer import SipPeer, body_of, header, sdp, status_of
from tests.fakes.sip_rig import Listener, running

LOUD = b"\x00\x80" * 80  # the largest mu-law values, alternating


async def test_answers_carries_sound_both_ways_and_tells_of_the_hangup() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call("demo", from_value='"Ann" <sip:+4930123@example.org>')
        listener = await call.connect_with(rig, sdp(media.port), echo=True)
        async with media.stream(call.media_port, LOUD):
            await listener.until(lambda: listener.loudest() > 10_000)
            while (await media.receive()).payload == b"\xff" * 160:
                pass
        offer = listener.leg.offer
        assert (offer.direction, offer.from_user, offer.to_user) == ("inbound", "+4930123", "demo")
        assert (offer.transport, offer.source) == ("udp", f"127.0.0.1:{peer.port}")
        assert offer.sip_call_id == call.call_id
        assert len(listener.heard[0].samples) == 320
        assert status_of(await call.transact("BYE")) == 200
        gone = await listener.event(LegDisconnected)
        assert gone.by_peer
        assert gone.code == 200
        assert listener.events[-2:] == [*listener.of(RtpStats)[-1:], gone]
        assert listener.of(RtpStats)[-1].received > 0
        started = listener.of(MediaStarted)
        assert [(one.codec, one.payload_type, one.clock_hz, one.telephone_event) for one in started] == [
            ("PCMU", 0, 8000, 101)
        ]
        assert started[0].remote == f"127.0.0.1:{media.port}"
        assert not listener.of(CallEnded)


async def test_what_is_played_is_reported_beside_what_was_heard_in_the_same_tick() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        listener = await call.connect_with(rig, sdp(media.port), echo=True)
        async with media.stream(call.media_port, LOUD):
            await listener.until(lambda: any(frame.samples.any() for frame in listener.played))
        index = next(place for place, frame in enumerate(listener.played) if frame.samples.any())
        assert listener.played[index].at_ns == listener.heard[index].at_ns
        echoed = [frame.samples.tobytes() for frame in listener.heard[:index]]
        assert listener.played[index].samples.tobytes() in echoed


async def test_a_loop_brings_the_sound_back_and_tells_it_as_played() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        listener = await call.connect_with(rig, sdp(media.port))
        listener.leg.loop_back(True)
        async with media.stream(call.media_port, LOUD):
            while (await media.receive()).payload == b"\xff" * 160:
                pass
            await listener.until(lambda: listener.loudest() > 10_000)
            assert listener.played[-1].samples.tobytes() == listener.heard[-1].samples.tobytes()
            listener.leg.loop_back(False)
            await listener.until(lambda: not listener.played[-1].samples.any())
            quiet = 0
            while quiet < 5:
                quiet = quiet + 1 if (await media.receive()).payload == b"\xff" * 160 else 0


async def test_a_leg_that_nobody_hears_loops_and_plays_all_the_same() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        call.invite(sdp(media.port))
        listener = Listener(await rig.leg())
        listener.leg.hear(False)
        await listener.leg.answer()
        call.follow(await call.final())
        call.ack()
        listener.leg.loop_back(True)
        async with media.stream(call.media_port, LOUD):
            while (await media.receive()).payload == b"\xff" * 160:
                pass
        listener.leg.loop_back(False)
        clip = listener.leg.playout.begin("hymn")
        clip.write_now(np.full(1600, 9000, np.int16))
        clip.finish()
        assert await clip.heard()
        assert listener.heard == []
        listener.leg.hear(True)
        await listener.ticks(3)


async def test_wires_outlive_a_hold() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        listener = await call.connect_with(rig, sdp(media.port))
        listener.leg.loop_back(True)
        await call.transact("INVITE", body=sdp(media.port, direction="inactive", version=2))
        await listener.event(LegHeld)
        await listener.ticks(1)
        assert not listener.played[-1].samples.any()
        call.follow(await call.transact("INVITE", body=sdp(media.port, version=3)))
        await listener.event(LegResumed)
        media.pending()
        async with media.stream(call.media_port, LOUD):
            while (await media.receive()).payload == b"\xff" * 160:
                pass
            await listener.until(lambda: bool(listener.played[-1].samples.any()))


async def test_we_hang_up() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        listener = await call.connect_with(rig, sdp(4000))
        await listener.leg.hangup()
        bye = await peer.receive("BYE")
        peer.answer(bye, "200 OK")
        gone = await listener.event(LegDisconnected)
        assert (gone.code, gone.by_peer) == (200, False)
        assert [one.summary for one in listener.of(SipMessage)][-1] == "BYE"
        await listener.leg.hangup()
        await listener.leg.reject(486)
        with pytest.raises(CarrierError):
            await listener.leg.answer()
        assert len(listener.of(LegDisconnected)) == 1
        assert rig.cell.calls == 0


async def test_rings_then_early_media_then_answer() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        call.invite(sdp(media.port))
        listener = Listener(await rig.leg(), echo=True)
        await listener.leg.ring()
        assert status_of(await peer.receive(180)) == 180
        await listener.leg.early()
        early = await peer.receive(183)
        assert "m=audio" in body_of(early)
        call.follow(early)
        async with media.stream(call.media_port, LOUD):
            await listener.until(lambda: listener.loudest() > 10_000)
        assert not listener.of(LegAnswered)
        await listener.leg.answer()
        assert status_of(await call.final()) == 200
        call.ack()
        await call.transact("BYE")
        await listener.event(LegDisconnected)
        assert len(listener.of(LegAnswered)) == 1


async def test_a_leg_is_refused_with_code_reason_and_headers() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000))
        listener = Listener(await rig.leg())
        await listener.leg.reject(404, "No such flow", {"X-Why": "no route"})
        answer = await call.final()
        assert answer.startswith("SIP/2.0 404 No such flow")
        assert header(answer, "X-Why") == "no route"
        gone = await listener.event(LegDisconnected)
        assert (gone.code, gone.by_peer) == (404, False)
        assert listener.of(SipMessage)[-1].summary == "404 No such flow"
        with pytest.raises(ValueError, match="200"):
            await listener.leg.reject(200)


async def test_a_call_that_takes_the_id_of_one_that_just_ended_lives() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        thread = rig.cell._thread
        assert thread is not None
        held = thread.submit(lambda: time.sleep(0.2))  # so that PJSIP reads all the messages in one go
        await asyncio.sleep(0.05)
        for _ in range(rig.cell.capacity):  # PJSIP hands its ids out in turn
            given_up = peer.call()
            given_up.invite(sdp(4000))
            peer.send(given_up.request("CANCEL", same_transaction=True))
        last = peer.call()
        last.invite(sdp(4002))
        await held
        for _ in range(rig.cell.capacity):
            assert (await Listener(await rig.leg()).event(LegDisconnected)).code == 487
        listener = Listener(await rig.leg())
        await listener.leg.answer()
        assert status_of(await last.final()) == 200
        peer.send(last.request("ACK"))
        await asyncio.sleep(0.3)
        assert not listener.of(LegDisconnected)
        assert rig.cell.calls == 1


async def test_hangup_without_an_answer_refuses() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000))
        await (await rig.leg()).hangup()
        assert status_of(await call.final()) == 480


async def test_cancel_gets_487() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000))
        listener = Listener(await rig.leg())
        await listener.leg.ring()
        await peer.receive(180)
        peer.send(call.request("CANCEL", same_transaction=True))
        assert status_of(await peer.receive(200)) == 200
        assert status_of(await peer.receive(487)) == 487
        peer.send(call.request("ACK", same_transaction=True))
        gone = await listener.event(LegDisconnected)
        assert (gone.code, gone.by_peer) == (487, True)
        with pytest.raises(CarrierError, match="gone"):
            await listener.leg.ring()


async def test_custom_headers_are_readable() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(
            sdp(4000),
            "P-Asserted-Identity: <sip:+4940@carrier>\r\nDiversion: <sip:1@a>\r\nDIVERSION: <sip:2@b>\r\n"
            "User-to-User: 00ff;encoding=hex\r\nX-Campaign: spring\r\n",
        )
        leg = await rig.leg()
        assert leg.offer.headers["p-asserted-identity"] == "<sip:+4940@carrier>"
        assert leg.offer.headers["diversion"] == "<sip:1@a>, <sip:2@b>"
        assert leg.offer.headers["user-to-user"] == "00ff;encoding=hex"
        assert leg.offer.headers["x-campaign"] == "spring"
        assert "via" not in leg.offer.headers


_BY_EDGE = "X-Sipserver-Source: 203.0.113.9:5060\r\nX-Sipserver-Trunk: carrier\r\nX-Other: kept\r\n"


async def test_what_the_edge_tells_replaces_what_the_socket_says() -> None:
    async with running(behind_edge=True, allow=("127.0.0.0/8",)) as rig, SipPeer.open(rig.port) as peer:
        peer.call().invite(sdp(4000), _BY_EDGE)
        offer = (await rig.leg()).offer
        assert (offer.source, offer.trunk, dict(offer.headers)) == ("203.0.113.9:5060", "carrier", {"x-other": "kept"})
        peer.call().invite(sdp(4000))
        offer = (await rig.leg()).offer
        assert (offer.source, offer.trunk) == (f"127.0.0.1:{peer.port}", "")


async def test_without_an_edge_nobody_may_play_one() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        peer.call().invite(sdp(4000), _BY_EDGE)
        offer = (await rig.leg()).offer
        assert (offer.source, offer.trunk) == (f"127.0.0.1:{peer.port}", "")
        assert dict(offer.headers) == {"x-other": "kept"}


async def test_a_refusal_of_the_dialplan_is_not_the_cells() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000))
        await (await rig.leg()).reject(486)
        assert header(await call.final(), "X-Sipserver-Refusal") == ""


async def test_a_cell_that_stops_sends_the_ringing_call_elsewhere() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000))
        await (await rig.leg()).ring()
        await rig.cell.stop()
        answer = await call.final()
        assert (status_of(answer), header(answer, "X-Sipserver-Refusal")) == (503, "draining")


async def test_media_has_an_address_of_its_own() -> None:
    async with running(media_host="127.0.0.2") as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        call.invite(sdp(media.port))
        await rig.answered()
        answer = await call.final()
        assert "c=IN IP4 127.0.0.2\r\n" in answer
        assert "127.0.0.1" in header(answer, "Contact")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, pytest.raises(OSError, match="in use"):
            taken.bind(("127.0.0.2", int(body_of(answer).partition("m=audio ")[2].split()[0])))


async def test_messages_are_recorded_without_credentials_and_each_once() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        listener = await call.connect_with(
            rig,
            sdp(4000, extra="a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:topsecret\r\n"),
            'Authorization: Digest response="topsecret"\r\n',
        )
        await call.transact("BYE")
        await listener.event(LegDisconnected)
        messages = listener.of(SipMessage)
        assert [(one.direction, one.summary) for one in messages] == [
            ("received", "INVITE"),
            ("sent", "100 Trying (INVITE)"),
            ("sent", "200 OK (INVITE)"),
            ("received", "ACK"),
            ("received", "BYE"),
            ("sent", "200 OK (BYE)"),
        ]
        assert not any("topsecret" in one.text for one in messages)
        assert {one.peer for one in messages} == {f"127.0.0.1:{peer.port}"}


async def test_messages_stay_out_of_the_record_when_told() -> None:
    async with running(record_messages=False) as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        listener = await call.connect_with(rig, sdp(4000))
        await call.transact("BYE")
        await listener.event(LegDisconnected)
        assert not listener.of(SipMessage)


@pytest.mark.parametrize("direction", ["sendonly", "inactive"])
async def test_hold_and_resume_keep_the_sound(direction: str) -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        listener = await call.connect_with(rig, sdp(media.port))
        clip = listener.leg.playout.begin("hymn")
        held = await call.transact("INVITE", body=sdp(media.port, direction=direction, version=2))
        assert ("a=recvonly" if direction == "sendonly" else "a=inactive") in held
        await listener.event(LegHeld)
        clip.write_now(np.full(1600, 9000, np.int16))
        before = listener.leg.playout.pending_ms
        await asyncio.sleep(0.1)
        assert listener.leg.playout.pending_ms == before
        resumed = await call.transact("INVITE", body=sdp(media.port, version=3))
        assert "a=sendrecv" in resumed
        await listener.event(LegResumed)
        await listener.until(lambda: listener.leg.playout.pending_ms == 0)
        media.pending()
        call.follow(resumed)
        async with media.stream(call.media_port, LOUD):
            await listener.until(lambda: listener.loudest() > 10_000)
            await media.receive()
        assert len(listener.of(MediaStarted)) == 1


@pytest.mark.parametrize("marker", [True, False])
async def test_each_key_press_counts_once(marker: bool) -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        listener = await call.connect_with(rig, sdp(media.port))
        async with media.stream(call.media_port):
            await listener.ticks(3)
        for event in (1, 1, 11, 0):
            await media.press(call.media_port, event, marker=marker)
        await listener.event(DigitReceived, 4)
        await media.press(call.media_port, 10, marker=marker)
        await listener.event(DigitReceived, 5)
        assert [one.digit for one in listener.of(DigitReceived)] == ["1", "1", "#", "0", "*"]
        assert {one.method for one in listener.of(DigitReceived)} == {"rfc4733"}
        assert not listener.leg.wants_inband_digits


async def test_a_press_survives_lost_and_late_packets() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        listener = await call.connect_with(rig, sdp(media.port))
        media.event(call.media_port, 5, 800)  # the first packets were lost
        media.event(call.media_port, 5, 320)  # an older one, renumbered by a broken gateway
        media.event(call.media_port, 5, 1280, end=True)
        media.timestamp += 4000
        media.event(call.media_port, 5, 640, end=True)  # a second press of which only the end arrived
        media.timestamp += 4000
        media.event(call.media_port, 6, 160)
        await listener.until(lambda: [one.digit for one in listener.of(DigitReceived)][-1:] == ["6"])
        assert [one.digit for one in listener.of(DigitReceived)] == ["5", "5", "6"]


async def test_digits_by_info() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        listener = await call.connect_with(rig, sdp(4000, "0"))
        assert listener.leg.wants_inband_digits
        relay, plain = ("Content-Type: application/dtmf-relay\r\n", "Content-Type: application/dtmf\r\n")
        answer = await call.transact("INFO", body="Signal=5\r\nDuration=250\r\n", headers=relay)
        assert status_of(answer) == 200
        assert status_of(await call.transact("INFO", body="#", headers=plain)) == 200
        assert status_of(await call.transact("INFO", body="<x/>", headers="Content-Type: application/xml\r\n")) == 415
        assert status_of(await call.transact("INFO")) == 200
        await listener.event(DigitReceived, 2)
        found = [(one.digit, one.method, one.duration_ms) for one in listener.of(DigitReceived)]
        assert found == [("5", "info", 250), ("#", "info", None)]
        assert not listener.leg.wants_inband_digits


async def test_a_retransmitted_info_counts_once() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        listener = await call.connect_with(rig, sdp(4000))
        info = call.request("INFO", body="1", headers="Content-Type: application/dtmf\r\n")
        peer.send(info)
        peer.send(info)
        assert [status_of(await peer.receive(200)) for _ in range(2)] == [200, 200]
        await call.transact("INFO", body="2", headers="Content-Type: application/dtmf\r\n")
        await listener.event(DigitReceived, 2)
        assert [one.digit for one in listener.of(DigitReceived)] == ["1", "2"]


async def test_sends_digits_as_events_or_tones() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        listener = await call.connect_with(rig, sdp(media.port))
        await listener.leg.send_digits("1#", 100)
        events: list[int] = []
        while 11 not in events:
            packet = await media.receive()
            events += [packet.payload[0]] if packet.payload_type == 101 else []
        assert list(dict.fromkeys(events)) == [1, 11]
        await call.transact("BYE")
        await listener.leg.ended()

        other = peer.call()
        listener = await other.connect_with(rig, sdp(media.port, "0"))
        media.pending()
        await listener.leg.send_digits("5", 100)
        await listener.until(lambda: any(frame.samples.any() for frame in listener.played))
        assert not [packet for packet in media.pending() if packet.payload_type == 101]
        with pytest.raises(Exception, match="digits must be"):
            await listener.leg.send_digits("x")


async def test_over_the_limit_is_busy_with_retry_after() -> None:
    async with running(inbound_calls=1, retry_after_s=7) as rig, SipPeer.open(rig.port) as peer:
        first = peer.call()
        listener = await first.connect_with(rig, sdp(4000))
        second = peer.call()
        second.invite(sdp(4000))
        answer = await second.final()
        assert (status_of(answer), header(answer, "Retry-After")) == (486, "7")
        assert header(answer, "X-Sipserver-Refusal") == "full"
        assert rig.cell.refused == {"limit": 1}
        await first.transact("BYE")
        await listener.event(LegDisconnected)
        await peer.call().connect_with(rig, sdp(4000))


async def test_every_slot_taken_is_busy_with_retry_after_too() -> None:
    async with running(inbound_calls=32) as rig, SipPeer.open(rig.port) as peer:
        assert rig.cell.inbound_limit == rig.cell.capacity
        for _ in range(rig.cell.capacity):
            await peer.call().connect_with(rig, sdp(4000))
        extra = peer.call()
        extra.invite(sdp(4000))
        answer = await extra.final()
        assert status_of(answer) == 486
        assert header(answer, "Retry-After") == "5"
        assert header(answer, "X-Sipserver-Refusal") == "full"
        assert rig.cell.refused == {"limit": 1}
        with pytest.raises(CapacityError):
            await rig.cell.dial(f"sip:x@127.0.0.1:{peer.port}")


async def test_the_default_limit_leaves_room_for_a_second_leg() -> None:
    async with running() as rig:
        assert rig.cell.capacity >= 2
        assert rig.cell.inbound_limit == rig.cell.capacity - 1


async def test_draining_refuses_new_calls_and_keeps_old_ones() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        first = peer.call()
        first.invite(sdp(4000))
        await rig.answered()
        await first.final()
        first.ack()
        assert status_of(await peer.once("OPTIONS")) == 200
        rig.cell.drain()
        second = peer.call()
        second.invite(sdp(4000))
        answer = await second.final()
        assert (status_of(answer), header(answer, "Retry-After")) == (503, "5")
        assert header(answer, "X-Sipserver-Refusal") == "draining"
        options = await peer.once("OPTIONS")
        assert (status_of(options), header(options, "Retry-After")) == (503, "5")
        assert header(options, "X-Sipserver-Refusal") == "draining"
        leg = await rig.cell.dial(f"sip:x@127.0.0.1:{peer.port}")  # for a call that runs
        peer.answer(await peer.receive("INVITE"), "486 Busy Here")
        assert (await leg.ended()).code == 486
        assert rig.cell.refused == {"draining": 1}
        assert status_of(await first.transact("BYE")) == 200


async def test_strangers_are_forbidden() -> None:
    async with running(allow=("192.0.2.0/24",)) as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        call.invite(sdp(4000))
        assert status_of(await call.final()) == 403
        assert rig.cell.refused == {"source": 1}
        assert rig.legs.empty()


async def test_a_second_cell_may_follow_on_the_same_port(free_sip_port: object) -> None:
    port = free_sip_port()  # type: ignore[operator]
    for _ in range(3):
        async with running(port=port) as rig, SipPeer.open(port) as peer:
            assert rig.port == port
            assert status_of(await peer.once("OPTIONS")) == 200


async def test_a_taken_port_is_named() -> None:
    async with SipPeer.open(1) as peer:
        cell = Cell(SipSettings(port=peer.port), lambda leg: None)
        with pytest.raises(ConfigError, match=str(peer.port)):
            await cell.start()
        await cell.stop()


async def test_stop_ends_running_calls() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        listener = await call.connect_with(rig, sdp(4000))
        stopping = asyncio.create_task(rig.cell.stop())
        peer.answer(await peer.receive("BYE"), "200 OK")
        await stopping
        assert not (await listener.event(LegDisconnected)).by_peer


async def test_stop_does_not_wait_for_a_dead_peer() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        call = peer.call()
        listener = await call.connect_with(rig, sdp(4000))
        await rig.cell.stop()
        assert len(listener.of(LegDisconnected)) == 1


async def test_the_watchdog_sees_both_clocks() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        assert rig.cell.last_media_tick_s is None
        call = peer.call()
        listener = await call.connect_with(rig, sdp(4000))
        before = time.monotonic()
        await listener.ticks(5)
        assert rig.cell.last_media_tick_s is not None
        assert rig.cell.last_media_tick_s > before
        assert rig.cell.last_sip_tick_s is not None
        assert len(rig.cell.take_lateness_ms()) >= 4
        await call.transact("BYE")
        await listener.event(LegDisconnected)


async def test_a_new_ssrc_is_reported() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        listener = await call.connect_with(rig, sdp(media.port))
        async with media.stream(call.media_port):
            await listener.until(lambda: listener.leg._watch._ssrc is not None)  # it has looked once
            media.ssrc = 0xFEEDBEEF
            changed = await listener.event(MediaSourceChanged)
        assert changed.old.endswith("ssrc 1234abcd")
        assert changed.new.endswith("ssrc feedbeef")


async def test_rtp_that_stops_and_comes_back_is_told() -> None:
    async with running(rtp_stalled_s=0.5) as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        listener = await call.connect_with(rig, sdp(media.port))
        async with media.stream(call.media_port):
            await asyncio.sleep(1.2)
        assert (await listener.event(MediaStalled)).silent_ms >= 500
        async with media.stream(call.media_port):
            assert (await listener.event(MediaRecovered)).silent_ms >= 500
        assert not listener.of(LegDisconnected)


async def test_lost_reordered_and_doubled_packets_are_counted_and_the_call_goes_on() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        call = peer.call()
        listener = await call.connect_with(rig, sdp(media.port))
        for index in range(60):
            if index % 10 == 9:  # lost
                media.sequence += 1
                media.timestamp += 160
            media.send(call.media_port, LOUD)
            if index == 30:  # doubled
                media.sequence -= 1
                media.timestamp -= 160
                media.send(call.media_port, LOUD)
            await asyncio.sleep(0.01)
        await listener.until(lambda: listener.loudest() > 10_000)
        media.timestamp += 8_000_000  # a jump in time
        async with media.stream(call.media_port, LOUD):
            await asyncio.sleep(0.2)
            await listener.until(lambda: listener.loudest(3) > 10_000)
        await call.transact("BYE")
        await listener.event(LegDisconnected)
        last = listener.of(RtpStats)[-1]
        assert (last.lost in (5, 6), last.duplicated) == (True, 1)  # PJSIP sets a double off against a loss
        assert last.received >= 60
        assert last.mos is not None


async def test_many_short_calls_leave_nothing_behind() -> None:
    async with running() as rig, SipPeer.open(rig.port) as peer:
        media = await peer.rtp()
        for turn in range(25):
            call = peer.call()
            listener = await call.connect_with(rig, sdp(media.port), echo=True)
            await listener.ticks(1)
            if turn % 5 == 0:
                gc.collect()
            await call.transact("BYE")
            await listener.event(LegDisconnected)
        board = rig.cell._running()[1]
        assert rig.cell.calls == 0
        for _ in range(2):  # what is over is destroyed between two turns of the thread
            await rig.cell.command(lambda _: None)
        assert (board._calls, board._over) == ({}, [])


async def test_a_burst_of_refused_calls_does_no_harm() -> None:
    async with running(inbound_calls=1) as rig, SipPeer.open(rig.port) as peer:
        first = peer.call()
        await first.connect_with(rig, sdp(4000))
        for _ in range(60):
            call = peer.call()
            call.invite(sdp(4000))
            assert status_of(await call.final()) == 486
        assert rig.cell.refused == {"limit": 60}
        assert status_of(await first.transact("BYE")) == 200


@pytest.mark.parametrize("crossing", ["cancel at once", "cancel crosses the 200", "both hang up", "bye at once"])
async def test_no_place_leaks_when_requests_cross(crossing: str) -> None:
    async with running(inbound_calls=32) as rig, SipPeer.open(rig.port) as peer:
        read = 0
        for _ in range(8):
            call = peer.call()
            call.invite(sdp(4000))
            if crossing == "cancel at once":
                peer.send(call.request("CANCEL", same_transaction=True))
            leg = await rig.leg()
            answering = asyncio.create_task(leg.answer())
            if crossing == "cancel crosses the 200":
                peer.send(call.request("CANCEL", same_transaction=True))
            async with asyncio.timeout(5):
                gone = asyncio.create_task(leg.ended())
                while not gone.done():
                    came = peer.seen()[read:]
                    read += len(came)
                    for text in came:
                        if text.startswith("BYE "):
                            peer.answer(text, "200 OK")
                        elif header(text, "CSeq").endswith("INVITE") and status_of(text) >= 300:
                            peer.send(call.request("ACK", same_transaction=True))
                        elif header(text, "CSeq").endswith("INVITE") and status_of(text) >= 200:
                            call.follow(text)
                            call.ack()
                            peer.send(call.request("BYE"))
                            if crossing == "both hang up":
                                await leg.hangup()
                    await asyncio.sleep(0.005)
            await asyncio.gather(answering, return_exceptions=True)
        assert rig.cell.calls == 0
        thread = rig.cell._thread
        assert thread is not None
        assert await thread.submit(capacity.taken) == 0
