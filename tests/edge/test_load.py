"""Many calls at once, with SIPp on both sides, and real servers behind the edge."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sipserver.edge.cells import CellAddress
from sipserver.trunks.settings import TrunkSettings
from tests.harness.server import ServerProcess, free_range, free_sip_port
from tests.servers.kamailio import Caller, header, port_of, running, status_of

pytestmark = pytest.mark.peers

SCENARIOS = Path(__file__).parent / "scenarios"
RATE = 60
CALLS = 300
ROOM, DEAD_ROOM = 21, 6
"""Of a cell: less than live at a time, so that one is not enough. Two have room for those that the dead one held up,
and for what a SIPp that stood still for a moment catches up with."""
LIMIT_S = 30


@asynccontextmanager
async def _sipp(name: str, folder: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *("sipp", "-sf", str(SCENARIOS / f"{name}.xml"), "-i", "127.0.0.1", "-bind_local", "-nostdin"),
        *options,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_no_call_and_no_place_is_lost(tmp_path: Path) -> None:
    """Cells that take calls, one that refuses all, one that is dead, and a list that changes meanwhile."""
    first, last = free_range(12)
    *ports, caller_port = range(first, last + 1, 2)
    names = ("cell-200", "cell-200", "cell-200", "cell-486-full")
    *good, full = addresses = [CellAddress("127.0.0.1", port, ROOM) for port in ports[:-1]]
    dead = CellAddress("127.0.0.1", ports[-1], DEAD_ROOM)
    async with contextlib.AsyncExitStack() as stack:
        for name, port in zip(names, ports, strict=False):
            await stack.enter_async_context(_sipp(name, tmp_path, "-p", str(port), "-aa"))
        edge = await stack.enter_async_context(running(tmp_path))
        await edge.set_cells([full, good[0], good[1]])
        caller = await stack.enter_async_context(
            _sipp(
                "uac-200", tmp_path, "-p", str(caller_port), "-m", str(CALLS), "-r", str(RATE), "-d", "400",
                "-timeout", f"{LIMIT_S}s", "-timeout_error", "-trace_err", "-error_file", str(tmp_path / "errors"),
                f"127.0.0.1:{port_of(edge)}",
            )
        )  # fmt: skip
        await edge.set_cells([dead, full, *good])
        await edge.set_cells([dead, full, good[0], good[2]])
        code = await asyncio.wait_for(caller.wait(), LIMIT_S + 5)
        errors = tmp_path / "errors"
        assert code == 0, errors.read_text()[-2000:] if errors.exists() else code
        async with asyncio.timeout(5):
            while (await edge.stats())["calls"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        state = await edge.state()
        assert state.counters["dialog.active_dialogs"] == 0
        assert state.counters["dialog.processed_dialogs"] == CALLS
        assert {cell.uri: cell.state for cell in state.cells}[addresses[1].uri] == "disabled"
    lines = (tmp_path / "kamailio.log").read_text()
    took = {port: len(re.findall(rf"to cell 127\.0\.0\.1:{port}:", lines)) for port in ports}
    assert all(took.values()), took
    assert took[full.port] < CALLS / 4, took  # it refused, and was left alone for a while each time


async def test_no_call_that_a_cell_places_is_lost(tmp_path: Path) -> None:
    """The carrier rings for a moment: of a 180 and a 200 in one breath, which two processes of Kamailio read, the 200
    may come first. PJSIP does not mind, SIPp gives the call up.
    """
    first, last = free_range(6)
    carrier_port, cell_port = range(first, last + 1, 2)[:2]
    trunk = TrunkSettings(name="carrier", host=f"127.0.0.1:{carrier_port}")
    async with (
        _sipp("carrier-200", tmp_path, "-p", str(carrier_port), "-aa"),
        running(tmp_path, (), (trunk,)) as edge,
    ):
        await edge.set_cells([CellAddress("127.0.0.1", cell_port, ROOM)])
        errors = tmp_path / "errors"
        async with _sipp(
            "placer-200", tmp_path, "-p", str(cell_port), "-m", str(CALLS), "-r", str(RATE), "-d", "400", "-aa",
            "-key", "carrier", f"127.0.0.1:{carrier_port}", "-s", "+4930123456",
            "-timeout", f"{LIMIT_S}s", "-timeout_error", "-trace_err", "-error_file", str(errors),
            f"127.0.0.1:{edge.settings.inside_port}",
        ) as cell:  # fmt: skip
            code = await asyncio.wait_for(cell.wait(), LIMIT_S + 5)
        assert code == 0, errors.read_text()[-2000:] if errors.exists() else code
        assert (await edge.state()).counters["tmx.2xx_transactions"] >= 2 * CALLS
    assert len(re.findall(r"to trunk carrier", (tmp_path / "kamailio.log").read_text())) == CALLS


PLAN = """
tenant: behind
flows:
  echo: [answer, echo]
  busy: [{hangup: {code: 486, reason: Busy}}]
routes:
  - match: {to: echo}
    flow: echo
  - match: {to: busy}
    flow: busy
"""


async def test_real_servers_behind_the_edge(tmp_path: Path) -> None:
    """Two of them, with room for one call each: both are used, the third caller is told to wait, busy is busy."""
    inside_port = free_sip_port()
    sip: dict[str, Any] = {"behind_edge": True, "allow": ["127.0.0.1/32"], "inbound_calls": 1}
    servers = [ServerProcess(tmp_path / name, {"plan.yaml": PLAN}, {"sip": sip}) for name in ("one", "two")]
    try:
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
        async with running(tmp_path / "edge", inside_port=inside_port) as edge, Caller.open(edge) as caller:
            # The edge believes that there is more room than there is: the cells say how much.
            await edge.set_cells([CellAddress("127.0.0.1", server.sip_port, 4) for server in servers])
            dialogs = [caller.dialog("echo") for _ in range(2)]
            for dialog in dialogs:
                answer = await dialog.invite()
                assert status_of(answer) == 200
                assert not header(answer, "Server")
            refused = await caller.dialog("echo").invite()
            assert status_of(refused) == 503
            assert header(refused, "Retry-After")
            for dialog in dialogs:
                assert status_of(await dialog.bye()) == 200
            assert status_of(await caller.dialog("busy").invite()) == 486
            async with asyncio.timeout(5):
                while (await edge.stats())["calls"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        assert sum("behind" in server.log() for server in servers) == 2
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)
