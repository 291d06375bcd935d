"""The supervisor with real processes: they start, die, hang, drain and are renewed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from sipserver.errors import InternalError, SettingsError
from sipserver.fleet.child import State
from sipserver.journal import Kind
from tests.fakes.dialplans import written
from tests.fleet.conftest import Rig, until
from tests.fleet.kinds import set_mood, tell

Start = Callable[..., AbstractAsyncContextManager[Rig]]


def comm(pid: int) -> str:
    """The name that ps shows."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def told(rig: Rig, count: int) -> list[Any]:
    """The first entries of the journal."""
    entries: list[Any] = []
    async for delivery in rig.bus.journal.read("m1"):
        entries += delivery.entries
        await delivery.done()
        if len(entries) >= count:
            break
    return entries


async def test_every_kind_is_there_and_the_edge_knows_the_cells(start: Start) -> None:
    async with start() as rig:
        crew = rig.supervisor.crew
        assert {kind: len(crew.ready(kind)) for kind in crew.seats} == {
            "cell": 2, "gateway": 1, "writer": 1, "speech": 1,
        }  # fmt: skip
        ports = [child.spec.sip_port for child in crew.ready("cell")]
        assert rig.edge.lists == [sorted(ports)]  # once, and only when all were ready
        leases = await rig.bus.leases.find("node/")
        assert [cell[:2] for cell in leases["node/m1"]["cells"]] == [["127.0.0.1", port] for port in sorted(ports)]
        assert all(comm(child.pid) == child.name for child in crew.children())
        sessions = {os.getsid(child.pid) for child in crew.children()}
        assert os.getsid(0) not in sessions  # Ctrl-C in our terminal does not reach them
    assert await rig.bus.leases.find("node/") == {}


async def test_a_crash_is_noticed_buried_and_made_good(start: Start) -> None:
    async with start() as rig:
        cell, other = rig.cell(0), rig.cell(1)
        tell(cell.spec.sip_port, "crash")
        fresh = await rig.ready(but=cell)
        assert str(cell.exit) == "SIGSEGV"
        assert fresh.spec.run != cell.spec.run
        assert rig.cell(1) is other
        (entry,) = await told(rig, 1)
        assert (entry.kind, entry.node, entry.run, entry.fields) == (
            Kind.RUN_GONE, "m1", cell.spec.run, {"detail": "SIGSEGV"},
        )  # fmt: skip
        await rig.supervisor.front.flush()
        assert [other.spec.sip_port] in rig.edge.lists  # at once without the dead one
        assert rig.edge.ports == sorted(child.spec.sip_port for child in rig.supervisor.crew.ready("cell"))
        assert rig.supervisor.crew.restarts["cell"] == 1


@pytest.mark.parametrize(
    ("hang", "part"),
    [("stop", "loop hangs"), ("block", "loop hangs"), ("sip 60000", "sip thread hangs")],
)
async def test_a_cell_that_hangs_is_killed(start: Start, hang: str, part: str) -> None:
    async with start() as rig:
        cell = rig.cell()
        if hang == "stop":
            os.kill(cell.pid, signal.SIGSTOP)
        else:
            tell(cell.spec.sip_port, hang)
        await rig.ready(but=cell)
        assert cell.killed_for == part
        assert str(cell.exit) in {"SIGABRT", "SIGKILL"}


async def test_a_cell_that_somebody_else_drains_is_replaced_at_once(start: Start) -> None:
    async with start() as rig:
        cell = rig.cell()
        tell(cell.spec.sip_port, "calls 1")
        await until(lambda: cell.calls == 1)
        os.kill(cell.pid, signal.SIGTERM)
        fresh = await rig.ready(but=cell)
        assert cell.state is State.DRAINING
        await rig.supervisor.front.flush()
        assert fresh.spec.sip_port in rig.edge.ports
        assert cell.spec.sip_port not in rig.edge.ports
        tell(cell.spec.sip_port, "calls 0")
        await cell.ended.wait()
        assert cell.exit.clean
        assert rig.supervisor.crew.restarts["cell"] == 0


async def test_a_crash_loop_backs_off_and_raises_an_alarm(start: Start) -> None:
    async with start(alarm_crashes=3, alarm_s=3) as rig:
        set_mood(rig.runtime, "broken")
        alarms, cell = rig.supervisor.alarms, rig.cell()
        os.kill(cell.pid, signal.SIGKILL)
        await until(lambda: "crash_loop_cell" in alarms.active)
        set_mood(rig.runtime, "")
        fresh = await rig.ready(but=cell)
        await until(lambda: "crash_loop_cell" not in alarms.active)
        assert fresh.state is State.READY


async def test_a_cell_that_never_becomes_ready_is_replaced(start: Start) -> None:
    async with start(ready_s=1.2) as rig:
        set_mood(rig.runtime, "silent")
        cell = rig.cell()
        os.kill(cell.pid, signal.SIGKILL)
        await until(lambda: rig.supervisor.crew.restarts["cell"] >= 2, "the silent one was not given up")
        set_mood(rig.runtime, "slow")
        assert (await rig.ready(but=cell)).state is State.READY


async def test_the_warm_parent_dies_and_its_children_do_not(start: Start) -> None:
    async with start() as rig:
        before = [child.pid for child in rig.supervisor.crew.children()]
        parent = rig.supervisor.nursery.pid
        (rig.settings.dialplans / "bad.yaml").write_text("tenant: [")
        os.kill(parent, signal.SIGKILL)
        await until(lambda: rig.supervisor.nursery.restarts == 1)
        cell = rig.cell()
        tell(cell.spec.sip_port, "exit 3")
        fresh = await rig.ready(but=cell)
        assert str(cell.exit) == "code 3"
        assert rig.supervisor.nursery.pid != parent
        assert "warm_parent_down" not in rig.supervisor.alarms.active
        assert [child.pid for child in rig.supervisor.crew.children()] == [
            fresh.pid if pid == cell.pid else pid for pid in before
        ]


async def test_a_rolling_restart_renews_everything_and_drops_no_call(start: Start) -> None:
    async with start() as rig:
        crew, old = rig.supervisor.crew, rig.supervisor.crew.children()
        busy = rig.cell()
        tell(busy.spec.sip_port, "calls 1")
        await until(lambda: busy.calls == 1)
        assert await rig.supervisor.restart()
        assert {child.pid for child in old}.isdisjoint(child.pid for kind in crew.seats for child in crew.ready(kind))
        await until(lambda: all(child.state is State.ENDED for child in old if child is not busy))
        assert busy.state is State.DRAINING  # it has a call
        assert min(len(ports) for ports in rig.edge.lists) == 2  # never fewer cells than before
        assert busy.spec.sip_port not in rig.edge.ports
        tell(busy.spec.sip_port, "calls 0")
        await until(lambda: busy.state is State.ENDED)
        assert busy.exit.clean
        assert crew.restarts == {"cell": 0, "gateway": 0, "writer": 0, "speech": 0}


async def test_a_rolling_restart_with_few_ports_goes_one_by_one(start: Start) -> None:
    async with start(ports=3) as rig:
        old = [rig.cell(0), rig.cell(1)]
        assert await rig.supervisor.restart()
        await until(lambda: all(child.state is State.ENDED and child.exit.clean for child in old))
        assert {len(ports) for ports in rig.edge.lists} <= {2, 3}  # never fewer than before, never more than fit


async def test_a_restart_with_bad_code_leaves_the_old_cells(start: Start) -> None:
    async with start() as rig:
        set_mood(rig.runtime, "broken")
        old = [rig.cell(0), rig.cell(1)]
        assert not await rig.supervisor.restart()
        assert [rig.cell(0), rig.cell(1)] == old
        assert all(child.state is State.READY for child in old)


async def test_dialplans_reach_running_cells_and_later_ones(start: Start) -> None:
    async with start() as rig:
        plans = rig.settings.dialplans
        (plans / "bad.yaml").write_text("tenant: [")
        (plans / "more.yaml").write_text(written("main:\n- answer\n- hangup", tenant="more"))
        cell = rig.cell()
        rig.supervisor.reload()
        await until(lambda: all(child.beat.more.get("reloads") == 1 for child in rig.supervisor.crew.ready("cell")))
        tell(cell.spec.sip_port, "crash")
        fresh = await rig.ready(but=cell)
        await until(lambda: fresh.beat.more.get("reloads") == 1)  # the warm parent refuses to begin with the bad one
        (plans / "bad.yaml").unlink()
        parent = rig.supervisor.nursery.pid
        rig.supervisor.reload()
        (plans / "third.yaml").write_text(written("main:\n- answer\n- hangup", tenant="third"))
        await until(lambda: rig.supervisor.nursery.pid != parent)
        tell(fresh.spec.sip_port, "crash")
        freshest = await rig.ready(but=fresh)
        await until(lambda: freshest.beat.more.get("tenants") == 3)


async def test_the_end_waits_for_calls_until_somebody_is_in_a_hurry(start: Start) -> None:
    async with start() as rig:
        busy, idle = rig.cell(0), rig.cell(1)
        tell(busy.spec.sip_port, "calls 1")
        await until(lambda: busy.calls == 1)

        async def hurry() -> None:
            await idle.ended.wait()
            assert busy.state is State.DRAINING
            rig.supervisor.hurry()

        hurrying = asyncio.create_task(hurry())
    await hurrying
    assert rig.edge.draining == [False, True]
    assert rig.edge.ports == []
    assert busy.exit.clean
    assert not busy.killed_for


async def test_a_port_that_somebody_has_is_skipped(start: Start) -> None:
    def occupy(rig: Rig) -> None:
        stranger.bind(("127.0.0.1", rig.settings.fleet.sip_ports[0]))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        async with start(before=occupy) as rig:
            first = rig.settings.fleet.sip_ports[0]
            assert rig.edge.ports == [first + 1, first + 2]


async def test_too_few_ports_are_a_mistake_in_the_settings(start: Start) -> None:
    with pytest.raises(SettingsError, match=r"fleet\.sip_ports: 2 cells for 6 calls need 3 ports"):
        async with start(ports=2):
            pass


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [("tests.fleet.kinds:MISSING", "nowhere"), ("tests.fleet.kinds:THREADED", "1 threads run after the imports")],
)
async def test_kinds_that_cannot_be_forked_are_said_at_the_start(start: Start, kinds: str, reason: str) -> None:
    with pytest.raises(InternalError, match=reason):
        async with start(kinds=kinds):
            pass


async def test_only_one_supervisor_has_a_runtime_folder(start: Start) -> None:
    async with start():
        with pytest.raises(SettingsError, match="another supervisor"):
            async with start():
                pass


async def test_an_edge_that_dies_is_started_again_and_told_the_cells(start: Start) -> None:
    async with start() as rig:
        known = list(rig.edge.lists)
        rig.edge.died.set()
        await until(lambda: rig.edge.starts == 2)
        await until(lambda: len(rig.edge.lists) > len(known))
        assert rig.edge.ports == known[-1]
        await until(lambda: "edge_down" not in rig.supervisor.alarms.active)
