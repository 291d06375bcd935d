"""The records writer: from the bus to the database, whoever dies, stops or hangs on the way."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from sipserver import events, spool
from sipserver.bus import table
from sipserver.bus.contract import Bus
from sipserver.bus.memory import Hub, MemoryBus
from sipserver.bus.settings import BusSettings
from sipserver.calls.keyring import Keyring
from sipserver.calls.sealed_writer import SealedWriter
from sipserver.calls.sound_files import open_sound
from sipserver.calls.wav import WavWriter, header
from sipserver.fleet import takeover as takeover_module
from sipserver.fleet import writer as writer_module
from sipserver.fleet.takeover import WriterReplaced
from sipserver.fleet.writer import Writer
from sipserver.journal import Entry, Kind
from sipserver.store import database as database_module
from sipserver.store.reader import CallRow, open_reader
from sipserver.store.records import Records
from sipserver.store.settings import StoreSettings
from tests.fakes.told import start
from tests.fakes.told import tell as digit
from tests.servers.postgres import Postgres
from tests.servers.redis import RedisServer
from tests.store.told import gone, mixed, one_call, unfinished

LEASE_S = 1.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "CONNECT_S", 0.5)
    monkeypatch.setattr(database_module, "ANSWER_S", 0.5)
    monkeypatch.setattr(writer_module, "PAUSE_S", (0.05, 0.2))
    monkeypatch.setattr(writer_module, "LOOK_S", 0.1)
    monkeypatch.setattr(writer_module, "SETTLE_S", 0.2)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


class Fleet:
    """Buses, and writers that run, on one bus and one database. `entries`: what the writers observed. `opened`: the
    machines whose writers found the database there."""

    def __init__(self, folder: Path, settings: StoreSettings, redis_url: str) -> None:
        self.folder, self.settings = folder, settings
        self.bus_settings = BusSettings(url=redis_url, prefix=uuid.uuid4().hex, spool=folder / "spool", lease_s=LEASE_S)
        self.hub = Hub()
        self.ring: Keyring | None = None
        self.entries: list[Entry] = []
        self.opened: list[str] = []
        self._buses: list[Bus] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def bus(self, node: str = "one", run: str = "") -> Bus:
        run = run or uuid.uuid4().hex
        if self.bus_settings.url:
            settings = self.bus_settings.model_copy(update={"spool": self.folder / "spool" / node})
            made = table.make(settings, node=node, run=run)
        else:
            made = MemoryBus(node=node, run=run, hub=self.hub)
        await made.open()
        self._buses.append(made)
        return made

    async def cell(self, node: str = "one", run: str = "r1") -> Bus:
        """A bus with the leases of a cell and its supervisor."""
        bus = await self.bus(node, run)
        await bus.leases.hold(f"run/{run}", {"node": node})
        await bus.leases.hold(f"node/{node}", {})
        return bus

    async def writer(
        self, node: str = "one", bus: Bus | None = None, *, ready: bool = True
    ) -> tuple[Writer, asyncio.Task[None]]:
        """It reads its journal when this returns; ready: and has the database."""
        made = Writer(
            bus or await self.bus(node),
            self.settings,
            lease_s=self.bus_settings.lease_s,
            spool=self.folder / "records" / node,
            on_entry=self.entries.append,
            on_open=lambda: self.opened.append(node),
            ring=self.ring,
        )
        task = asyncio.create_task(made.run(), name="writer")
        self._tasks.append(task)
        await until(lambda: (node in made.reading and made.ready >= ready) or task.done())
        return made, task

    async def calls(self) -> dict[str, CallRow]:
        async with open_reader(self.settings) as reader:
            return {row.id: row for row in await reader.list(1000)}

    async def kinds(self, call_id: str) -> list[str]:
        async with open_reader(self.settings) as reader:
            return [event.kind for event in await reader.events(call_id)]

    async def closed(self, *call_ids: str, timeout_s: float = 10) -> dict[str, CallRow]:
        """All calls, once these have an end."""
        found: dict[str, CallRow] = {}

        async def over() -> bool:
            found.update(await self.calls())
            return all(call_id in found and found[call_id].ended_at is not None for call_id in call_ids)

        await until_so(over, timeout_s)
        return found

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for bus in self._buses:
            await bus.close()


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    async def ask() -> bool:
        return condition()

    await until_so(ask, timeout_s)


async def until_written(writer: Writer, count: int) -> None:
    await until(lambda: writer.written >= count)


async def until_so(condition: Callable[[], Awaitable[bool]], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110  what others write tells nothing of its own accord
            await asyncio.sleep(0.01)


def tell(bus: Bus, entries: Sequence[Entry]) -> None:
    for entry in entries:
        bus.journal.tell(entry)


async def killed(task: asyncio.Task[None]) -> None:
    """As far as the database sees: nothing more is written, wherever it was."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(params=["memory-sqlite", "redis-postgresql"])
async def fleet(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres, redis_server: RedisServer
) -> AsyncIterator[Fleet]:
    memory = request.param == "memory-sqlite"
    url = f"sqlite+aiosqlite:///{tmp_path}/records.db" if memory else postgres.url(postgres.database())
    made = Fleet(tmp_path, StoreSettings(url=url, flush_ms=10), "" if memory else redis_server.url)
    yield made
    await made.close()


@pytest.fixture
async def real(tmp_path: Path, postgres: Postgres, redis_server: RedisServer) -> AsyncIterator[Fleet]:
    """Redis and PostgreSQL."""
    made = Fleet(tmp_path, StoreSettings(url=postgres.url(postgres.database()), flush_ms=10), redis_server.url)
    yield made
    await made.close()


# --- the way of an entry ----------------------------------------------------------------------------------------------


async def test_what_cells_tell_is_written_and_forgotten_by_the_bus(fleet: Fleet) -> None:
    writer, _ = await fleet.writer()
    one, two = await fleet.cell(run="r1"), await fleet.cell(run="r2")
    tell(one, one_call("c1", run="r1"))
    tell(two, one_call("c2", run="r2"))
    calls = await fleet.closed("c1", "c2")
    assert {(row.node, row.run, row.end_reason, row.events) for row in calls.values()} == {
        ("one", "r1", "caller_hangup", 8),
        ("one", "r2", "caller_hangup", 8),
    }
    await until(lambda: writer.lag_entries == 0)
    assert (writer.failures, writer.lost, writer.strays, writer.spooled, writer.lag_s) == (0, 0, 0, 0, 0)
    assert writer.written == len(fleet.entries) == 2 * len(one_call())
    await writer.close()
    fleet.entries.clear()
    following, _ = await fleet.writer()
    tell(one, one_call("c3", run="r1"))
    await fleet.closed("c3")
    assert {entry.call_id for entry in fleet.entries} == {"c3"}
    await following.close()


async def test_what_somebody_waits_for_is_written_at_once(real: Fleet) -> None:
    real.settings = real.settings.model_copy(update={"flush_ms": 3_600_000})
    writer, _ = await real.writer()
    cell = await real.cell()
    told = one_call("c1")
    for count in (2, 4, 6):  # the first after quiet, and those that follow a transaction
        cell.journal.tell(told[count - 2])
        cell.journal.tell(told[count - 1], soon=True)
        await until_written(writer, count)
    assert (await real.calls())["c1"].events == sum(each.kind is Kind.EVENT for each in told[:6])


async def test_writers_that_are_killed_again_and_again_lose_and_double_nothing(fleet: Fleet) -> None:
    cell = await fleet.cell()
    names = [f"c{number}" for number in range(8)]
    entries = mixed(*(one_call(name, digits=30) for name in names))
    step = len(entries) // 6 + 1
    for number in range(6):
        bus = await fleet.bus()
        _, task = await fleet.writer(bus=bus)
        tell(cell, entries[number * step : (number + 1) * step])
        await asyncio.sleep(0.02 * number)  # a different moment each time, before, in or after a transaction
        await killed(task)
    await fleet.writer()
    calls = await fleet.closed(*names)
    assert {(row.digits, row.events, row.events_dropped) for row in calls.values()} == {(30, 35, 0)}
    wanted = [entry.fields["kind"] for entry in one_call(digits=30) if entry.kind is Kind.EVENT]
    for name in names:
        assert await fleet.kinds(name) == wanted


async def test_close_writes_what_is_on_its_way(fleet: Fleet) -> None:
    writer, task = await fleet.writer()
    cell = await fleet.cell()
    tell(cell, one_call(digits=300))
    await cell.journal.flush(5)
    await writer.close()
    assert (await fleet.calls())["c1"].end_reason == "caller_hangup"
    await task
    assert writer.reading == []


# --- a database that is away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stopped", "paused"])
async def test_while_the_database_is_away_redis_stays_small_and_all_follows(
    real: Fleet, postgres: Postgres, how: str
) -> None:
    writer, task = await real.writer()
    cell = await real.cell()
    entries = one_call(digits=1500)
    tell(cell, entries[:500])
    await until(lambda: writer.written >= 500)
    with getattr(postgres, how)():
        tell(cell, entries[500:1000])
        await until(lambda: writer.spooled == 500)
        assert writer.failures + writer.lag_entries > 500
        assert writer.lag_s > 1000  # as old as the told times say
        assert await cell.journal.flush(5)
        await killed(task)
        writer, task = await real.writer(ready=False)
        await until(lambda: writer.spooled == 500)  # it opens its spool soon after it begins to read
        tell(cell, entries[1000:])
        await until(lambda: writer.spooled == len(entries) - 500)
        assert real.opened == ["one"], "by the first writer"
    row = (await real.closed("c1"))["c1"]
    assert (row.digits, row.events, row.events_dropped) == (1500, 1505, 0)
    await until(lambda: writer.lag_entries == 0)
    assert len(real.entries) == len(entries)
    assert real.opened == ["one"] * 2
    await writer.close()
    assert not list((real.folder / "records").rglob("*.jsonl"))


async def test_what_neither_database_nor_disk_takes_stays_on_the_bus(
    real: Fleet, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    writer, task = await real.writer()
    cell = await real.cell()
    with monkeypatch.context() as patched, postgres.stopped():
        patched.setattr(spool.Spool, "append", full)
        tell(cell, one_call())
        await until(lambda: writer.failures + writer.lag_entries > 0)
        await killed(task)
    await real.writer()
    assert (await real.closed("c1"))["c1"].events == 8


async def test_a_database_that_refuses_us_ends_the_writer_with_a_remedy(real: Fleet, postgres: Postgres) -> None:
    real.settings = StoreSettings(url=postgres.url("missing"), flush_ms=10)
    cell = await real.cell()
    tell(cell, one_call())
    _, task = await real.writer()
    with pytest.raises(Exception, match="createdb"):
        await task


# --- processes and machines that die ----------------------------------------------------------------------------------


def half_a_recording(path: Path) -> None:
    """As a killed process leaves it: the header says nothing of the sound behind it."""
    wav = WavWriter(path, 1)
    wav.write(bytes(32_000))
    wav.close()
    with path.open("r+b") as file:
        file.write(header(1, 0))


async def test_calls_of_a_dead_process_are_closed_and_their_recordings_mended(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "c1.wav"
    half_a_recording(path)
    writer, _ = await fleet.writer()
    cell = await fleet.cell(run="r1")
    other = await fleet.cell(run="r2")
    facts = {"path": str(path), "status": "recording"}
    tell(cell, [*unfinished(), Entry(Kind.RECORDING, "one", "r1", "c1", 1.0, facts)])
    tell(cell, unfinished("elsewhere"))
    tell(other, unfinished("c2", run="r2"))
    await until(lambda: writer.written == len(fleet.entries) > 20)
    tell(other, [gone("r1")])
    calls = await fleet.closed("c1", "elsewhere")
    assert calls["c2"].ended_at is None
    assert calls["elsewhere"].recording_status == "failed"
    await until_so(lambda: status_is(fleet, "c1", "complete"))
    assert calls["c1"].end_reason == "crash"
    assert int.from_bytes(path.read_bytes()[40:44], "little") == 32_000
    await writer.close()


async def test_an_encrypted_recording_is_mended_once_its_key_is_there(fleet: Fleet, tmp_path: Path) -> None:
    path, ring = tmp_path / "c1.wav.enc", Keyring({"a": bytes(range(32))})
    sealed = SealedWriter(path, 1, "acme", ring)
    sealed.write(bytes(40_000))
    sealed.close()
    path.write_bytes(path.read_bytes()[:-100])
    writer, _ = await fleet.writer()
    cell = await fleet.cell(run="r1")
    other = await fleet.cell(run="r2")
    facts = {"path": str(path), "status": "recording"}
    tell(cell, [*unfinished(), Entry(Kind.RECORDING, "one", "r1", "c1", 1.0, facts)])
    tell(other, unfinished("c2", run="r2"))
    tell(other, [gone("r1")])
    await fleet.closed("c1")
    await until_so(lambda: status_is(fleet, "c1", "failed"))
    await writer.close()
    fleet.ring = ring
    writer, _ = await fleet.writer()
    await until_so(lambda: status_is(fleet, "c1", "complete"))
    with open_sound(path, ring, tenant="acme") as sound:
        assert sound.read()[44:] == bytes(32_000)
    await writer.close()


async def status_is(fleet: Fleet, call_id: str, status: str) -> bool:
    return (await fleet.calls())[call_id].recording_status == status


async def test_what_an_earlier_writer_did_not_mend_is_mended_at_the_next_start(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "c1.wav"
    writer, _ = await fleet.writer()
    cell = await fleet.cell()
    facts = {"path": str(path), "status": "recording"}
    tell(cell, [*unfinished(), Entry(Kind.RECORDING, "one", "r1", "c1", 1.0, facts), gone()])
    await fleet.closed("c1")
    await writer.close()
    assert await status_is(fleet, "c1", "failed")
    half_a_recording(path)
    await fleet.writer()
    await until_so(lambda: status_is(fleet, "c1", "complete"))


async def test_a_silent_process_of_a_living_machine_is_closed(fleet: Fleet) -> None:
    writer, _ = await fleet.writer()
    supervisor = await fleet.cell(run="supervisor")
    cell = await fleet.cell(run="r1")
    tell(cell, unfinished())
    tell(supervisor, unfinished("alive", run="supervisor"))
    await until(lambda: writer.written > 10)
    await cell.journal.flush(5)
    await cell.forget_run("r1") if not fleet.bus_settings.url else await cell.close()
    calls = await fleet.closed("c1")
    assert calls["c1"].end_reason == "crash"
    assert calls["alive"].ended_at is None


async def test_nobody_is_thought_dead_while_the_bus_is_away(own_redis: RedisServer, real: Fleet) -> None:
    real.bus_settings = real.bus_settings.model_copy(update={"url": own_redis.url})
    writer, _ = await real.writer()
    cell = await real.cell()
    tell(cell, unfinished())
    await until(lambda: writer.written > 5)
    own_redis.stop()
    await asyncio.sleep(2.5 * LEASE_S)  # longer than any patience
    own_redis.start()
    await until(lambda: cell.up)
    await asyncio.sleep(2 * LEASE_S)
    assert (await real.calls())["c1"].ended_at is None
    tell(cell, one_call()[len(unfinished()) :])
    assert (await real.closed("c1"))["c1"].end_reason == "caller_hangup"


MACHINE = """
import asyncio, sys
from pathlib import Path
from sipserver.bus import table
from sipserver.bus.settings import BusSettings
from sipserver.fleet.writer import Writer
from sipserver.store.settings import StoreSettings
from tests.store.told import unfinished

async def main(redis, prefix, folder, database, lease_s):
    settings = BusSettings(url=redis, prefix=prefix, spool=Path(folder), lease_s=lease_s)
    cell = table.make(settings, node="two", run="r2")
    await cell.open()
    await cell.leases.hold("node/two", {})
    await cell.leases.hold("run/r2", {})
    bus = table.make(settings, node="two", run="w2")
    await bus.open()
    writer = Writer(bus, StoreSettings(url=database, flush_ms=10), lease_s=float(lease_s), spool=Path(folder))
    writing = asyncio.create_task(writer.run())
    for entry in unfinished("written", node="two", run="r2"):
        cell.journal.tell(entry)
    while writer.written < 5:
        await asyncio.sleep(0.01)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await bus.leases.hold("writer/two", {"node": "two", "run": "w2"})
    for entry in unfinished("unwritten", node="two", run="r2"):
        cell.journal.tell(entry)
    await cell.journal.flush(5)
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main(*sys.argv[1:]))
"""


async def says_ready(process: subprocess.Popen[str]) -> None:
    """After what it logs. Our own leases are renewed meanwhile."""
    lines = process.stdout
    assert lines is not None
    assert await asyncio.to_thread(lambda: "ready\n" in lines)


@contextlib.asynccontextmanager
async def machine(fleet: Fleet, lease_s: float) -> AsyncIterator[Callable[[], None]]:
    """Another machine with two calls, one of which nobody has written; gives what kills it."""
    where = (fleet.bus_settings.url, fleet.bus_settings.prefix, str(fleet.folder / "two"), fleet.settings.url)
    root = Path(__file__).parents[2]
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", MACHINE, *where, str(lease_s)], stdout=subprocess.PIPE, cwd=root, text=True
    ) as process:

        def kill() -> None:
            process.send_signal(signal.SIGKILL)
            process.wait()

        try:
            await says_ready(process)
            yield kill
        finally:
            kill()


async def test_a_dead_machine_is_taken_over_and_given_back(real: Fleet) -> None:
    writer, _ = await real.writer()
    await real.cell()
    async with machine(real, LEASE_S) as kill:
        await asyncio.sleep(LEASE_S)
        assert writer.reading == ["one"]
        assert set(await real.calls()) == {"written"}
        kill()
        calls = await real.closed("written", "unwritten")
    assert {(row.node, row.end_reason, row.events) for row in calls.values()} == {("two", "crash", 7)}
    assert writer.reading == ["one", "two"]
    back = await real.cell("two", "r3")
    following, _ = await real.writer("two")
    assert writer.reading == ["one"]
    tell(back, one_call("c3", node="two", run="r3"))
    await real.closed("c3")
    assert following.written == len(one_call())


async def test_a_dead_machine_s_calls_are_closed_within_ten_seconds_by_the_usual_settings(
    real: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "LOOK_S", 1.0)
    usual = BusSettings().lease_s
    real.bus_settings = real.bus_settings.model_copy(update={"lease_s": usual})
    await real.writer()
    await real.cell()
    async with machine(real, usual) as kill:
        kill()
        died = time.monotonic()
        await real.closed("written", "unwritten", timeout_s=20)
        assert time.monotonic() - died < 10


WRITER = """
import asyncio, sys
from pathlib import Path
from sipserver.bus import table
from sipserver.bus.settings import BusSettings
from sipserver.fleet.writer import Writer
from sipserver.store.settings import StoreSettings

async def main(redis, prefix, folder, database, run):
    settings = BusSettings(url=redis, prefix=prefix, spool=Path(folder), lease_s=1)
    bus = table.make(settings, node="one", run=run)
    await bus.open()
    writer = Writer(bus, StoreSettings(url=database, flush_ms=10), lease_s=1, spool=Path(folder) / "records")
    running = asyncio.create_task(writer.run())
    while not writer.ready:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    try:
        await running
    finally:
        await bus.close()

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def writer_process(fleet: Fleet, run: str) -> AsyncIterator[subprocess.Popen[str]]:
    """One that is ready; killed in the end."""
    where = (fleet.bus_settings.url, fleet.bus_settings.prefix, str(fleet.folder / "own"), fleet.settings.url)
    command = [sys.executable, "-c", WRITER, *where, run]
    pipe, root = subprocess.PIPE, Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, cwd=root, text=True) as process:  # noqa: ASYNC220
        try:
            await says_ready(process)
            yield process
        finally:
            process.kill()
            process.wait()


async def test_kill_9_at_any_moment_loses_and_doubles_nothing(real: Fleet) -> None:
    cell = await real.cell()
    names = [f"c{number}" for number in range(6)]
    entries = mixed(*(one_call(name, digits=100) for name in names))
    step = len(entries) // 4 + 1
    for number in range(4):
        async with writer_process(real, f"w{number}"):
            tell(cell, entries[number * step : (number + 1) * step])
            await asyncio.sleep(0.16 + 0.02 * number)  # about when the journal is sent, read, written
        await cell.forget_run(f"w{number}")
    await real.writer()
    calls = await real.closed(*names)
    assert {(row.digits, row.events, row.events_dropped) for row in calls.values()} == {(100, 105, 0)}
    wanted = [entry.fields["kind"] for entry in one_call(digits=100) if entry.kind is Kind.EVENT]
    assert [await real.kinds(name) for name in names] == [wanted] * 6


async def test_a_writer_that_hangs_is_replaced_and_undoes_nothing_when_it_goes_on(real: Fleet) -> None:
    cell = await real.cell()
    entries = one_call(digits=100)
    async with writer_process(real, "hangs") as process:
        tell(cell, entries[:50])
        await until_so(lambda: has_events(real, 40))
        tell(cell, entries[50:60])
        await cell.journal.flush(5)
        process.send_signal(signal.SIGSTOP)
        await real.writer()
        tell(cell, entries[60:])
        before = await real.closed("c1")
        process.send_signal(signal.SIGCONT)
        assert await asyncio.to_thread(process.wait, 20) == 1
        assert process.stderr is not None
        assert "WriterReplaced" in process.stderr.read()
    assert await real.calls() == before
    assert before["c1"].events == 105


async def has_events(fleet: Fleet, count: int) -> bool:
    calls = await fleet.calls()
    return "c1" in calls and calls["c1"].events >= count


async def test_a_machine_that_is_not_on_this_bus_is_given_much_time(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be another server that shares the database: while it writes, its calls are not touched."""
    monkeypatch.setattr(takeover_module, "STRANGER_S", 0.7)
    writer, _ = await fleet.writer()
    other = Records(fleet.settings, node="stranger")
    await other.open()
    start(other, "c1")
    for _ in range(15):
        digit(other, events.DigitReceived("1"), "c1")
        await other.flush()
        await asyncio.sleep(0.1)
    assert (await fleet.calls())["c1"].ended_at is None
    assert "stranger" in writer.reading
    calls = await fleet.closed("c1")
    assert calls["c1"].end_reason == "crash"
    await other.close()


async def test_a_writer_that_was_replaced_ends(fleet: Fleet) -> None:
    writer, task = await fleet.writer()
    other = await fleet.bus()
    await other.leases.hold("writer/one", {"node": "one", "run": other.run})
    with pytest.raises(WriterReplaced):
        await task
    assert writer.reading == []
