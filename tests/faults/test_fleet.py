"""Each part of a fleet dies or stands still in the middle of calls: who hears it, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.fleet_calls import cell_of
from tests.harness.fleet import FleetProcess
from tests.harness.server import ROOT
from tests.harness.talk import Talker

pytestmark = pytest.mark.peers

PLAN = """
tenant: acme
flows:
  main: [answer, {record: {stereo: true}}, {echo: {max_s: 120}}]
  other: [{hangup: 480}]
routes:
  - {match: {to: echo}, flow: main}
"""
GAP_MS = 60
"""What nobody else may hear of a part that dies."""


OVERRIDES = {"fleet": {"heartbeat_s": 0.3, "hang_s": 1.5}, "bus": {"lease_s": 2}, "tenants": {"acme": {"calls": 7}}}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    with FleetProcess(tmp_path_factory.mktemp("fleet"), {"acme.yaml": PLAN}, OVERRIDES, calls=8) as running:
        yield running


@pytest.fixture
def own_fleet(tmp_path: Path) -> Iterator[FleetProcess]:
    """For tests that start a part of it again themselves."""
    with FleetProcess(tmp_path, {"acme.yaml": PLAN}, OVERRIDES, calls=8) as running:
        yield running


@pytest.fixture
def port(fleet: FleetProcess) -> Iterator[int]:
    """Where to call. Whatever a test did to the fleet, it takes calls before and after it."""
    fleet.await_idle()
    yield fleet.sip_port
    fleet.await_idle()
    with Talker(fleet.sip_port).call() as phone:
        phone.bye()
    fleet.await_idle()


def taker(fleet: FleetProcess, port: int) -> int:
    """The process that takes the next call."""
    with Talker(port).call() as phone:
        found = cell_of(fleet, phone)
        phone.bye()
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_supervisor(fleet: FleetProcess) -> None:
    """It and nobody else; gone when this returns."""
    assert fleet.process is not None
    fleet.process.kill()
    fleet.process.wait(10)


@contextmanager
def two_calls_on_two_cells(fleet: FleetProcess, port: int) -> Iterator[tuple[Talker, Talker]]:
    """The edge fills a cell before it takes the next: who calls in between hangs up again."""
    with ExitStack() as stack:
        phones = [stack.enter_context(Talker(port).call())]
        while cell_of(fleet, phones[-1]) == cell_of(fleet, phones[0]):
            phones.append(stack.enter_context(Talker(port).call()))
        for phone in phones[1:-1]:
            phone.bye()
        yield phones[0], phones[-1]


def test_a_call_goes_through_edge_and_cell_into_the_record(fleet: FleetProcess, port: int) -> None:
    with Talker(port).call() as phone:
        source = f"127.0.0.1:{phone.sip_port}"
        phone.bye()
        (record,) = fleet.await_records(1, sip_call_id=phone.call_id)
    assert record.reason == "caller_hangup"
    assert record.of("call.started")[0]["source"] == source
    assert record.of("media.rtp")
    assert Path(record.recording).stat().st_size > 1000
    assert record.recording_status == "complete"


def test_a_killed_cell_takes_its_own_calls_and_nobody_else_hears_it(fleet: FleetProcess, port: int) -> None:
    with two_calls_on_two_cells(fleet, port) as (lost, kept):
        victim = cell_of(fleet, lost)
        lost.echo_for(1.0)
        since_ns = time.perf_counter_ns()
        kill(victim)
        status = fleet.await_that(
            lambda now: (
                all(each["pid"] != victim for each in now["children"])
                and sum(each["kind"] == "cell" and each["state"] == "ready" for each in now["children"]) == 2
            ),
            "a fresh cell",
        )
        kept.echo_again()
        assert kept.longest_gap_ms(since_ns) <= GAP_MS
        (crashed,) = fleet.await_records(1, sip_call_id=lost.call_id, mended=True)
        assert crashed.reason == "crash"
        assert crashed.kinds[-1] == "call.ended"
        assert crashed.recording_status == "complete"
        assert Path(crashed.recording).stat().st_size > 1000
        assert status["calls"] == 1
        with Talker(port).call() as third:
            third.bye()
        kept.bye()
        lost.ended.set()  # nobody is left who could hear its BYE
    (record,) = fleet.await_records(1, sip_call_id=kept.call_id)
    assert record.reason == "caller_hangup"


def test_a_cell_that_stands_still_is_replaced(fleet: FleetProcess, port: int) -> None:
    with Talker(port).call() as phone:
        victim = cell_of(fleet, phone)
        os.kill(victim, signal.SIGSTOP)
        (record,) = fleet.await_records(1, sip_call_id=phone.call_id)
        phone.ended.set()
    assert record.reason == "crash"
    fleet.await_that(lambda now: all(each["pid"] != victim for each in now["children"]), "its end")


def test_the_death_of_the_warm_parent_is_not_heard_and_cells_can_still_be_made(fleet: FleetProcess, port: int) -> None:
    with Talker(port).call() as phone:
        since_ns = time.perf_counter_ns()
        dead = fleet.signal("zygote")
        fleet.await_that(lambda now: now["warm_parent"] not in (0, dead.pid), "a new warm parent")
        assert len(fleet.of("cell")) == 2
        idle = next(part for part in fleet.of("cell") if part.pid != cell_of(fleet, phone))
        kill(idle.pid)
        fleet.await_that(
            lambda now: sum(each["kind"] == "cell" and each["state"] == "ready" for each in now["children"]) == 2,
            "two cells",
        )
        phone.echo_again()
        assert phone.longest_gap_ms(since_ns) <= GAP_MS
        phone.bye()
    assert fleet.await_records(1, sip_call_id=phone.call_id)[0].reason == "caller_hangup"


def test_calls_outlive_the_supervisor_and_the_next_one_takes_over(own_fleet: FleetProcess) -> None:
    with Talker(own_fleet.sip_port).call() as phone:
        since_ns = time.perf_counter_ns()
        kamailio = own_fleet.of("kamailio")[0].pid
        cells = {part.pid for part in own_fleet.of("cell")}
        kill_supervisor(own_fleet)
        with Talker(own_fleet.sip_port).call() as meanwhile:  # nobody supervises, and calls are taken
            meanwhile.bye()
        own_fleet.start_supervisor()
        assert own_fleet.of("kamailio")[0].pid == kamailio
        assert not cells & {part.pid for part in own_fleet.of("cell")}
        with Talker(own_fleet.sip_port).call() as fresh:
            assert cell_of(own_fleet, fresh) not in cells
            fresh.bye()
        phone.echo_again()
        assert phone.longest_gap_ms(since_ns) <= GAP_MS
        phone.bye()
    assert own_fleet.await_records(1, sip_call_id=phone.call_id)[0].reason == "caller_hangup"
    own_fleet.await_that(lambda now: not now["orphans"], "the end of the orphans", timeout_s=40)


def test_kamailio_comes_back_and_dialogs_go_on(fleet: FleetProcess, port: int) -> None:
    with Talker(port).call() as phone:
        since_ns = time.perf_counter_ns()
        restarts = fleet.status()["programs"]["edge"]["restarts"]
        kill(fleet.of("kamailio")[0].pid)
        started_again = {"running": True, "restarts": restarts + 1}  # "running" alone is still said of the dead one
        fleet.await_that(lambda now: now["programs"]["edge"] == started_again, "the edge")
        phone.echo_again()
        assert phone.longest_gap_ms(since_ns) <= GAP_MS
        assert phone.bye().code == 200
    assert fleet.await_records(1, sip_call_id=phone.call_id)[0].reason == "caller_hangup"


@pytest.mark.parametrize("kind", ["writer", "gateway"])
def test_helpers_come_back_and_nothing_is_missing(fleet: FleetProcess, port: int, kind: str) -> None:
    with Talker(port).call() as phone:
        dead = fleet.signal(kind)
        phone.bye()
        (record,) = fleet.await_records(1, sip_call_id=phone.call_id)
        fleet.await_that(
            lambda now: any(
                each["kind"] == kind and each["pid"] != dead.pid and each["state"] == "ready"
                for each in now["children"]
            ),
            f"a new {kind}",
        )
    assert record.kinds[0] == "call.started"
    assert record.kinds[-1] == "call.ended"
    assert record.numbers == tuple(range(len(record.numbers)))
    fleet.await_metric("sipserver_fleet_cells_ready 2.0")
    fleet.await_metric("sipserver_edge_up 1.0")


def test_redis_away_costs_no_call_and_no_entry(own_fleet: FleetProcess) -> None:
    with Talker(own_fleet.sip_port).call() as before:
        since_ns = time.perf_counter_ns()
        own_fleet.redis.kill()
        own_fleet.await_that(lambda now: not now["bus_up"], "the loss of the bus")
        with Talker(own_fleet.sip_port).call() as during:
            during.bye()
        before.echo_again()
        own_fleet.redis.start()
        own_fleet.await_that(lambda now: now["bus_up"], "the bus")
        assert before.longest_gap_ms(since_ns) <= GAP_MS
        before.bye()
    for phone in (before, during):
        *sent_on, record = own_fleet.await_records(1, sip_call_id=phone.call_id)
        assert [each.reason for each in sent_on] == ["limit"] * len(sent_on)  # this cell's share of it was used up
        assert record.reason == "caller_hangup"
        assert record.numbers == tuple(range(len(record.numbers)))


def test_a_rolling_restart_drops_no_call(fleet: FleetProcess, port: int) -> None:
    with Talker(port).call() as phone:
        since_ns = time.perf_counter_ns()
        before = {part.pid for part in fleet.of("cell")}
        fleet.ask("restart")
        fleet.await_that(
            lambda now: (
                sum(
                    each["kind"] == "cell" and each["state"] == "ready" and each["pid"] not in before
                    for each in now["children"]
                )
                == 2
            ),
            "new cells",
            timeout_s=40,
        )
        deadline = time.monotonic() + 10
        while taker(fleet, port) in before:  # until the edge has been told
            assert time.monotonic() < deadline
        phone.echo_again()
        assert phone.longest_gap_ms(since_ns) <= GAP_MS
        assert phone.bye().code == 200
    assert fleet.await_records(1, sip_call_id=phone.call_id)[0].reason == "caller_hangup"
    fleet.await_that(
        lambda now: not before & {each["pid"] for each in now["children"]}, "the end of the old cells", timeout_s=30
    )


def test_a_changed_dialplan_reaches_every_cell_and_a_bad_one_none(fleet: FleetProcess, port: int) -> None:
    file = fleet.dialplans / "acme.yaml"
    file.write_text(
        PLAN.replace("{to: echo}, flow: main}", "{to: echo}, flow: main}\n  - {match: {to: new}, flow: other}")
    )
    assert fleet.ask("reload")["problems"] == []
    deadline = time.monotonic() + 20
    while (code := answers(port, "new")) != {480}:
        assert time.monotonic() < deadline, code
    file.write_text("tenant: acme\nflows: nonsense\n")
    assert fleet.ask("reload")["problems"]
    with Talker(port).call() as phone:
        phone.bye()
    file.write_text(PLAN)
    fleet.ask("reload")


def answers(port: int, user: str, times: int = 4) -> set[int]:
    """What calls to a user are answered, one after the other over all cells."""
    codes = set()
    for _ in range(times):
        with Talker(port) as phone:
            codes.add(phone.invite(user).code)
    return codes


def test_a_tenants_limit_holds_over_all_cells(fleet: FleetProcess, port: int) -> None:
    phones = [Talker(port) for _ in range(8)]
    try:
        codes = [phone.invite("echo").code for phone in phones]
        assert sorted(codes) == [200] * 7 + [486]
        refused = phones[codes.index(486)]
        (record,) = fleet.await_records(1, sip_call_id=refused.call_id)
        assert record.reason == "limit"
        phones[codes.index(200)].bye()
        deadline = time.monotonic() + 10
        while answers(port, "echo", 1) != {200}:  # the phone hangs up when it is closed
            assert time.monotonic() < deadline
    finally:
        for phone in phones:
            phone.close()


def test_an_operator_sees_and_ends_a_call_from_another_process(fleet: FleetProcess, port: int) -> None:
    with Talker(port).call() as phone:
        (shown,) = json.loads(sipserver(fleet, "calls", "live", "--json"))
        assert (shown["sip_call_id"], shown["state"]) == (phone.call_id, "answered")
        assert shown["cell"].startswith("cell-")
        assert shown["id"] in sipserver(fleet, "calls", "hangup", shown["id"][-12:])
        assert phone.ended.wait(5)
    assert fleet.await_records(1, sip_call_id=phone.call_id)[0].reason == "operator_hangup"


def sipserver(fleet: FleetProcess, *words: str) -> str:
    command = [sys.executable, "-m", "sipserver", *words, "--config", str(fleet.settings_file)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout
