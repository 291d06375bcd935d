"""`sipserver dial`: whom it asks, and what it tells of the call. SIPp is called in tests/peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sipserver.asking import Everywhere, Here
from sipserver.bus.memory import Hub, MemoryBus
from sipserver.calls.commands import CallCommands, UnknownCall
from sipserver.calls.limits import Limits
from sipserver.cli import dial
from sipserver.errors import CapacityError, CarrierError, NotFound, RemoteError
from sipserver.events import LegProgress
from sipserver.store.reader import open_reader
from sipserver.store.records import Records
from sipserver.store.settings import StoreSettings
from tests.calls.conftest import Stage
from tests.calls.test_registry import FakeLimits
from tests.fakes.outbound import FakeOutbound
from tests.fakes.until import until

WANTED = {"to": "+4930123", "tenant": "acme"}


class Console:
    """A single server's console without its socket. gone: no call lives any more."""

    def __init__(self, commands: CallCommands) -> None:
        self._commands = commands
        self.gone = False

    async def handle(self, verb: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.gone:
            raise UnknownCall("it is gone")
        return await self._commands.handle(verb, arguments)


class Following:
    """A server with a database, and somebody who follows a call. lines: what was told."""

    def __init__(self, folder: Path, outbound: FakeOutbound, limits: Limits | None = None) -> None:
        self.outbound = outbound
        self.store = StoreSettings(url=f"sqlite+aiosqlite:///{folder}/calls.db")
        self.records = Records(self.store)
        self.stage = Stage(folder)
        self.stage.head = 'targets: ["+49*"]'
        self.stage.plan("  main: [{wait: 60}]")
        self.stage.outbound, self.stage.limits = outbound, limits
        self.stage.limits_of = lambda tenant, trunk: {"tenant/acme": 3}
        self.console = Console(CallCommands(self.stage.registry(records=self.records)))
        self.interrupted = asyncio.Event()
        self.lines: list[str] = []

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[asyncio.Task[bool]]:
        self.stage.recorder.open()
        await self.records.open()
        server = Here(self.console.handle)
        call_id = await server.originate(WANTED)
        async with open_reader(self.store) as reader:
            following = asyncio.create_task(dial._follow(server, reader, call_id, self.interrupted, self.lines.append))
            try:
                yield following
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                await self.stage.close()
                await self.records.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "LOOK_S", 0.005)


async def test_an_answered_call_is_told_to_its_end(tmp_path: Path) -> None:
    following = Following(tmp_path, FakeOutbound("one", "two"))
    async with following.begun() as task:
        following.outbound.legs[0].refuses(503, "No")
        leg = await following.outbound.leg(2)
        leg.progress(180)
        leg.tell(LegProgress(code=183, media=True))
        leg.picks_up()
        await until(lambda: any("answered" in line for line in following.lines))
        leg.peer_leaves()
        assert await task is True
    words = [line.partition(" after ")[0] for line in following.lines]
    assert words[:4] == [
        "fault: trunk one: 503 No; the next one is tried",
        "ringing (180)",
        "early media (183)",
        "answered",
    ]
    assert words[4].startswith("ended: callee_hangup (200): 200 Normal, ")


async def test_a_refused_call_is_told_and_was_not_answered(tmp_path: Path) -> None:
    following = Following(tmp_path, FakeOutbound())
    async with following.begun() as task:
        following.outbound.legs[0].refuses(486, "Busy\x1b[2J")
        assert await task is False
    assert following.lines == ["ended: busy (486): 486 Busy·[2J"]


async def test_a_tenant_without_a_place(tmp_path: Path) -> None:
    following = Following(tmp_path, FakeOutbound(), FakeLimits(free=0))
    async with following.begun() as task:
        assert await task is False
    assert following.lines == [
        "no place left in tenant/acme, which has 3",
        "ended: limit (486): tenant/acme has 3 calls",
    ]


async def test_an_interruption_hangs_up_and_tells_the_end(tmp_path: Path) -> None:
    following = Following(tmp_path, FakeOutbound())
    async with following.begun() as task:
        following.interrupted.set()
        assert await task is False
    assert following.lines == ["ended: operator_hangup (480): sipserver dial"]


async def test_a_call_whose_server_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "SILENT_S", 0.02)
    monkeypatch.setattr(dial, "LAST_WORD_S", 0.02)
    following = Following(tmp_path, FakeOutbound())
    async with following.begun() as task:
        await asyncio.sleep(0.1)
        assert not task.done()
        following.console.gone = True
        with pytest.raises(dial.Unreachable, match="lives no longer"):
            await task


# --- a fleet ----------------------------------------------------------------------------------------------------------


class Cell:
    """A cell on the bus. answers: its id for the call, or what it raises."""

    def __init__(self, hub: Hub, name: str, answers: str | Exception, calls: int = 0) -> None:
        self.bus = MemoryBus(node="m1", run=name, hub=hub)
        self.answers, self.calls = answers, calls
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    async def open(self) -> None:
        await self.bus.leases.hold(f"run/{self.bus.run}", {"node": "m1", "name": self.bus.run, "calls": self.calls})
        await self.bus.commands.serve(f"run:{self.bus.run}", self._handle)

    async def _handle(self, verb: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append((verb, arguments))
        if isinstance(self.answers, Exception):
            raise self.answers
        return {"call": self.answers}


@asynccontextmanager
async def fleet(*facts: tuple[str, str | Exception, int]) -> AsyncIterator[tuple[Everywhere, list[Cell], Hub]]:
    hub = Hub()
    cells = [Cell(hub, name, answers, calls) for name, answers, calls in facts]
    for cell in cells:
        await cell.open()
    operator = MemoryBus(node="operator", run="operator", hub=hub)
    try:
        yield Everywhere(operator), cells, hub
    finally:
        for bus in (operator, *(cell.bus for cell in cells)):
            await bus.close()


async def test_cells_are_asked_until_one_has_a_leg_the_emptiest_first() -> None:
    full = CapacityError("all 4 calls are taken")
    async with fleet(("a", full, 1), ("b", "c1", 2), ("c", full, 0), ("d", "c2", 3)) as (server, cells, _):
        assert await server.originate(WANTED) == "c1"
        assert [len(cell.asked) for cell in cells] == [1, 1, 1, 0]
        assert cells[1].asked == [("originate", WANTED)]


@pytest.mark.parametrize(
    "problem", [NotFound("no tenant"), CarrierError("broken on the way")], ids=["wrong", "maybe under way"]
)
async def test_after_other_failures_no_other_cell_is_asked(problem: Exception) -> None:
    async with fleet(("a", problem, 0), ("b", "c1", 1)) as (server, cells, _):
        with pytest.raises(RemoteError):
            await server.originate(WANTED)
        assert not cells[1].asked


async def test_no_cell_can_place_the_call() -> None:
    full = CapacityError("all 4 calls are taken")
    async with fleet(("a", full, 1), ("b", full, 2)) as (server, _, _hub):
        with pytest.raises(CapacityError, match="no cell can place the call: all 4 calls are taken"):
            await server.originate(WANTED)
    async with fleet() as (server, _, _hub):
        with pytest.raises(CapacityError, match="no cell of the fleet runs"):
            await server.originate(WANTED)


async def test_a_cell_that_has_just_died_is_passed_over() -> None:
    async with fleet(("b", "c1", 2)) as (server, _, hub):
        dead = MemoryBus(node="m1", run="a", hub=hub)
        await dead.leases.hold("run/a", {"calls": 0})
        assert await server.originate(WANTED) == "c1"


async def test_a_call_of_the_fleet_is_found_by_its_lease() -> None:
    async with fleet(("a", "c1", 1)) as (server, cells, _):
        with pytest.raises(NotFound):
            await server.ask("c1", "status")
        await cells[0].bus.leases.hold("call/c1", {"run": "a"})
        await server.ask("c1", "status")
        await server.ask("c1", "hangup", detail="sipserver dial")
        assert [verb for verb, _ in cells[0].asked] == ["status", "hangup"]
