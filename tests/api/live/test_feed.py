"""The feed of a tenant on real databases: live events that get lost, come late or twice, and clients that come and go.

Whatever happens on the way, each client has every event after its cursor once, each run's in order.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
from aiohttp import web

from sipserver import events
from sipserver.api.live import feed as feeding
from sipserver.api.live import listener as listening
from sipserver.api.live.cursor import Cursor
from sipserver.api.live.feed import Feed, now_us
from sipserver.api.live.listener import Listener, Wanted
from sipserver.bus.chain import Chain
from sipserver.bus.once import MemoryOnce
from sipserver.events.catalogue import message_schema
from sipserver.gate.gate import Gate
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Tokens
from sipserver.journal import Entry, Kind
from sipserver.store.database import Database
from sipserver.store.feed_rows import FeedRows
from sipserver.store.journal_sink import JournalSink
from sipserver.store.ledger import Ledger
from sipserver.store.settings import StoreSettings
from sipserver.store.tenant_events import TenantEvents
from tests.fakes.told import start, tell
from tests.fakes.until import until
from tests.servers.postgres import Postgres

PATIENCE_S = 15.0


class Run:
    """A process that has calls. told: what it told and nobody has written yet."""

    def __init__(self, name: str, world: World, tenant: str = "acme") -> None:
        self._world, self._tenant, self._chain = world, tenant, Chain()
        self.told: list[Entry] = []
        self.sink = JournalSink("here", name, self._tell)
        self.number = 0

    def call(self, call_id: str) -> None:
        start(self.sink, call_id, tenant=self._tenant)

    def tell(self, call_id: str, *, lost: bool = False) -> None:
        """An event; lost: the bus does not deliver it."""
        self._lost = lost
        self.number += 1
        tell(self.sink, events.DigitReceived(str(self.number)), call_id, tenant=self._tenant, at_ms=self.number)

    def _tell(self, entry: Entry) -> None:
        self.told.append(entry)
        link = self._chain.link(entry)
        if link is not None and not self._lost:
            self._world.deliver(entry, link[1])

    _lost = False


class World:
    """A database with its writer, a bus that may lose things, a feed, and a gate for its clients."""

    def __init__(self, settings: StoreSettings) -> None:
        self.database = Database(settings)
        self.ledger, self.rows = Ledger(self.database), FeedRows(self.database)
        self.heard: Callable[[Entry, int], None] | None = None
        self.chain, self.deaf = Chain(), False
        self.beside = TenantEvents(self.database, "here", self.tell)
        self.feed = Feed("acme", self.rows)
        self.gate = Gate(GateSettings(), Tokens(b"x" * 32, MemoryOnce()))
        self.session: aiohttp.ClientSession | None = None
        self.url = ""

    def deliver(self, entry: Entry, before_us: int) -> None:
        if self.heard is not None and entry.fields["tenant"] == "acme":
            self.heard(entry, before_us)

    async def hear(self, _tenant: str, heard: Callable[[Entry, int], None]) -> World:
        self.heard = heard
        return self

    def tell(self, entry: Entry) -> None:
        """What belongs to no call, as a bus takes it from the process that has noted it."""
        link = self.chain.link(entry)
        if link is not None and not self.deaf:
            self.deliver(entry, link[1])

    async def close(self) -> None:
        self.heard = None

    async def write(self, *runs: Run, count: int | None = None) -> None:
        for run in runs:
            part, run.told = run.told[:count], [] if count is None else run.told[count:]
            await self.ledger.apply(part)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        after = request.query.get("after", "")
        since = Cursor.parse(after, now_us()) if after else None
        async with self.gate.open(request, kind="events") as connection:
            client = Listener(connection, "acme", Wanted())
            reached = self.feed.reached()
            self.feed.add(client)
            work = asyncio.create_task(client.catch_up(since, reached, self.feed.reached, self.rows))
            async for _ in connection:
                pass
            self.feed.remove(client)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return connection.response

    @asynccontextmanager
    async def open(self) -> AsyncIterator[World]:
        app = web.Application()
        app.add_routes([web.get("/", self._serve)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self.database.open()
        await self.feed.open(self)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"ws://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession() as self.session:
            yield self
        await self.gate.close_all()
        await runner.cleanup()
        await self.feed.close()
        await self.database.close()


class Client:
    """Reads from a cursor on until it is told to stop."""

    def __init__(self, world: World, after: str = "") -> None:
        self._world, self.cursor = world, after
        self.heard: list[tuple[str, int]] = []
        self.live = False
        self._task: asyncio.Task[None] | None = None

    async def _read(self) -> None:
        assert self._world.session is not None
        query = {"after": self.cursor} if self.cursor else {}
        async with self._world.session.ws_connect(self._world.url, params=query) as socket:
            async for message in socket:
                told: dict[str, Any] = json.loads(message.data)
                self.cursor = told["cursor"]
                if told["kind"] == listening.LIVE:
                    self.live = True
                elif "seq" in told:
                    self.heard.append((told["call_id"], told["seq"]))

    def begin(self) -> Client:
        self.live = False
        self._task = asyncio.create_task(self._read(), name="client")
        return self

    async def is_live(self) -> None:
        await until(lambda: self.live, "live")

    async def stop(self) -> None:
        """Break off in the middle."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def has(self, expected: Sequence[tuple[str, int]]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while len(self.heard) < len(expected):
            assert time.monotonic() < deadline, f"{sorted(set(expected) - set(self.heard))} are missing"
            await asyncio.sleep(0.01)
        assert sorted(self.heard) == sorted(expected)
        for call_id in {call_id for call_id, _ in expected}:
            seqs = [seq for each, seq in self.heard if each == call_id]
            assert seqs == sorted(seqs), "in order"


@pytest.fixture(params=["sqlite", "postgresql"])
async def world(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> AsyncIterator[World]:
    url = f"sqlite+aiosqlite:///{tmp_path}/feed.db"
    if request.param == "postgresql":
        url = postgres.url(postgres.database())
    async with World(StoreSettings(url=url)).open() as made:
        yield made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feeds that are opened afterwards remind their clients at once."""
    monkeypatch.setattr(feeding, "FAR_S", 0.0)
    monkeypatch.setattr(feeding, "LOOK_S", 0.05)


@pytest.mark.usefixtures("hasty")
async def test_whoever_hears_nothing_is_told_a_cursor_as_the_catalogue_says(world: World) -> None:
    assert world.session is not None
    async with world.session.ws_connect(world.url) as socket:
        told = [await socket.receive_json(timeout=PATIENCE_S) for _ in range(2)]
    assert [each["kind"] for each in told] == [listening.LIVE, listening.CURSOR]
    for each in told:
        jsonschema.validate(each, message_schema())


async def test_live_events_come_before_they_are_written(world: World) -> None:
    run, client = Run("a1", world), Client(world).begin()
    await client.is_live()
    run.call("c1")
    for _ in range(5):
        run.tell("c1")
    await client.has([("c1", seq) for seq in range(5)])
    await client.stop()


async def test_what_the_bus_loses_comes_from_the_database_in_its_place(world: World) -> None:
    run, client = Run("a1", world), Client(world).begin()
    await client.is_live()
    run.call("c1")
    for number in range(12):
        run.tell("c1", lost=number in (3, 4, 7))
    await until(lambda: len(client.heard) >= 3)
    assert client.heard == [("c1", seq) for seq in range(3)], "the rest waits for what is missing"
    await world.write(run)
    await client.has([("c1", seq) for seq in range(12)])
    await client.stop()


async def test_the_last_word_comes_also_when_the_bus_loses_it(world: World) -> None:
    run, client = Run("a1", world), Client(world).begin()
    await client.is_live()
    run.call("c1")
    run.tell("c1")
    run.tell("c1", lost=True)
    await world.write(run)
    await client.has([("c1", 0), ("c1", 1)])
    await client.stop()


async def test_the_end_of_a_call_whose_process_died_is_told(world: World) -> None:
    run, client = Run("a1", world), Client(world).begin()
    await client.is_live()
    run.call("c1")
    run.tell("c1")
    await world.write(run)
    await world.ledger.apply([Entry(Kind.RUN_GONE, "here", "a1", "", time.time(), {"detail": "SIGKILL"})])
    await client.has([("c1", 0), ("c1", 1)])
    await client.stop()


async def test_who_comes_back_gets_what_happened_meanwhile_and_then_goes_on_live(world: World) -> None:
    run, client = Run("a1", world), Client(world).begin()
    await client.is_live()
    run.call("c1")
    run.tell("c1")
    await client.has([("c1", 0)])
    await client.stop()
    for _ in range(3):
        run.tell("c1")
    await world.write(run, count=3)
    client.begin()
    await until(lambda: len(client.heard) >= 2)
    assert not client.live, "others have heard what the database does not have yet"
    run.tell("c1")
    await world.write(run)
    await client.is_live()
    run.tell("c1")
    await client.has([("c1", seq) for seq in range(6)])
    await client.stop()


async def test_one_who_was_never_there_hears_nothing_of_before(world: World) -> None:
    run = Run("a1", world)
    run.call("c1")
    run.tell("c1")
    await world.write(run)
    client = Client(world).begin()
    await client.is_live()
    run.tell("c1")
    await client.has([("c1", 1)])
    await client.stop()


async def test_many_events_while_a_client_catches_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HELD", 10)
    monkeypatch.setattr(listening, "PAGE", 7)
    run, client = Run("a1", world), Client(world).begin()
    await client.is_live()
    await client.stop()
    run.call("c1")
    for _ in range(50):
        run.tell("c1")
    client.begin()
    for _ in range(20):
        run.tell("c1")
        await asyncio.sleep(0)
        await world.write(run, count=2)
    await world.write(run)
    await client.is_live()
    run.tell("c1")
    await client.has([("c1", seq) for seq in range(71)])
    await client.stop()


async def test_what_belongs_to_no_call_is_told_in_its_place_and_once(world: World) -> None:
    near = events.LimitNear("calls", "10", "8")
    run, client = Run("a1", world), Client(world).begin()
    await client.is_live()
    run.call("c1")
    run.tell("c1")
    await world.beside.add("acme", near)
    await world.beside.add("zenith", near)
    run.tell("c1")
    await client.has([("c1", 0), ("", 0), ("c1", 1)])
    assert client.heard[1] == ("", 0)
    await client.stop()
    await world.write(run)
    await world.beside.add("acme", near)
    world.deaf = True
    await world.beside.add("acme", near)
    client.begin()
    await client.is_live()
    await client.has([("c1", 0), ("", 0), ("c1", 1), ("", 0), ("", 0)])
    await world.beside.add("acme", near)
    await until(lambda: len(client.heard) == 6, "the bus has lost it, the database has it")
    world.deaf = False
    await client.stop()
    client.begin()
    await client.is_live()
    await world.beside.add("acme", near)
    await client.has([("c1", 0), ("", 0), ("c1", 1), *[("", 0)] * 4])
    await client.stop()


@pytest.mark.parametrize("seed", range(4))
async def test_any_course(world: World, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes, a bus that loses a third, a writer that lags, clients that break off anywhere; and a crowd,
    where a client is a crowd, that is told in turns.
    """
    lot = random.Random(seed)
    if seed % 2:
        monkeypatch.setattr(feeding, "AT_A_TIME", 1)
        monkeypatch.setattr(feeding, "TOGETHER", 2)
    runs = [Run(f"{number}" * 32, world) for number in (1, 2, 3)]
    strangers = Run("f" * 32, world, tenant="other")
    strangers.call("s")
    clients = [Client(world).begin() for _ in range(3)]
    for client in clients:
        await client.is_live()
    expected: list[tuple[str, int]] = []
    for index, run in enumerate(runs):
        run.call(f"c{index}")
        run.call(f"d{index}")
    counts = dict.fromkeys((f"{kind}{index}" for kind in "cd" for index in range(3)), 0)
    for _ in range(120):
        index = lot.randrange(3)
        call_id = f"{lot.choice('cd')}{index}"
        runs[index].tell(call_id, lost=lot.random() < 0.3)
        expected.append((call_id, counts[call_id]))
        counts[call_id] += 1
        strangers.tell("s")
        if lot.random() < 0.1:
            world.deaf = lot.random() < 0.3
            await world.beside.add("acme", events.LimitNear("calls", "10", "8"))
            expected.append(("", 0))
        if lot.random() < 0.2:
            await world.write(lot.choice(runs), count=lot.randrange(6))
            await world.write(strangers)
        if lot.random() < 0.1:
            client = lot.choice(clients)
            await client.stop()
            client.begin()
        if lot.random() < 0.3:
            await asyncio.sleep(0.002)
    await world.write(*runs)
    for client in clients:
        await client.has(expected)
        await client.stop()
