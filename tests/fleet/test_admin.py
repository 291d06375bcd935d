"""What an operator asks and reads."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sipserver.bus.memory import Hub, MemoryBus
from sipserver.cli import fleet as cli
from sipserver.errors import InternalError
from sipserver.fleet import admin
from sipserver.fleet.roster import Node
from tests.fakes.dialplans import written
from tests.fleet.conftest import Rig, until

Start = Callable[..., AbstractAsyncContextManager[Rig]]


async def sipserver_fleet(rig: Rig, *words: str) -> tuple[int, str]:
    """Exit code and output of the command, without the log of the supervisor, which runs in the same process."""
    file = rig.runtime.parent / "sipserver.yaml"
    result = await asyncio.to_thread(CliRunner().invoke, cli.app, [*words, "--config", str(file)])
    return result.exit_code, "".join(line for line in result.output.splitlines(True) if "room=" not in line)


async def test_status_shows_everything(start: Start) -> None:
    async with start() as rig:
        assert stat.S_IMODE(admin.socket_path(rig.runtime).stat().st_mode) == 0o600
        await until(lambda: all(child.heard_at_s > child.ready_s for child in rig.supervisor.crew.children()))
        code, text = await sipserver_fleet(rig, "status")
        lines = text.splitlines()
        assert code == 0
        assert lines[0].startswith("m1: serving, 2 of 2 cells, 0 of 6 calls, bus up, 0 records behind, supervisor ")
        cell = rig.cell()
        row = next(line.split() for line in lines if line.startswith("cell-00"))
        assert row[:4] == ["cell-00", str(cell.pid), str(cell.spec.sip_port), "ready"]
        assert "edge: running, started again 0 times; 2 cells answer, 0 do not; 0 calls" in lines
        code, text = await sipserver_fleet(rig, "status", "--json")
        assert json.loads(text)["children"][0]["kind"] == "writer"
        rig.supervisor.alarms.set("drill", True, "as told")  # one that no part of the supervisor clears
        code, text = await sipserver_fleet(rig, "status")
        assert code == 1
        assert "alarm drill since " in text


async def test_drain_and_undrain_hold_the_machine_back(start: Start) -> None:
    async with start() as rig:
        code, text = await sipserver_fleet(rig, "drain")
        assert (code, text) == (0, "this machine takes no new calls; calls now: 0\n")
        assert rig.edge.ports == []
        assert rig.edge.draining[-1] is True
        assert (await rig.bus.leases.find("node/"))["node/m1"]["draining"]
        code, text = await sipserver_fleet(rig, "undrain")
        assert (code, text) == (0, "this machine takes new calls; calls now: 0\n")
        assert len(rig.edge.ports) == 2
        assert rig.edge.draining[-1] is False


async def test_restart_and_reload_are_begun_from_the_terminal(start: Start) -> None:
    async with start() as rig:
        cell = rig.cell()
        code, text = await sipserver_fleet(rig, "restart")
        assert (code, text.partition(";")[0]) == (0, "begun")
        await rig.ready(but=cell)
        (rig.settings.dialplans / "more.yaml").write_text(written("main:\n- hangup", tenant="more"))
        assert await sipserver_fleet(rig, "reload") == (0, "2 tenants\n")
        (rig.settings.dialplans / "more.yaml").write_text("tenant: [")
        code, text = await sipserver_fleet(rig, "reload")
        assert code == 2
        assert "more.yaml" in text
        assert text.endswith("2 tenants\n")


async def test_facts_for_metrics(start: Start) -> None:
    async with start() as rig:
        facts = await admin.ask(rig.runtime, "facts")
        assert {"cell", "gateway", "writer", "speech", "warm_parent"} == facts["restarts"].keys()
        assert (facts["cells_ready"], facts["cells_wanted"], facts["capacity"], facts["bus_up"]) == (2, 2, 6, True)


async def test_what_is_not_understood_and_who_does_not_answer(start: Start, tmp_path: Path) -> None:
    async with start() as rig:
        with pytest.raises(InternalError, match="known: drain, edge, facts, reload, restart, status, undrain"):
            await admin.ask(rig.runtime, "sing")
    with pytest.raises(InternalError, match="no supervisor answers"):
        await admin.ask(tmp_path, "status")


async def test_another_machine_of_the_same_name_is_an_alarm(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipserver.fleet.front.RIVAL_S", 1.5)
    hub = Hub()
    async with start(hub=hub) as rig:
        alarms = rig.supervisor.alarms.active
        ours = hub.leases["node/m1"]
        assert "name_taken" not in alarms
        other = MemoryBus(node="m1", run="another", hub=hub)
        await other.leases.hold("node/m1", Node("m1", (), run=other.run).value())
        await until(lambda: "name_taken" in alarms)
        assert "fleet.node" in alarms["name_taken"].detail
        hub.leases["node/m1"] = ours  # the other has gone, and ours is renewed
        await until(lambda: "name_taken" not in alarms)


async def test_machines_find_each_other(start: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    hub = Hub()
    async with start(hub=hub) as one, start(hub=hub, node="m2", folder=tmp_path_factory.mktemp("m2")) as two:
        own, others = set(one.edge.ports), {child.spec.sip_port for child in two.supervisor.crew.ready("cell")}
        await until(lambda: set(one.edge.ports) == own | others)
        await until(lambda: set(two.edge.ports) == own | others)
        two.supervisor.front.changed()
        _, text = await sipserver_fleet(one, "status")
        assert "machine m2: serving, 2 cells, 0 calls" in text
        answer: dict[str, Any] = await admin.ask(two.runtime, "drain")
        assert answer["state"] == "held"
        await until(lambda: set(one.edge.ports) == own)
        assert two.edge.draining[-1] is False  # its edge sends new calls to the other machine
    assert set(one.edge.lists[-1]) == set()
