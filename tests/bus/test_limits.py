"""Places are never given twice and never lost, whatever happens to processes and to Redis."""

from __future__ import annotations

import asyncio
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sipserver.bus.contract import Full
from sipserver.bus.redis_bus import RedisBus
from sipserver.bus.redis_limits import TAKE_S
from sipserver.bus.settings import BusSettings
from tests.bus.conftest import until
from tests.servers.redis import RedisServer

SCOPE = "tenant/acme"


@pytest.fixture
def server(tmp_path: Path, free_port: int) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "redis", port=free_port, appendonly=False)
    made.start()
    yield made
    made.stop()


class Fleet:
    """Some buses with one prefix. lease_s is as short as it may be."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.settings = BusSettings(url=server.url, prefix=uuid.uuid4().hex, spool=folder / "spool", lease_s=1)
        self.buses: dict[str, RedisBus] = {}
        self.taken: dict[str, int] = {}

    async def join(self, run: str) -> RedisBus:
        bus = self.buses[run] = RedisBus(self.settings, node="one", run=run)
        self.taken[run] = 0
        await bus.open()
        return bus

    async def take(self, run: str, limit: int) -> Full | None:
        full = await self.buses[run].limits.take({SCOPE: limit})
        if full is None:
            self.taken[run] += 1
        return full

    def give(self, run: str) -> None:
        if self.taken[run]:
            self.taken[run] -= 1
            self.buses[run].limits.give([SCOPE])

    async def die(self, run: str) -> None:
        """kill -9: nothing is given up, nothing renewed any more."""
        bus = self.buses.pop(run)
        bus.leases._task.cancel()  # type: ignore[union-attr]
        await asyncio.gather(bus.leases._task, return_exceptions=True)  # type: ignore[arg-type]
        await bus.live.close()
        await bus.commands.close()
        await bus.limits.close()
        await bus.journal.close()
        await bus._link.close()
        self.taken[run] = 0

    async def remembered(self) -> None:
        """Redis is there, and those that live have told it what they hold, if it had lost it."""

        async def told() -> bool:
            buses = self.buses.values()
            return all(bus.up for bus in buses) and len({bus.limits._born for bus in buses}) <= 1

        await until(told)

    async def takes_all(self, run: str, limit: int) -> bool:
        while await self.take(run, limit) is None:
            assert sum(self.taken.values()) <= limit
        return sum(self.taken.values()) == limit

    async def close(self) -> None:
        for bus in self.buses.values():
            await bus.close()


@pytest.fixture
async def fleet(server: RedisServer, tmp_path: Path) -> AsyncIterator[Fleet]:
    made = Fleet(server, tmp_path)
    yield made
    await made.close()


async def test_what_others_hold_unused_is_given_back_to_whoever_needs_it(fleet: Fleet) -> None:
    one, two = await fleet.join("r1"), await fleet.join("r2")
    assert await fleet.take("r1", 10) is None
    assert one.limits._scopes[SCOPE].quota > 1
    for _ in range(9):
        assert await fleet.take("r2", 10) is None
    assert one.limits._scopes[SCOPE].quota == 1
    assert two.limits._scopes[SCOPE].quota == 9
    assert await fleet.take("r2", 10) == await fleet.take("r1", 10) == Full(SCOPE, 10, shared=True)


async def test_places_that_were_given_out_without_a_word_count_as_used_when_somebody_finds_none(fleet: Fleet) -> None:
    one = await fleet.join("r1")
    await fleet.join("r2")
    assert await fleet.take("r1", 7) is None
    quota = one.limits._scopes[SCOPE].quota
    assert quota > 1
    for _ in range(quota - 1):
        assert await fleet.take("r1", 7) is None
    assert await one.limits.used([SCOPE]) == {SCOPE: 1}, "the others are Redis' to learn"
    for _ in range(7 - quota):
        assert await fleet.take("r2", 7) is None
    assert await fleet.take("r2", 7) == Full(SCOPE, 7, shared=True)
    assert await one.limits.used([SCOPE]) == {SCOPE: 7}


async def test_the_places_of_the_dead_run_out(fleet: Fleet) -> None:
    await fleet.join("r1")
    await fleet.join("r2")
    for _ in range(3):
        assert await fleet.take("r1", 3) is None
    assert await fleet.take("r2", 3) == Full(SCOPE, 3, shared=True)
    await fleet.die("r1")
    await until(lambda: fleet.takes_all("r2", 3))


async def test_while_redis_is_away_everybody_has_a_share_and_all_together_no_more_than_the_limit(
    fleet: Fleet, server: RedisServer
) -> None:
    for run in ("r1", "r2", "r3"):
        await fleet.join(run)
        assert await fleet.take(run, 30) is None
    server.pause()
    shares = []
    for run in fleet.buses:
        before = fleet.taken[run]
        while (full := await fleet.take(run, 30)) is None:
            pass
        assert full == Full(SCOPE, 30, shared=False)
        shares.append(fleet.taken[run] - before)
    assert all(shares)
    assert sum(fleet.taken.values()) <= 30
    fleet.give("r1")
    assert await fleet.take("r1", 30) is None
    server.resume()
    await until(lambda: fleet.takes_all("r3", 30))


async def test_a_process_that_stood_still_blames_itself_and_asks_again(fleet: Fleet) -> None:
    await fleet.join("r1")
    taking = asyncio.create_task(fleet.take("r1", 10))
    await asyncio.sleep(0)
    time.sleep(2 * TAKE_S)  # noqa: ASYNC251  as a machine that halts
    assert await taking is None


async def test_a_redis_that_has_forgotten_everything_is_told_before_it_gives(fleet: Fleet, server: RedisServer) -> None:
    for run in ("r1", "r2"):
        await fleet.join(run)
    for _ in range(5):
        assert await fleet.take("r1", 6) is None
    server.restart()

    async def answered() -> bool:
        return await fleet.takes_all("r2", 6)

    await until(answered)
    assert fleet.taken == {"r1": 5, "r2": 1}


async def test_a_limit_that_was_lowered_holds_for_new_calls(fleet: Fleet) -> None:
    await fleet.join("r1")
    for _ in range(3):
        assert await fleet.take("r1", 10) is None
    assert await fleet.take("r1", 3) == Full(SCOPE, 3, shared=True)
    assert await fleet.take("r1", 4) is None


async def test_nothing_stays_in_redis_when_all_is_given_back(fleet: Fleet) -> None:
    bus = await fleet.join("r1")
    other = await fleet.join("r2")
    assert await bus.limits.take({SCOPE: 5, "trunk/t": 100}) is None
    bus.limits.give([SCOPE, "trunk/t"])
    await other.forget_run("r1")
    left = [key async for key in bus._link.client.scan_iter(f"{bus._link.prefix}:limit:*")]
    assert left == []


RACER = """
import asyncio, sys
from pathlib import Path
from sipserver.bus import table
from sipserver.bus.settings import BusSettings

async def main(url, prefix, spool, run):
    bus = table.make(BusSettings(url=url, prefix=prefix, spool=Path(spool)), node="one", run=run)
    await bus.open()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    taken = 0
    for _ in range(200):
        taken += await bus.limits.take({"tenant/acme": 100, "trunk/t": 1000}) is None
    print(taken, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await bus.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_that_race_get_exactly_the_limit(fleet: Fleet) -> None:
    options = fleet.settings
    racers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RACER, options.url, options.prefix, str(options.spool), f"racer{number}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(4)
    ]

    async def answer(racer: asyncio.subprocess.Process) -> bytes:
        assert racer.stdout is not None
        while (line := (await racer.stdout.readline()).strip()) and b"[" in line:
            pass  # the log
        return line

    async def step(word: bytes) -> list[bytes]:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(word)
        return [await answer(racer) for racer in racers]

    assert await step(b"") == [b"ready"] * 4
    taken = [int(line) for line in await step(b"go\n")]
    assert sum(taken) == 100
    await step(b"end\n")
    assert [await racer.wait() for racer in racers] == [0] * 4
    late = await fleet.join("late")
    assert await late.limits.take({"tenant/acme": 1}) is None


@pytest.mark.parametrize("seed", range(2))
async def test_any_course_of_calls_deaths_and_outages(fleet: Fleet, server: RedisServer, seed: int) -> None:
    """Never more than the limit; in the end all places can be had again."""
    chance, limit, born = random.Random(seed), 12, 0
    course = {"take": 40, "give": 30, "wait": 25, "die": 1, "pause": 1, "resume": 3, "restart": 1}
    for _ in range(3):
        await fleet.join(f"r{(born := born + 1)}")
    for _ in range(400):
        run = chance.choice(list(fleet.buses))
        match chance.choices(list(course), list(course.values()))[0]:
            case "take":
                await fleet.take(run, limit)
            case "give":
                fleet.give(run)
            case "wait":
                await asyncio.sleep(chance.random() * 0.02)
            case "die":
                server.resume()
                await fleet.die(run)
                await fleet.remembered()
                await fleet.join(f"r{(born := born + 1)}")
            case "pause":
                server.pause()
            case "resume":
                server.resume()
            case "restart":
                await asyncio.to_thread(server.restart)
        assert sum(fleet.taken.values()) <= limit
    server.resume()
    last = next(iter(fleet.buses))
    await until(lambda: fleet.takes_all(last, limit))
