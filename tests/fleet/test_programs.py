"""Servers that hang, not die: noticed by their silence, killed, started again; systemd's are only told about."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sipserver.edge.adopted import Adopted
from sipserver.edge.edge import Edge
from sipserver.edge.rtpengine import Rtpengine
from sipserver.fleet.alarms import Alarms
from sipserver.fleet.programs import Keeper, Program
from sipserver.fleet.settings import FleetSettings
from tests.fleet.fakes import FakeEdge
from tests.servers.kamailio import edge_settings
from tests.servers.rtpengine import relay_settings

DEADLINE_S = 30


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (nothing tells when)
            await asyncio.sleep(0.05)


def keeper(name: str, program: Program) -> Keeper:
    return Keeper(name, program, FleetSettings(backoff_s=(0.1, 0.1)), Alarms())


def session_of(leader: int) -> list[int]:
    """Its processes that live; a dead one that nobody has taken the status of is none."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _parent, _group, session = (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
                if int(session) == leader and state != "Z":
                    found.append(int(entry.name))
    return found


@pytest.mark.peers
async def test_a_kamailio_that_hangs_is_replaced_with_all_its_processes(tmp_path: Path) -> None:
    edge = Edge(edge_settings(tmp_path), (), ("PCMA",))
    kept = keeper("edge", edge)
    await kept.start()
    try:
        first = edge.pid
        assert first is not None
        processes = session_of(first)
        assert len(processes) > 1
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        await until(lambda: "edge_down" in kept._alarms.active)
        assert "does not answer" in kept._alarms.active["edge_down"].detail
        await until(lambda: kept.running)
        assert edge.pid != first
        assert await edge.alive()
        assert not session_of(first)
        assert (kept.restarts, dict(kept._alarms.active)) == (1, {})
    finally:
        await kept.stop()


@pytest.mark.peers
async def test_an_rtpengine_that_hangs_is_replaced(tmp_path: Path) -> None:
    relay = Rtpengine(relay_settings(), tmp_path)
    kept = keeper("rtpengine", relay)
    await kept.start()
    try:
        first = relay.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        await until(lambda: "rtpengine_down" in kept._alarms.active)
        await until(lambda: kept.running)
        assert relay.pid != first
        assert await relay.alive()
    finally:
        await kept.stop()


@pytest.mark.peers
async def test_what_systemd_runs_is_only_told_about(tmp_path: Path) -> None:
    unit = Rtpengine(relay_settings(), tmp_path)
    await unit.start()
    try:
        kept = keeper("rtpengine", Adopted(Rtpengine(unit._settings, tmp_path), "sipserver-rtpengine.service"))
        await kept.start()
        try:
            assert unit.pid is not None
            os.kill(unit.pid, signal.SIGSTOP)
            await until(lambda: "rtpengine_down" in kept._alarms.active)
            os.kill(unit.pid, signal.SIGCONT)
            await until(lambda: kept.running)
            assert not kept._alarms.active
            assert await unit.alive()
        finally:
            await kept.stop()
    finally:
        await unit.stop()


async def test_one_missed_answer_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipserver.fleet.programs.LOOK_S", 0.01)
    edge = FakeEdge()
    answers = iter([False, False, True] * 5)
    asked = asyncio.Event()

    async def alive() -> bool:
        answer = next(answers, None)
        if answer is None:
            asked.set()
        return answer is not False

    monkeypatch.setattr(edge, "alive", alive)
    kept = keeper("edge", edge)
    await kept.start()
    try:
        await asyncio.wait_for(asked.wait(), DEADLINE_S)
        assert (edge.kills, edge.starts, kept.restarts) == (0, 1, 0)
    finally:
        await kept.stop()


async def test_its_end_is_noticed_while_an_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipserver.fleet.programs.LOOK_S", 0.01)
    edge = FakeEdge()
    asked = asyncio.Event()

    async def alive() -> bool:
        asked.set()
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(edge, "alive", alive)
    kept = keeper("edge", edge)
    await kept.start()
    try:
        await asyncio.wait_for(asked.wait(), DEADLINE_S)
        edge.died.set()
        await until(lambda: edge.starts == 2)
        assert (edge.kills, kept.restarts) == (0, 1)
    finally:
        await kept.stop()
