"""One part of a fleet after the other is killed (SIGKILL) under load."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fleet_calls import GAP_MS, PLAN, calling, cells_ready, complete
from tests.harness.fleet import FleetProcess
from tests.harness.talk import Talker

pytestmark = pytest.mark.peers

OVERRIDES = {"fleet": {"heartbeat_s": 0.3, "speech_workers": 1}, "bus": {"lease_s": 2}}
CELLS = 3
A_CELL = 4
HELPERS = ("writer", "gateway", "zygote", "speech")
CALLS = 60


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetProcess]:
    with FleetProcess(tmp_path / "fleet", {"acme.yaml": PLAN}, OVERRIDES, calls=A_CELL * CELLS) as running:
        yield running


def await_all(fleet: FleetProcess) -> None:
    fleet.await_that(
        lambda now: (
            cells_ready(now) == CELLS
            and {each["kind"] for each in now["children"] if each["state"] == "ready"}
            >= {"writer", "gateway", "speech"}
            and now["bus_up"]
            and now["programs"]["edge"]["running"]
        ),
        "all parts",
    )


def test_helpers_redis_and_the_edge_die_and_no_call_hears_it(fleet: FleetProcess, tmp_path: Path) -> None:
    with (
        calling(fleet, tmp_path / "load", total=CALLS, rate=4, at_once=8) as traffic,
        Talker(fleet.sip_port).call() as phone,
    ):
        for kind in (*HELPERS, "redis", "kamailio"):
            since_ns = time.perf_counter_ns()
            if kind == "redis":
                fleet.redis.kill()
                phone.echo_for(1.0)
                fleet.redis.start()
            else:
                fleet.signal(kind, signal.SIGKILL)
            phone.echo_for(1.0)
            assert phone.longest_gap_ms(since_ns) <= GAP_MS, kind
            await_all(fleet)
        phone.bye()
    traffic.assert_good()
    found = fleet.await_records(CALLS + 1)
    assert all(map(complete, found)), [(each.reason, each.kinds) for each in found if not complete(each)]
    assert {each.reason for each in found} == {"caller_hangup"}


def test_a_cell_dies_and_takes_its_own_calls_alone(fleet: FleetProcess, tmp_path: Path) -> None:
    with calling(fleet, tmp_path / "load", total=CALLS, rate=4, at_once=9, hold_s=2.5) as traffic:
        victim = fleet.await_that(
            lambda now: any(each["kind"] == "cell" and each["calls"] >= A_CELL - 1 for each in now["children"]),
            "a full cell",
        )
        cell = max((each for each in victim["children"] if each["kind"] == "cell"), key=lambda each: int(each["calls"]))
        os.kill(cell["pid"], signal.SIGKILL)
        await_all(fleet)
    cut = [call.call for call in traffic.wire.calls if call.cut]
    assert 1 <= len(cut) <= A_CELL
    assert traffic.calls.good >= CALLS - A_CELL
    found = fleet.await_records(CALLS, mended=True)
    crashed = [each for each in found if each.reason == "crash"]
    assert 1 <= len(crashed) <= A_CELL
    assert {each.reason for each in found} == {"caller_hangup", "crash"}
    assert all(complete(each) for each in found if each.reason != "crash")
    begun = [each for each in crashed if "recording.started" in each.kinds]  # a call may be cut before it is recorded
    assert [each.recording_status for each in begun] == ["complete"] * len(begun)
    assert begun
    assert fleet.await_idle()["calls"] == 0
