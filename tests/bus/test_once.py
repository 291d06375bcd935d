"""Once is once, on both backends."""

from __future__ import annotations

import asyncio

from sipserver.bus.once import MemoryOnce
from sipserver.bus.redis_once import RedisOnce
from tests.bus.conftest import MakeBus, until
from tests.bus.test_outage import MakeRedisBus, make, server  # noqa: F401 - fixtures
from tests.servers.redis import RedisServer


async def test_the_first_of_all_processes_alone(make_bus: MakeBus) -> None:
    one, two = make_bus("r1"), make_bus("r2")
    await one.open()
    await two.open()
    answers = await asyncio.gather(*(bus.once.first("token/a", 60) for bus in (one, two) for _ in range(10)))
    assert sorted(answers) == [False] * 19 + [True]
    assert await two.once.first("token/b", 60)


async def test_it_may_happen_again_when_the_time_is_over(make_bus: MakeBus) -> None:
    bus = make_bus("r1")
    await bus.open()
    assert await bus.once.first("a", 0.05)
    await until(lambda: bus.once.first("a", 60))


async def test_memory_forgets_what_is_over() -> None:
    now_s = [100.0]
    memory = MemoryOnce(lambda: now_s[0])
    assert await memory.first("a", 10)
    assert not await memory.first("a", 10)
    now_s[0] += 61
    assert await memory.first("b", 10)
    assert list(memory._until) == ["b"]


async def test_nobody_is_first_while_redis_is_away(make: MakeRedisBus, server: RedisServer) -> None:  # noqa: F811
    server.start()
    bus = await make("r1")
    assert isinstance(bus.once, RedisOnce)
    assert await bus.once.first("a", 60)
    server.stop()
    assert not await bus.once.first("b", 60)
