"""A relay that a unit runs: waited for, followed, found again after its restart, never started or stopped by us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sipserver.edge.adopted import Adopted
from sipserver.edge.cells import CellAddress
from sipserver.edge.edge import Edge
from sipserver.edge.rtpengine import Rtpengine
from sipserver.edge.settings import EdgeSettings, Listen
from sipserver.errors import CarrierError
from tests.servers.rtpengine import RtpengineServer, relay_settings

DEADLINE_S = 10


async def test_it_is_waited_for_followed_and_left(tmp_path: Path) -> None:
    settings = relay_settings()
    ours = Adopted(Rtpengine(settings, tmp_path), "sipserver-rtpengine.service")
    waiting = asyncio.create_task(ours.start(DEADLINE_S))
    unit = RtpengineServer(tmp_path, settings)
    await asyncio.to_thread(unit.__enter__)
    await waiting
    first = asyncio.create_task(ours.exited())
    await asyncio.to_thread(unit.kill)
    await asyncio.wait_for(first, DEADLINE_S)
    with unit:
        await ours.start(DEADLINE_S)
        await ours.stop()
        assert unit.process.poll() is None
        assert await Rtpengine(settings, tmp_path).alive()


async def test_what_does_not_run_is_named_and_not_started(tmp_path: Path) -> None:
    settings = relay_settings()
    ours = Adopted(Rtpengine(settings, tmp_path), "sipserver-rtpengine.service")
    with pytest.raises(CarrierError, match=r"systemctl status sipserver-rtpengine\.service"):
        await ours.start(0.2)
    assert not await Rtpengine(settings, tmp_path).alive(0.1)


async def test_an_adopted_edge_is_told_its_cells(tmp_path: Path, free_sip_port: Callable[[], int]) -> None:
    listen = (Listen(transport="udp", host="127.0.0.1", port=free_sip_port()),)
    settings = EdgeSettings(folder=tmp_path, listen=listen, inside_port=free_sip_port(), open=True, run_by="systemd")
    unit = Edge(settings, (), ("PCMA",))
    await unit.start()
    try:
        edge = Edge(settings, (), ("PCMA",))
        ours = Adopted(edge, "sipserver-edge.service")
        await ours.start(DEADLINE_S)
        try:
            port = free_sip_port()
            await edge.set_cells((CellAddress("127.0.0.1", port, 4),))
            assert [cell.uri for cell in (await edge.state()).cells] == [f"sip:127.0.0.1:{port}"]
        finally:
            await ours.stop()
        assert await unit.alive()
    finally:
        await unit.stop()
