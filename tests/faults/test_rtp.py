"""RTP as bad networks and bad phones deliver it: the call goes on, and the record counts what happened."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.harness.phone import Phone, tone
from tests.harness.records import Record, ended
from tests.harness.server import ServerProcess
from tests.peers.rtp import level, strongest_hz

PLAN = """
tenant: media
flows:
  echo: [answer, echo]
routes:
  - match: {to: echo}
    flow: echo
"""

STALLED_S, TIMEOUT_S = 0.6, 3.0
HZ = 1000.0
HEAD = struct.Struct("!BBHII")

Mangle = Callable[[bytes], Iterator[bytes]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    overrides = {
        "sip": {"rtp_stalled_s": STALLED_S},
        "calls": {"media_timeout_s": TIMEOUT_S},
    }
    with ServerProcess(tmp_path_factory.mktemp("rtp"), {"media.yaml": PLAN}, overrides) as process:
        yield process
        assert "Traceback" not in process.log()


@pytest.fixture
def phone(server: ServerProcess) -> Iterator[Phone]:
    with Phone(server.sip_port) as phone:
        assert phone.invite("echo").code == 200
        yield phone


def record_of(server: ServerProcess, phone: Phone) -> Record:
    (record,) = ended(server.database, phone.call_id)
    return record


def converse(phone: Phone, milliseconds: int = 1500) -> None:
    """Say a tone for a while and check that it came back at the end."""
    phone.say(tone(milliseconds, HZ))
    time.sleep(milliseconds / 1000)
    last = phone.heard()[-3200:]
    assert strongest_hz(last, 8000) == pytest.approx(HZ, abs=15)
    assert level(last) > 2000


def changed(packet: bytes, *, sequence: int = 0, timestamp: int = 0, ssrc: int | None = None) -> bytes:
    """The packet with numbers added to its header, and maybe another source."""
    first, kind, old_sequence, old_timestamp, old_ssrc = HEAD.unpack(packet[:12])
    return (
        HEAD.pack(
            first,
            kind,
            (old_sequence + sequence) & 0xFFFF,
            (old_timestamp + timestamp) & 0xFFFFFFFF,
            old_ssrc if ssrc is None else ssrc,
        )
        + packet[12:]
    )


# --- what a network does to packets -----------------------------------------------------------------------------------


def lossy(packets_between: int) -> Mangle:
    count = 0

    def mangle(packet: bytes) -> Iterator[bytes]:
        nonlocal count
        count += 1
        if count % packets_between:
            yield packet

    return mangle


def swapped() -> Mangle:
    """Every fourth packet comes after the one that follows it."""
    kept: list[bytes] = []
    count = 0

    def mangle(packet: bytes) -> Iterator[bytes]:
        nonlocal count
        count += 1
        if count % 4 == 0:
            kept.append(packet)
            return
        yield packet
        while kept:
            yield kept.pop()

    return mangle


def doubled(packet: bytes) -> Iterator[bytes]:
    yield packet
    yield packet


def jittered() -> Mangle:
    """Bunches of three: two gaps, then three packets at once."""
    waiting: list[bytes] = []

    def mangle(packet: bytes) -> Iterator[bytes]:
        waiting.append(packet)
        if len(waiting) == 3:
            yield from waiting
            waiting.clear()

    return mangle


def with_garbage() -> Mangle:
    """Beside every good packet one that is none: short, cut, of another version, lying about its header, huge."""
    chance = random.Random(4733)
    broken = (
        b"",
        b"\x80",
        b"\x80\x00\x00\x01",
        bytes(12),
        b"\x80\x00" + bytes(9),
        b"\x8f\x00\x00\x01" + bytes(20),  # fifteen contributing sources, but no room for them
        b"\x90\x00\x00\x01" + bytes(8) + b"\xbe\xde\xff\xff" + bytes(8),  # an extension longer than the packet
        b"\xa0\x00\x00\x01" + bytes(8) + bytes(20) + b"\xff",  # more padding than payload
        b"\x40\x00\x00\x01" + bytes(168),  # version 1
        b"\x80\xc8\x00\x06" + bytes(24),  # RTCP where RTP belongs
        b"\x80\x7f\x00\x01" + bytes(168),  # a payload type that nobody offered
        b"\x80\x65\x00\x01" + bytes(8) + b"\xff",  # a telephone-event of one byte
        b"\x80\x65\x00\x01" + bytes(8) + b"\xff\x8a\xff\xff",  # event 255
        bytes(chance.randrange(256) for _ in range(1400)),
        bytes(chance.randrange(256) for _ in range(60_000)),
    )

    def mangle(packet: bytes) -> Iterator[bytes]:
        yield packet
        yield chance.choice(broken)

    return mangle


def test_five_percent_are_lost(server: ServerProcess, phone: Phone) -> None:
    phone.mangle = lossy(20)
    converse(phone, 2000)
    phone.bye()
    record = record_of(server, phone)
    assert record.reason == "caller_hangup"
    statistics = record.of("media.rtp")[-1]
    assert statistics["lost"] >= 3
    assert 0.02 < statistics["lost"] / (statistics["lost"] + statistics["received"]) < 0.08
    assert statistics["mos"] < 4.3


def test_packets_come_out_of_order(server: ServerProcess, phone: Phone) -> None:
    phone.mangle = swapped()
    converse(phone)
    phone.bye()
    record = record_of(server, phone)
    assert record.reason == "caller_hangup"
    statistics = record.of("media.rtp")[-1]
    assert statistics["lost"] == 0
    assert statistics["discarded"] + statistics["reordered"] >= 5  # too late for a jitter buffer that starts at 0 ms


def test_packets_come_twice(server: ServerProcess, phone: Phone) -> None:
    phone.mangle = doubled
    converse(phone)
    phone.bye()
    record = record_of(server, phone)
    assert record.reason == "caller_hangup"
    statistics = record.of("media.rtp")[-1]
    assert statistics["duplicated"] >= 20
    assert statistics["mos"] > 4


def test_packets_come_in_bunches(server: ServerProcess, phone: Phone) -> None:
    phone.mangle = jittered()
    converse(phone, 2000)
    phone.bye()
    record = record_of(server, phone)
    assert record.reason == "caller_hangup"
    assert record.of("media.rtp")[-1]["jitter_ms"] > 2


def test_garbage_between_the_packets(server: ServerProcess, phone: Phone) -> None:
    phone.mangle = with_garbage()
    converse(phone, 2000)
    phone.mangle = None
    converse(phone, 500)
    phone.bye()
    record = record_of(server, phone)
    assert record.reason == "caller_hangup"
    assert not record.of("digit.received")


def test_garbage_at_the_rtcp_port(server: ServerProcess, phone: Phone) -> None:
    assert phone.media is not None
    host, port = phone.media
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for size in (1, 3, 4, 7, 28, 1400):
            stranger.sendto(b"\x80\xc8\xff\xff" + bytes(size), (host, port + 1))
            stranger.sendto(b"\xff" * size, (host, port + 1))
    converse(phone)
    phone.bye()
    assert record_of(server, phone).reason == "caller_hangup"


# --- a source that changes --------------------------------------------------------------------------------------------


def test_the_stream_restarts_with_another_source_number(server: ServerProcess, phone: Phone) -> None:
    converse(phone, 2500)  # the source is looked at once a second
    phone.mangle = lambda packet: iter((changed(packet, ssrc=0xBADCAFE, sequence=20_000, timestamp=1 << 29),))
    converse(phone, 2000)
    phone.bye()
    record = record_of(server, phone)
    assert record.reason == "caller_hangup"
    assert "media.source_changed" in record.kinds


@pytest.mark.parametrize("seconds", [10, -10, 3600])
def test_the_time_jumps(server: ServerProcess, phone: Phone, seconds: int) -> None:
    converse(phone, 500)
    phone.mangle = lambda packet: iter((changed(packet, timestamp=seconds * 8000),))
    converse(phone)
    phone.bye()
    assert record_of(server, phone).reason == "caller_hangup"


@pytest.mark.parametrize("step", [500, -500, 30_000])
def test_the_sequence_jumps(server: ServerProcess, phone: Phone, step: int) -> None:
    converse(phone, 500)
    phone.mangle = lambda packet: iter((changed(packet, sequence=step),))
    converse(phone, 2000)
    phone.bye()
    assert record_of(server, phone).reason == "caller_hangup"


def test_another_payload_type_in_between(server: ServerProcess, phone: Phone) -> None:
    """Comfort noise and a codec that was not negotiated, as some gateways send them."""
    count = 0

    def mangle(packet: bytes) -> Iterator[bytes]:
        nonlocal count
        count += 1
        kind = {0: 13, 5: 18}.get(count % 10, 0)
        yield packet[:1] + bytes([kind]) + packet[2:]

    phone.mangle = mangle
    time.sleep(0.6)
    phone.mangle = None
    converse(phone)
    phone.bye()
    assert record_of(server, phone).reason == "caller_hangup"


# --- a stream that stops ----------------------------------------------------------------------------------------------


def test_the_stream_stops_and_comes_back(server: ServerProcess, phone: Phone) -> None:
    converse(phone, 500)
    phone.stop_media()
    time.sleep(2.0)
    assert not phone.ended.is_set()
    phone.start_media()
    converse(phone, 2200)
    phone.bye()
    record = record_of(server, phone)
    assert record.reason == "caller_hangup"
    kinds = [kind for kind in record.kinds if kind in ("media.stalled", "media.recovered")]
    assert kinds == ["media.stalled", "media.recovered"]
    assert record.of("media.stalled")[0]["silent_ms"] >= STALLED_S * 1000


def test_the_stream_stops_for_good(server: ServerProcess, phone: Phone) -> None:
    converse(phone, 500)
    phone.stop_media()
    assert phone.ended.wait(TIMEOUT_S + 4)
    record = record_of(server, phone)
    assert record.reason == "media_timeout"
    assert "media.stalled" in record.kinds


def test_a_held_call_may_be_silent_for_long(server: ServerProcess, phone: Phone) -> None:
    converse(phone, 500)
    assert phone.transact("INVITE", phone.sdp("inactive")).code == 200
    phone.stop_media()
    time.sleep(TIMEOUT_S + 1.5)
    assert not phone.ended.is_set()
    assert phone.transact("INVITE", phone.sdp("sendrecv")).code == 200
    phone.start_media()
    converse(phone)
    phone.bye()
    assert record_of(server, phone).reason == "caller_hangup"


def test_nothing_of_all_that_stayed(server: ServerProcess) -> None:
    with Phone(server.sip_port) as phone:
        assert phone.invite("echo").code == 200
        converse(phone, 1000)
        assert not np.array_equal(phone.heard()[-800:], np.zeros(800, np.int16))
