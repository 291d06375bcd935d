"""A machine is renewed, held, and ended while calls come and go: no call is lost, and none is refused needlessly."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fleet_calls import GAP_MS, PLAN, calling, cells_ready, complete
from tests.harness.fleet import FleetProcess
from tests.harness.talk import Talker

pytestmark = pytest.mark.peers

OVERRIDES = {
    "fleet": {"heartbeat_s": 0.3, "hang_s": 3},
    "bus": {"lease_s": 2},
    "calls": {"drain_s": 20},
}
CELLS = 3


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    with FleetProcess(tmp_path_factory.mktemp("fleet"), {"acme.yaml": PLAN}, OVERRIDES, calls=4 * CELLS) as running:
        yield running


def test_all_processes_are_replaced_under_load(fleet: FleetProcess, tmp_path: Path) -> None:
    before = {part.pid for kind in ("zygote", "cell", "writer", "gateway") for part in fleet.of(kind)}
    with calling(fleet, tmp_path / "load", total=40) as traffic, Talker(fleet.sip_port).call() as phone:
        since_ns = time.perf_counter_ns()
        fleet.ask("restart")
        fleet.await_that(
            lambda now: (
                cells_ready(now) == CELLS
                and not before & {each["pid"] for each in now["children"] if each["state"] == "ready"}
                and now["warm_parent"] not in before
            ),
            "fresh processes",
            timeout_s=60,
        )
        phone.echo_again()
        assert phone.longest_gap_ms(since_ns) <= GAP_MS
        assert phone.bye().code == 200
    traffic.assert_good()
    fleet.await_that(lambda now: not before & {each["pid"] for each in now["children"]}, "the end of the old", 40)
    found = fleet.await_records(41)
    assert all(map(complete, found)), [(each.reason, each.kinds) for each in found if not complete(each)]
    assert {each.reason for each in found} == {"caller_hangup"}


def test_a_held_machine_finishes_its_calls_and_takes_new_ones_later(fleet: FleetProcess, tmp_path: Path) -> None:
    fleet.await_idle()
    with calling(fleet, tmp_path / "running", total=6, rate=6, hold_s=6) as running:
        while running.up < 6:
            assert running.sipp.running
            time.sleep(0.05)
        assert fleet.ask("drain")["state"] == "held"
        with Talker(fleet.sip_port) as refused:
            answer = refused.invite("echo")
        assert (answer.code, bool(int(answer.header("Retry-After")))) == (503, True)
        assert running.up == 6
        assert fleet.ask("undrain")["state"] == "serving"
        with calling(fleet, tmp_path / "new", total=10, at_once=5) as fresh:
            pass
    running.assert_good()
    fresh.assert_good()


def test_a_machine_that_ends_lets_its_calls_end(tmp_path: Path) -> None:
    with FleetProcess(tmp_path / "own", {"acme.yaml": PLAN}, OVERRIDES, calls=8) as fleet:
        with calling(fleet, tmp_path / "load", total=6, rate=6, hold_s=6) as traffic:
            while traffic.up < 6:
                assert traffic.sipp.running
                time.sleep(0.05)
            fleet.process_signal(signal.SIGTERM)
            deadline = time.monotonic() + 2
            while True:
                with Talker(fleet.sip_port) as late:
                    answer = late.invite("echo")
                if answer.code != 200:
                    break
                assert time.monotonic() < deadline, "calls are taken as before"
            assert (answer.code, bool(int(answer.header("Retry-After")))) == (503, True)
            assert traffic.up == 6
        traffic.assert_good()
        assert fleet.stop() == 0
        found = fleet.records()
        assert len(found) >= 6
        assert all(complete(each) and each.reason in ("caller_hangup", "draining") for each in found)
