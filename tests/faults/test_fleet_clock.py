"""The time of day jumps while calls are up: for every process of the fleet (libfaketime), and for Redis.

Redis does not start with libfaketime (its allocator asks for the time too early); what a jump does to it, the end of
every lease at once, is done by hand.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

import pytest
import redis

from tests.faults.fleet_calls import PLAN, complete
from tests.harness.fleet import FleetProcess
from tests.harness.moved_clock import NEEDS_LIBRARY, SEEN_S, Clock
from tests.harness.talk import Talker

JUMP_GAP_MS = 250
"""libfaketime reads its file in every process at the moment of the jump, which is heard: some 80 ms were seen. A media
clock that followed the jump would stand still for an hour, or catch up with one."""

pytestmark = [pytest.mark.peers, NEEDS_LIBRARY]

OVERRIDES = {"fleet": {"heartbeat_s": 0.3, "hang_s": 10}, "bus": {"lease_s": 2}}
"""hang_s: far less than any jump, and more than a process stands still for that libfaketime slows down."""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock") / "time")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[FleetProcess]:
    fleet = FleetProcess(tmp_path_factory.mktemp("fleet"), {"acme.yaml": PLAN}, OVERRIDES, calls=8)
    with clock.running(fleet):
        yield fleet


def times(fleet: FleetProcess, sip_call_id: str) -> tuple[float, float, float]:
    """started, answered, ended, in seconds."""
    with closing(sqlite3.connect(f"file:{fleet.database}?mode=ro", uri=True)) as connection:
        row = connection.execute(
            "SELECT started_at, answered_at, ended_at FROM calls WHERE sip_call_id = ?", (sip_call_id,)
        ).fetchone()
    started, answered, ended = (datetime.fromisoformat(each).timestamp() for each in row)
    return started, answered, ended


def good_call(fleet: FleetProcess, timeout_s: float = 20) -> str:
    """Its Call-ID. A call that is set up about the time of a jump was seen to get 408, or 504 when two cells in turn
    were too slow for the edge; callers try again."""
    deadline = time.monotonic() + timeout_s
    while True:
        with Talker(fleet.sip_port) as fresh:
            answer = fresh.invite("echo")
            if answer.code == 200:
                while not fresh.received:  # its record is that of a call that was really up
                    assert time.monotonic() < deadline, "no sound comes"
                    time.sleep(0.02)
                assert fresh.bye().code == 200
                return fresh.call_id
        assert answer.code in (408, 504), answer.text
        assert time.monotonic() < deadline, "no call is taken"


@pytest.mark.parametrize("seconds", [3600, -3600], ids=["forwards", "backwards"])
def test_a_jump_of_the_clock_ends_no_call(fleet: FleetProcess, clock: Clock, seconds: int) -> None:
    before = fleet.await_idle()["children"]
    with Talker(fleet.sip_port).call() as phone:
        since_ns = time.perf_counter_ns()
        clock.jump(seconds)
        sip_call_id = good_call(fleet)
        phone.echo_again()
        assert phone.longest_gap_ms(since_ns) <= JUMP_GAP_MS
        phone.bye()
    (record,) = fleet.await_records(1, sip_call_id=phone.call_id)
    (other,) = fleet.await_records(1, sip_call_id=sip_call_id)
    assert complete(record)
    assert complete(other)
    assert {record.reason, other.reason} == {"caller_hangup"}
    after = fleet.status()
    assert after["bus_up"]
    assert [each["pid"] for each in after["children"]] == [each["pid"] for each in before]
    for each in (phone.call_id, sip_call_id):
        started, answered, ended = times(fleet, each)
        assert started <= answered <= ended


def test_leases_that_end_all_at_once_end_no_call(fleet: FleetProcess) -> None:
    """Redis ends them by the time of day: so does its clock when it jumps forwards."""
    before = fleet.await_idle()["children"]
    with Talker(fleet.sip_port).call() as phone, redis.Redis.from_url(fleet.redis.url) as server:
        since_ns = time.perf_counter_ns()
        leases = [key for key in server.scan_iter() if server.pttl(key) > 0]
        assert leases
        server.delete(*leases)
        time.sleep(SEEN_S)
        with Talker(fleet.sip_port).call() as fresh:
            fresh.bye()
        phone.echo_again()
        assert phone.longest_gap_ms(since_ns) <= JUMP_GAP_MS
        phone.bye()
    for each in (phone, fresh):
        (record,) = fleet.await_records(1, sip_call_id=each.call_id)
        assert complete(record)
        assert record.reason == "caller_hangup"
    assert [each["pid"] for each in fleet.status()["children"]] == [each["pid"] for each in before]
