"""What is used up is counted once for all, stays used, and is shared out while Redis is away."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipserver.bus.contract import Draw, Drawn, Full
from sipserver.bus.redis_bus import RedisBus
from sipserver.bus.settings import BusSettings
from tests.bus.conftest import MakeBus, until
from tests.servers.redis import RedisServer

SCOPE = "minutes_a_day/acme/2026-11-28"


async def test_two_never_both_take_the_last(make_bus: MakeBus) -> None:
    one, two = make_bus("r1"), make_bus("r2")
    await one.open()
    await two.open()
    drawn = await asyncio.gather(*((one, two)[number % 2].meters.draw({SCOPE: Draw(7)}) for number in range(20)))
    assert sum(each.full is None for each in drawn) == 7
    assert {each.full for each in drawn} == {None, Full(SCOPE, 7, shared=True)}
    await one.close()
    assert (await two.meters.draw({SCOPE: Draw(7)})).full, "it stays used when a run is over"


async def test_all_or_none_and_what_is_left_is_asked_without_drawing(make_bus: MakeBus) -> None:
    bus = make_bus("r1")
    await bus.open()
    assert await bus.meters.draw({"a": Draw(1, 0), "b": Draw(2)}) == Drawn(None, {"a": 0, "b": 1})
    assert (await bus.meters.draw({"a": Draw(1), "b": Draw(2)})).full is None
    assert await bus.meters.draw({"b": Draw(9), "a": Draw(1, 0)}) == Drawn(Full("a", 1, True), {"a": 1, "b": 2})
    assert await bus.meters.draw({"b": Draw(9), "a": Draw(1)}) == Drawn(Full("a", 1, True), {"a": 1, "b": 2})
    assert (await bus.meters.draw({"a": Draw(0, 1, always=True)})).used == {"a": 2}
    assert (await bus.meters.draw({"a": Draw(0, -1, always=True)})).used == {"a": 1}


async def test_who_knows_how_much_was_used_says_so(make_bus: MakeBus) -> None:
    bus, other = make_bus("r1"), make_bus("r2")
    await bus.open()
    await other.open()
    await bus.meters.put(SCOPE, 5, 60)
    await bus.meters.put(SCOPE, 3, 60)
    assert (await other.meters.draw({SCOPE: Draw(6)})).used == {SCOPE: 6}
    await bus.meters.put(SCOPE, 2, 60, lower=True)
    assert (await other.meters.draw({SCOPE: Draw(6, 4)})).used == {SCOPE: 6}


async def test_what_matters_no_more_is_forgotten(make_bus: MakeBus) -> None:
    bus = make_bus("r1")
    await bus.open()

    async def free() -> bool:
        return (await bus.meters.draw({SCOPE: Draw(1, 0)})).full is None

    await bus.meters.draw({SCOPE: Draw(1, 1, 0.2)})
    await until(free)


# --- Redis away -------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, free_port: int) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "redis", port=free_port, appendonly=False)
    made.start()
    yield made
    made.stop()


async def test_while_redis_is_away_each_has_its_share_and_says_later_what_it_drew(
    server: RedisServer, tmp_path: Path
) -> None:
    settings = BusSettings(url=server.url, prefix=uuid.uuid4().hex, spool=tmp_path / "spool", lease_s=1)
    buses = [RedisBus(settings, node="one", run=run) for run in ("r1", "r2")]
    try:
        for bus in buses:
            await bus.open()
        for bus in buses:
            assert (await bus.meters.draw({SCOPE: Draw(12, 1)})).full is None
        assert (await buses[0].meters.draw({SCOPE: Draw(12, 0)})).used == {SCOPE: 2}
        await asyncio.to_thread(server.pause)
        drawn: list[int] = []
        for bus in buses:
            count = 0
            while (each := await bus.meters.draw({SCOPE: Draw(12)})).full is None:
                count += 1
            assert not each.full.shared
            drawn.append(count)
            assert (await bus.meters.draw({"calls_per_s/acme/1": Draw(1)})).full is None, "a new second has some"
        assert drawn == [5, 5]
        await asyncio.to_thread(server.resume)

        async def told() -> bool:
            used = (await buses[0].meters.draw({SCOPE: Draw(1000, 0)})).used[SCOPE]
            return buses[0].up and used >= 12

        await until(told)
        assert (await buses[1].meters.draw({SCOPE: Draw(12)})).full is not None
    finally:
        await asyncio.to_thread(server.resume)
        for bus in buses:
            await bus.close()
