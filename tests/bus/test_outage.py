"""Redis goes away in the middle: nothing that was told is lost, and it comes in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from sipserver import spool
from sipserver.bus import redis_journal
from sipserver.bus.redis_bus import RedisBus
from sipserver.bus.settings import BusSettings
from sipserver.errors import BusDown
from sipserver.journal import Entry, Kind
from tests.bus.conftest import until
from tests.servers.redis import RedisServer


@pytest.fixture
def server(tmp_path: Path, free_port: int) -> Iterator[RedisServer]:
    """With appendonly, on a TCP port; not started."""
    made = RedisServer(tmp_path / "redis", port=free_port)
    yield made
    made.stop()


MakeRedisBus = Callable[..., Awaitable[RedisBus]]


@pytest.fixture
async def make(server: RedisServer, tmp_path: Path) -> AsyncIterator[MakeRedisBus]:
    """`await make(run, node="one", **settings)`: an open bus, closed after the test."""
    made: list[RedisBus] = []

    async def make_one(run: str, node: str = "one", **options: object) -> RedisBus:
        settings = BusSettings.model_validate({"url": server.url, "spool": tmp_path / "spool", "lease_s": 1, **options})
        made.append(RedisBus(settings, node=node, run=run))
        await made[-1].open()
        return made[-1]

    yield make_one
    for bus in made:
        await bus.close()


@pytest.fixture
def soon_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_journal, "SPOOL_AFTER_S", 0.05)
    monkeypatch.setattr(redis_journal, "PAUSE_S", 0.05)


def entry(run: str, number: int) -> Entry:
    return Entry(Kind.EVENT, "one", run, "c1", 0.0, {"seq": number})


def tell(bus: RedisBus, first: int, end: int) -> None:
    for number in range(first, end):
        bus.journal.tell(entry(bus.run, number))


async def numbers(bus: RedisBus, run: str, end: int, *, done: bool = True) -> list[int]:
    """What the journal holds of a run until the entry before `end`; repetitions left out, their order checked."""
    found: list[int] = []
    reader = bus.journal.read("one")
    async with asyncio.timeout(20):
        while not found or max(found) < end - 1:
            delivery = await anext(reader)
            for each in delivery.entries:
                if each.run != run:
                    continue
                number = each.fields["seq"]
                if number in found:
                    continue  # told again because an answer was lost
                assert not found or number == max(found) + 1, "out of order, or one is missing"
                found.append(number)
            if done:
                await delivery.done()
    await reader.aclose()
    return found


async def spooled(tmp_path: Path, *runs: str) -> None:
    async def there() -> bool:
        return spool.owners(tmp_path / "spool") == runs

    await until(there)


# --- the journal ------------------------------------------------------------------------------------------------------


async def test_refused_from_the_start(server: RedisServer, make: MakeRedisBus) -> None:
    bus = await make("r1")
    assert not bus.up
    tell(bus, 0, 10)
    server.start()
    assert await numbers(bus, "r1", 10) == list(range(10))
    assert bus.up


async def test_paused_in_the_middle(server: RedisServer, make: MakeRedisBus) -> None:
    server.start()
    bus = await make("r1")
    tell(bus, 0, 60)
    assert await numbers(bus, "r1", 60) == list(range(60))
    server.pause()
    tell(bus, 60, 120)

    async def noticed() -> bool:
        return not bus.up

    await until(noticed)
    tell(bus, 120, 130)
    server.resume()
    assert await numbers(bus, "r1", 130) == list(range(60, 130))


async def test_killed_and_restarted(server: RedisServer, make: MakeRedisBus) -> None:
    server.start()
    bus = await make("r1")
    tell(bus, 0, 100)
    assert await bus.journal.flush(5)
    server.kill()
    tell(bus, 100, 200)
    server.start()
    assert await numbers(bus, "r1", 200) == list(range(200))


@pytest.mark.usefixtures("soon_to_disk")
async def test_a_long_outage_goes_to_the_disk_and_comes_back_first(
    server: RedisServer, make: MakeRedisBus, tmp_path: Path
) -> None:
    bus = await make("r1")
    tell(bus, 0, 30)
    await spooled(tmp_path, "r1")
    assert bus.journal.depth == 30
    server.start()
    tell(bus, 30, 35)
    assert await numbers(bus, "r1", 35) == list(range(35))
    assert await bus.journal.flush(5)
    await spooled(tmp_path)


async def test_a_crowd_goes_to_the_disk_at_once(make: MakeRedisBus, tmp_path: Path) -> None:
    bus = await make("r1", queue=10)
    tell(bus, 0, 60)
    await spooled(tmp_path, "r1")
    assert bus.journal.depth == 60


async def test_a_flush_that_fails_leaves_everything_on_disk(
    server: RedisServer, make: MakeRedisBus, tmp_path: Path
) -> None:
    bus = await make("r1")
    tell(bus, 0, 20)
    assert not await bus.journal.flush(0.05)
    assert spool.owners(tmp_path / "spool") == ("r1",)
    await bus.close()
    server.start()
    heir = await make("r2")
    assert await heir.journal.adopt("r1") == 20
    assert await heir.journal.adopt("r1") == 0
    assert await numbers(heir, "r1", 20) == list(range(20))


def killed_after_spooling(server: RedisServer, tmp_path: Path) -> None:
    """A process that tells 50 entries of the run `dead` while Redis is away, and dies."""
    source = f"""
import asyncio, pathlib
from sipserver.bus import redis_journal, table
from sipserver.bus.settings import BusSettings
from sipserver.journal import Entry, Kind
redis_journal.SPOOL_AFTER_S = 0

async def main():
    settings = BusSettings(url={server.url!r}, spool=pathlib.Path({str(tmp_path / "spool")!r}))
    bus = table.make(settings, node="one", run="dead")
    await bus.open()
    for number in range(50):
        bus.journal.tell(Entry(Kind.EVENT, "one", "dead", "c1", 0.0, {{"seq": number}}))
    while bus.journal._outbox.in_memory:
        await asyncio.sleep(0.01)
    print("spooled", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert any(line == b"spooled\n" for line in process.stdout)
        os.kill(process.pid, signal.SIGKILL)


async def test_what_a_killed_process_had_spooled_is_adopted(
    server: RedisServer, make: MakeRedisBus, tmp_path: Path
) -> None:
    await asyncio.to_thread(killed_after_spooling, server, tmp_path)
    bus = await make("r1")
    adopting = asyncio.create_task(bus.journal.adopt("dead"))
    await asyncio.sleep(0.02)
    assert not adopting.done()
    server.start()
    assert await adopting == 50
    assert await numbers(bus, "dead", 50) == list(range(50))
    assert spool.owners(tmp_path / "spool") == ()


@pytest.mark.usefixtures("soon_to_disk")
async def test_no_redis_and_no_disk_holds_what_it_can_and_counts_the_rest(
    server: RedisServer, make: MakeRedisBus, tmp_path: Path
) -> None:
    bus = await make("r1", queue=10)
    (tmp_path / "spool").rmdir()
    (tmp_path / "spool").write_text("in the way")
    tell(bus, 0, 150)
    bus.journal.tell(Entry(Kind.CLOSED, "one", "r1", "c1", 0.0, {"seq": 100}))
    assert (bus.journal.depth, bus.journal.dropped) == (101, 50)
    server.start()
    assert await numbers(bus, "r1", 101) == list(range(101))


async def test_a_redis_that_refuses_counts_as_away(make: MakeRedisBus, server: RedisServer) -> None:
    server.start()
    bus = await make("r1")
    await bus._link.client.config_set("maxmemory", 1)
    tell(bus, 0, 5)
    assert not await bus.journal.flush(0.3)
    assert bus.up
    await bus._link.client.config_set("maxmemory", 0)
    assert await numbers(bus, "r1", 5) == list(range(5))


async def test_a_reader_takes_over_where_another_stopped(server: RedisServer, make: MakeRedisBus) -> None:
    server.start()
    one, two = await make("r1"), await make("r2")
    tell(one, 0, 60)
    assert await numbers(one, "r1", 60, done=False) == list(range(60))
    tell(one, 60, 120)
    assert await numbers(two, "r1", 120) == list(range(120))
    tell(one, 120, 121)
    assert await numbers(one, "r1", 121) == [120]


async def test_what_is_done_while_redis_is_away_is_not_told_again(server: RedisServer, make: MakeRedisBus) -> None:
    server.start()
    bus = await make("r1")
    tell(bus, 0, 60)
    reader = bus.journal.read("one")
    delivery = await anext(reader)
    server.kill()
    await delivery.done()
    server.start()
    tell(bus, 60, 61)
    last = await anext(reader)
    await last.done()
    await reader.aclose()
    stream = bus._link.key("journal", "one")
    assert await bus._link.client.xlen(stream) == 0
    assert (await bus._link.client.xpending(stream, "writer"))["pending"] == 0


@pytest.mark.usefixtures("soon_to_disk")
async def test_any_course_of_outages(server: RedisServer, make: MakeRedisBus) -> None:
    """Two processes tell while Redis is paused, killed and started again; one reads all the time."""
    chance = random.Random(4)
    server.start()
    tellers = [await make("r1", queue=20), await make("r2", queue=20)]
    reader = await make("r3")
    reading = asyncio.create_task(numbers(reader, "r1", 400))
    for step in range(20):
        for bus in tellers:
            tell(bus, step * 20, step * 20 + 20)
        match chance.choice(["nothing", "pause", "kill"]):
            case "pause":
                server.pause()
                await asyncio.sleep(chance.random() * 0.3)
                server.resume()
            case "kill":
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(chance.random() * 0.3)
                await asyncio.to_thread(server.start)
            case _:
                await asyncio.sleep(0.05)
    assert await reading == list(range(400))
    for bus in tellers:
        assert await bus.journal.flush(10)


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_leases_come_back_after_an_outage(server: RedisServer, make: MakeRedisBus) -> None:
    server.start()
    one, two = await make("r1"), await make("r2")
    await one.leases.hold("node/one", {"cells": 1})
    assert await one.leases.contend("writer/one", {"run": "r1"}) is not None
    server.kill()
    late = await one.leases.hold("run/r1", {"late": True})
    assert await two.leases.contend("writer/one", {"run": "r2"}) is None
    with pytest.raises(BusDown):
        await two.leases.find("")
    (server.folder / "appendonlydir").rename(server.folder / "lost")
    server.start()

    async def back() -> bool:
        try:
            return set(await two.leases.find("")) == {"node/one", "writer/one", "run/r1"}
        except BusDown:  # not yet, or leases may still be missing
            return False

    await until(back)
    await late.close()
    assert set(await two.leases.find("")) == {"node/one", "writer/one"}


async def test_the_lease_of_the_dead_runs_out_and_another_gets_it(server: RedisServer, make: MakeRedisBus) -> None:
    server.start()
    one, two = await make("r1"), await make("r2")
    lost = await one.leases.contend("writer/one", {"run": "r1"})
    assert lost is not None
    one.leases._task.cancel()  # type: ignore[union-attr]
    held = list(one.leases._held.values())

    async def taken_over() -> bool:
        return await two.leases.contend("writer/one", {"run": "r2"}) is not None

    await until(taken_over)
    await lost.close()
    assert await one.leases.get("writer/one") == {"run": "r2"}
    await one.leases._renew(held)
    assert await one.leases.get("writer/one") == {"run": "r2"}


async def test_a_lease_that_was_taken_over_is_not_taken_back(server: RedisServer, make: MakeRedisBus) -> None:
    server.start()
    one, two = await make("r1"), await make("r2")
    lost = await one.leases.contend("writer/one", {"run": "r1"})
    assert lost is not None
    await one._link.client.delete(one._link.key("lease", "writer/one"))
    assert await two.leases.contend("writer/one", {"run": "r2"}) is not None
    lost.update({"run": "r1 again"})
    await one.leases._renew([lost])
    await lost.close()
    assert await one.leases.get("writer/one") == {"run": "r2"}


# --- commands ---------------------------------------------------------------------------------------------------------


async def test_commands_work_again_after_a_restart(server: RedisServer, make: MakeRedisBus) -> None:
    async def echo(verb: str, arguments: object) -> dict[str, str]:
        return {"verb": verb}

    server.start()
    one, two = await make("r1"), await make("r2")
    await one.commands.serve("run:r1", echo)
    assert await two.commands.ask("run:r1", "status", {}) == {"verb": "status"}
    server.kill()
    with pytest.raises(BusDown):
        await two.commands.ask("run:r1", "status", {})
    await two.commands.serve("run:r2", echo)
    await two.commands.announce("nobody", {})
    server.start()

    async def answers(asker: RedisBus, run: str) -> bool:
        try:
            return await asker.commands.ask(f"run:{run}", "status", {}) == {"verb": "status"}
        except BusDown:
            return False

    await until(lambda: answers(two, "r1"))
    await until(lambda: answers(one, "r2"))


async def test_a_prefix_keeps_fleets_apart(server: RedisServer, make: MakeRedisBus) -> None:
    server.start()
    ours, theirs = await make("r1"), await make("r1", prefix=uuid.uuid4().hex)
    await ours.leases.hold("node/one", {})
    assert await theirs.leases.find("") == {}
