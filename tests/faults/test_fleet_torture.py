"""Garbage at the edge and at the cells while a call is up: everybody survives it, and the call hears nothing."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest

from tests.faults.fleet_calls import GAP_MS, PLAN, complete
from tests.faults.torture import BAD_SDP, BROKEN, ODD_BUT_VALID, Torture, message
from tests.harness.fleet import FleetProcess
from tests.harness.talk import Talker

pytestmark = pytest.mark.peers

OVERRIDES = {"fleet": {"heartbeat_s": 0.3, "hang_s": 3}, "bus": {"lease_s": 2}, "edge": {"probe_s": 1}}
ALL = (*ODD_BUT_VALID, *BROKEN, *BAD_SDP)
APART_S = 0.01
GROUP = 6
"""Messages before the next good call; the fleet has room for more calls than these."""
STREAMS = (
    bytes(range(256)) * 40,
    b"\r\n" * 5000,
    b"INVITE sip:refuse@127.0.0.1 SIP/2.0\r\nX-Endless: " + b"e" * 200_000,
    message(length="").replace(b"UDP", b"TCP"),
    message(length="-5").replace(b"UDP", b"TCP"),
    message(length="4000000000").replace(b"UDP", b"TCP"),
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    with FleetProcess(tmp_path_factory.mktemp("fleet"), {"acme.yaml": PLAN}, OVERRIDES, calls=8) as running:
        yield running


@pytest.fixture
def phone(fleet: FleetProcess) -> Iterator[Talker]:
    """In a call all the time. Nobody of the fleet has died in the end, and calls are taken."""
    before, kamailio = fleet.await_idle()["children"], {part.pid for part in fleet.of("kamailio")}
    with Talker(fleet.sip_port).call() as talker:
        since_ns = time.perf_counter_ns()
        yield talker
        talker.echo_again()
        assert talker.longest_gap_ms(since_ns) <= GAP_MS
        assert_good_call(fleet)
        assert talker.bye().code == 200
    (record,) = fleet.await_records(1, sip_call_id=talker.call_id)
    assert complete(record)
    assert record.reason == "caller_hangup"
    after = fleet.await_idle()
    assert [each["pid"] for each in after["children"]] == [each["pid"] for each in before]
    assert {part.pid for part in fleet.of("kamailio")} == kamailio
    assert "Traceback" not in fleet.log()
    await_no_place_taken(fleet)


def assert_good_call(fleet: FleetProcess) -> None:
    """The next call is answered at once, and no cell was left out."""
    edge = fleet.status()["edge"]
    assert edge["cells_living"] == len(fleet.of("cell")), edge
    with Talker(fleet.sip_port) as fresh:
        assert fresh.invite("echo").code == 200
        assert fresh.bye().code == 200


def await_no_place_taken(fleet: FleetProcess, timeout_s: float = 10) -> None:
    """Refusals without an ACK are repeated for a while; their places are free before."""
    deadline = time.monotonic() + timeout_s
    while calls := fleet.status()["edge"]["calls"]:
        assert time.monotonic() < deadline, f"{calls} places stay taken"
        time.sleep(0.05)


def torment(port: int, tortures: Sequence[Torture] = ALL) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        for torture in tortures:
            sender.sendto(torture.filled(sender.getsockname()[1], uuid.uuid4().hex), ("127.0.0.1", port))
            time.sleep(APART_S)


def test_malformed_messages_at_the_edge(fleet: FleetProcess, phone: Talker) -> None:
    for first in range(0, len(ALL), GROUP):
        torment(fleet.sip_port, ALL[first : first + GROUP])
        assert_good_call(fleet)


def test_malformed_messages_at_a_cell(fleet: FleetProcess, phone: Talker) -> None:
    for cell in fleet.of("cell"):
        torment(cell.port)


def test_malformed_streams_at_the_edge(fleet: FleetProcess, phone: Talker) -> None:
    for stream in STREAMS:
        with socket.create_connection(("127.0.0.1", fleet.sip_port), 2) as broken, suppress(OSError):
            broken.sendall(stream)
