"""One part of a fleet after the other stands still for a while (SIGSTOP) under load, and goes on (SIGCONT)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.fleet_calls import GAP_MS, PLAN, calling, cell_of, cells_ready, complete
from tests.harness.fleet import FleetProcess
from tests.harness.talk import Talker

pytestmark = pytest.mark.peers

OVERRIDES = {
    "fleet": {"heartbeat_s": 0.3, "hang_s": 3.5, "speech_workers": 1},
    "bus": {"lease_s": 2},
}
CELLS = 3
CALLS = 56
PAUSE_S = 2.3
"""Longer than a lease, shorter than what counts as hung."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    with FleetProcess(tmp_path_factory.mktemp("fleet"), {"acme.yaml": PLAN}, OVERRIDES, calls=4 * CELLS) as running:
        yield running


def pids(fleet: FleetProcess, kind: str) -> list[int]:
    if kind == "redis":
        return [int((fleet.folder / "redis.pid").read_text())]
    return [part.pid for part in fleet.of(kind)]


@contextmanager
def paused(processes: Sequence[int]) -> Iterator[None]:
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_parts_that_stand_still_for_a_while_are_not_heard(fleet: FleetProcess, tmp_path: Path) -> None:
    before = fleet.await_idle()
    with (
        calling(fleet, tmp_path / "load", total=CALLS, rate=4, at_once=8) as traffic,
        Talker(fleet.sip_port).call() as phone,
    ):
        for kind in ("redis", "writer", "gateway", "supervisor", "zygote", "speech"):
            since_ns = time.perf_counter_ns()
            with paused(pids(fleet, kind)):
                time.sleep(PAUSE_S)
            phone.echo_again()
            assert phone.longest_gap_ms(since_ns) <= GAP_MS, kind
            fleet.await_that(lambda now: now["bus_up"], "the bus")
        phone.bye()
    traffic.assert_good()
    after = fleet.await_that(lambda now: now["bus_up"] and now["records_behind"] == 0, "an end of what waits")
    assert [(each["name"], each["pid"]) for each in after["children"]] == [
        (each["name"], each["pid"]) for each in before["children"]
    ]
    found = fleet.await_records(CALLS + 1)
    assert all(map(complete, found)), [(each.reason, each.kinds) for each in found if not complete(each)]
    assert {each.reason for each in found} == {"caller_hangup"}


def test_an_edge_that_stands_still_keeps_its_calls_and_takes_new_ones_afterwards(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    """Callers send again what is not answered (RFC 3261 section 17.1.1.2), so that late is not lost."""
    fleet.await_idle()
    with Talker(fleet.sip_port).call() as phone:
        since_ns = time.perf_counter_ns()
        with calling(fleet, tmp_path / "load", total=12, rate=4, at_once=6) as traffic:
            while traffic.up < 2:
                assert traffic.sipp.running
                time.sleep(0.05)
            with paused(pids(fleet, "kamailio")):
                time.sleep(PAUSE_S)
                phone.echo_again()
        traffic.assert_good()
        assert phone.longest_gap_ms(since_ns) <= GAP_MS
        assert phone.bye().code == 200
    assert fleet.await_that(lambda now: now["programs"]["edge"]["running"], "the edge")


def test_helpers_that_never_go_on_are_replaced(fleet: FleetProcess) -> None:
    kinds = ("writer", "gateway", "speech")
    with Talker(fleet.sip_port).call() as phone:
        stuck = {fleet.signal(kind, signal.SIGSTOP).pid for kind in kinds}
        phone.bye()
        fleet.await_that(
            lambda now: (
                {each["kind"] for each in now["children"] if each["state"] == "ready"} >= {*kinds, "cell"}
                and not stuck & {each["pid"] for each in now["children"]}
            ),
            "new helpers",
        )
        (record,) = fleet.await_records(1, sip_call_id=phone.call_id)
    assert complete(record)


def test_a_warm_parent_that_never_goes_on_does_not_keep_cells_from_being_made(fleet: FleetProcess) -> None:
    fleet.await_idle()
    stuck = fleet.signal("zygote", signal.SIGSTOP)
    try:
        with Talker(fleet.sip_port).call() as phone:
            os.kill(cell_of(fleet, phone), signal.SIGKILL)
            phone.ended.set()
        fleet.await_that(lambda now: cells_ready(now) == CELLS and now["warm_parent"] != stuck.pid, "a cell", 30)
    finally:
        with suppress(ProcessLookupError):
            os.kill(stuck.pid, signal.SIGCONT)
