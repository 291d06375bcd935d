"""One leg of a bridge brings garbage: SIP, SDP, RTP and RTCP that are none. The two go on talking."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.until import wait_until
from tests.faults.test_malformed_sip import Sender
from tests.faults.test_rtp import with_garbage
from tests.faults.torture import BAD_SDP, BROKEN
from tests.harness.phone import Phone, tone
from tests.harness.records import ended
from tests.harness.server import ServerProcess, free_range
from tests.peers.rtp import level, strongest_hz
from tests.peers.three import HZ, Far, Three, three

pytestmark = pytest.mark.peers

PLAN = """
tenant: bridged
flows:
  bridge: [{bridge: {to: "202", trunk: here, on: {failed: end}}}]
routes:
  - match: {to: bridge}
    flow: bridge
"""

TALK_MS = 60_000


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {"callee": free_range(8)[0]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[ServerProcess]:
    host = f"127.0.0.1:{ports['callee']}"
    trunk = {
        "name": "here", "sources": ["127.0.0.1/32"], "host": host, "number_format": "as_is", "srtp": "off"
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("bridged")
    with ServerProcess(folder, {"bridged.yaml": PLAN}, {"trunks": [trunk]}) as process:
        yield process
        assert "Traceback" not in process.log()


@pytest.fixture
def there(server: ServerProcess, tmp_path: Path, ports: dict[str, int]) -> Iterator[Three]:
    with three(server, tmp_path, ports) as parties:
        yield parties


@pytest.fixture
def callee(there: Three) -> Far:
    return there.listen("callee", "callee-200-far-end-bye")


@pytest.fixture
def phone(server: ServerProcess, callee: Far) -> Iterator[Phone]:
    """The caller talks with the callee."""
    with Phone(server.sip_port) as phone:
        assert phone.invite("bridge", timeout_s=20).code == 200
        phone.say(tone(TALK_MS, HZ["caller"]))
        hear_each_other(phone, callee)
        yield phone


def hear_each_other(phone: Phone, callee: Far) -> None:
    """In what comes from now on: half a second of old sound must be over first."""
    before = len(callee.rtp.heard.payloads), len(phone.received)
    wait_until(lambda: len(callee.rtp.heard.payloads) > before[0] + 60, "sound at the callee")
    wait_until(lambda: len(phone.received) > before[1] + 60, "sound at the caller")
    callee.hears("caller")

    def caller_hears() -> bool:
        samples = phone.heard()[-4000:]
        return level(samples) > 500 and abs(strongest_hz(samples, 8000) / HZ["callee"] - 1) < 0.03

    wait_until(caller_hears, "the caller hears the callee")


def leave(server: ServerProcess, phone: Phone, callee: Far) -> None:
    assert phone.bye().code == 200
    callee.is_content()
    (record,) = ended(server.database, phone.call_id)
    assert record.reason == "caller_hangup"
    assert not record.of("digit.sent")


def test_garbage_between_the_packets_of_the_caller(server: ServerProcess, phone: Phone, callee: Far) -> None:
    phone.mangle = with_garbage()
    time.sleep(2)
    hear_each_other(phone, callee)
    phone.mangle = None
    hear_each_other(phone, callee)
    leave(server, phone, callee)


def test_garbage_at_the_ports_of_the_callees_leg(server: ServerProcess, phone: Phone, callee: Far) -> None:
    """From elsewhere: what is no RTP moves no sound to a stranger."""
    host, port = callee.rtp.media
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for size in (0, 1, 3, 11, 12, 28, 172, 1400):
            for first in (b"\x00", b"\x40", b"\xff", b"\x80\xc8\xff\xff", b"\xa0\x08", b"\x9f\x08"):
                for _ in range(3):
                    stranger.sendto(first + bytes(size), (host, port))
                    stranger.sendto(first + bytes(size), (host, port + 1))
        stranger.sendto(struct.pack("!BBHI", 0x81, 203, 1, 0x51EE7), (host, port + 1))  # a BYE of RTCP
    hear_each_other(phone, callee)
    leave(server, phone, callee)


def test_broken_messages_at_the_servers_door(server: ServerProcess, phone: Phone, callee: Far) -> None:
    sender = Sender(server.sip_port)
    try:
        for number, each in enumerate(BROKEN):
            sender.send(each.filled(sender.port, f"bridged{number}"))
        assert sender.alive()
    finally:
        sender.close()
    hear_each_other(phone, callee)
    leave(server, phone, callee)


def test_broken_offers_within_the_callers_dialog(server: ServerProcess, phone: Phone, callee: Far) -> None:
    """Whatever the answer: the callee is not asked, and a sound offer mends what an odd one moved."""
    before = callee.sipp.messages.count("INVITE sip")
    answers = {}
    for each in BAD_SDP:
        body = each.message.partition(b"\r\n\r\n")[2].decode(errors="replace")
        if body.isascii():
            answers[each.name] = phone.transact("INVITE", body, timeout_s=20).code
    assert set(answers.values()) <= {200, 400, 415, 488, 606}, answers
    assert 488 in answers.values()
    assert phone.transact("INVITE", phone.sdp(), timeout_s=20).code == 200
    hear_each_other(phone, callee)
    assert callee.sipp.messages.count("INVITE sip") == before
    leave(server, phone, callee)
