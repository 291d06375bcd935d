"""Ports that a fleet needs are in other hands, and a cell that dies again and again: the rest of the fleet answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.fleet_calls import GAP_MS, PLAN, cell_of, cells_ready
from tests.harness.fleet import FleetProcess, merged, port_block
from tests.harness.talk import Talker

pytestmark = pytest.mark.peers

CELLS = 2
PAUSES_S = [0.2, 0.4, 0.8]
CRASH_LOOP, NO_PLACE = "crash_loop_cell", "no_place_for_cell"
OVERRIDES = {
    "fleet": {
        "heartbeat_s": 0.3,
        "hang_s": 3,
        "backoff_s": [PAUSES_S[0], 1.6],
        "alarm_crashes": 4,
        "alarm_s": 12,
    },
    "bus": {"lease_s": 2},
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    with FleetProcess(tmp_path_factory.mktemp("fleet"), {"acme.yaml": PLAN}, OVERRIDES, calls=4 * CELLS) as running:
        yield running


@contextmanager
def held(ports: Iterable[int]) -> Iterator[list[int]]:
    """Those of the UDP ports that nobody else holds belong to a stranger meanwhile."""
    with ExitStack() as stack:
        taken = []
        for port in ports:
            stranger = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with suppress(OSError):
                stranger.bind(("127.0.0.1", port))
                taken.append(port)
        yield taken


def alarms(status: Mapping[str, Any]) -> set[str]:
    return {each["name"] for each in status["alarms"]}


def test_without_ports_for_sound_callers_are_refused_and_running_calls_go_on(fleet: FleetProcess) -> None:
    first, last = fleet.settings["sip"]["rtp_ports"]
    fleet.await_idle()
    with Talker(fleet.sip_port).call() as phone:
        since_ns = time.perf_counter_ns()
        with held(range(first, last + 1)) as taken:
            assert len(taken) > 8
            with Talker(fleet.sip_port) as refused:
                answer = refused.invite("echo")
            assert (answer.code, bool(int(answer.header("Retry-After")))) == (503, True)
            fleet.await_log("no free ports for sound")
        with Talker(fleet.sip_port).call() as again:
            again.bye()
        phone.echo_again()
        assert phone.longest_gap_ms(since_ns) <= GAP_MS
        phone.bye()


def test_a_cell_without_ports_for_sound_leaves_the_call_to_the_next(fleet: FleetProcess) -> None:
    fleet.await_idle()
    with Talker(fleet.sip_port).call() as phone:
        assert phone.media is not None
        near = range(phone.media[1] - 14, phone.media[1] + 16)
        with held(near), Talker(fleet.sip_port) as first, Talker(fleet.sip_port) as second:
            for other in (first, second):
                other.call()
                assert cell_of(fleet, other) != cell_of(fleet, phone)
        phone.bye()


def test_a_cell_that_dies_again_and_again_waits_longer_and_raises_an_alarm(fleet: FleetProcess) -> None:
    fleet.await_idle()
    with Talker(fleet.sip_port).call() as phone:
        since_ns = time.perf_counter_ns()
        busy = cell_of(fleet, phone)
        name = next(part.name for part in fleet.of("cell") if part.pid != busy)
        began_s = time.monotonic()
        for _ in range(5):
            kill_when_ready(fleet, name)
        assert time.monotonic() - began_s > sum(PAUSES_S)  # how long each start takes is the machine's business
        fleet.await_that(lambda now: CRASH_LOOP in alarms(now), "the alarm")
        assert told_pauses_s(fleet.await_log(f'"pause_s": {PAUSES_S[-1]}'), name)[: len(PAUSES_S)] == PAUSES_S
        fleet.await_metric(f'sipserver_fleet_alarm{{alarm="{CRASH_LOOP}"}} 1.0')
        with Talker(fleet.sip_port).call() as meanwhile:
            assert cell_of(fleet, meanwhile) == busy
            meanwhile.bye()
        phone.echo_again()
        assert phone.longest_gap_ms(since_ns) <= GAP_MS
        phone.bye()
    fleet.await_that(lambda now: cells_ready(now) == CELLS and CRASH_LOOP not in alarms(now), "an end of the alarm", 30)


def told_pauses_s(log: str, name: str) -> list[float]:
    """Between the deaths of that cell and the next try, the first of which comes at once."""
    lines = [json.loads(line) for line in log.split("\n")[:-1] if '"pause_s"' in line]
    return [line["pause_s"] for line in lines if line.get("of") == name]


def kill_when_ready(fleet: FleetProcess, name: str) -> None:
    """Once the cell works."""

    def pid(status: Mapping[str, Any]) -> int:
        children = status["children"]
        return next((each["pid"] for each in children if each["name"] == name and each["state"] == "ready"), 0)

    victim = pid(fleet.await_that(lambda now: pid(now) > 0, "the next try"))
    os.kill(victim, signal.SIGKILL)
    fleet.await_that(lambda now: pid(now) != victim, "its end")


def test_a_cell_whose_port_is_taken_comes_when_one_is_free(tmp_path: Path) -> None:
    first, _ = port_block(3)
    overrides = merged(OVERRIDES, {"fleet": {"sip_ports": [first, first + 2]}})
    with (
        held([first]) as taken,
        FleetProcess(tmp_path / "own", {"acme.yaml": PLAN}, overrides, calls=4 * CELLS) as fleet,
    ):
        assert taken == [first]
        victim, _ = fleet.of("cell")
        assert victim.port == first + 1  # the taken one is passed over
        warm = fleet.signal("zygote", signal.SIGSTOP)
        os.kill(victim.pid, signal.SIGKILL)
        with grabbed(victim.port):
            os.kill(warm.pid, signal.SIGCONT)
            fleet.await_that(lambda now: NO_PLACE in alarms(now), "the alarm")
            with Talker(fleet.sip_port).call() as phone:
                phone.bye()
        fleet.await_that(lambda now: cells_ready(now) == CELLS and NO_PLACE not in alarms(now), "the cell")


@contextmanager
def grabbed(port: int) -> Iterator[None]:
    """As soon as its owner is dead."""
    deadline = time.monotonic() + 5
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        while True:
            with suppress(OSError):
                stranger.bind(("127.0.0.1", port))
                break
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield
