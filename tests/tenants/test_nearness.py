"""What rises and falls is told once when it comes near to its limit, whoever of several processes looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from sipserver.bus.contract import Bus, Draw
from sipserver.errors import BusDown
from sipserver.tenants.allowances import Told
from sipserver.tenants.nearness import CallsWatch, Nearness
from sipserver.tenants.settings import TenantLimits
from tests.bus.conftest import MakeBus, make_bus, redis_server, until

__all__ = ["make_bus", "redis_server"]


class Ears:
    """What was told, by all processes."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, str]] = []
        self.deaf = False

    async def tell(self, tenant: str, told: Told) -> None:
        if self.deaf:
            raise OSError("the database is away")
        assert told.near
        self.told.append((tenant, told.limit, told.most, told.used))

    def count(self) -> int:
        found, self.told = len(self.told), []
        return found


async def opened(make_bus: MakeBus, run: str) -> Bus:
    bus = make_bus(run)
    await bus.open()
    return bus


async def test_a_crossing_is_told_once_and_the_next_one_only_after_a_fall(make_bus: MakeBus) -> None:
    ears = Ears()
    one, two = [Nearness((await opened(make_bus, run)).meters, Draw, ears.tell) for run in ("r1", "r2")]

    async def seen(*course: int) -> int:
        for used in course:
            await one.seen("acme", "calls", used, 100)
            await two.seen("acme", "calls", used, 100)
        return ears.count()

    assert await seen(0, 50, 79) == 0
    assert await seen(80) == 1
    assert await seen(81, 79, 80, 100, 66, 80, 79, 80) == 0, "it hovers about the border"
    assert await seen(64) == 0
    assert await seen(79) == 0
    assert await seen(95, 64, 80) == 2
    await two.seen("zenith", "calls", 9, 10)
    await two.seen("acme", "storage_bytes", 9, 10)
    assert ears.told == [("zenith", "calls", "10", "9"), ("acme", "storage_bytes", "10", "9")]


async def test_a_process_that_comes_later_tells_nothing_again_and_sees_the_fall(make_bus: MakeBus) -> None:
    ears = Ears()
    await Nearness((await opened(make_bus, "r1")).meters, Draw, ears.tell).seen("acme", "calls", 9, 10)
    assert ears.count() == 1
    later = Nearness((await opened(make_bus, "r2")).meters, Draw, ears.tell)
    await later.seen("acme", "calls", 9, 10)
    assert ears.count() == 0
    last = Nearness((await opened(make_bus, "r3")).meters, Draw, ears.tell)
    await last.seen("acme", "calls", 1, 10)
    await last.seen("acme", "calls", 9, 10)
    assert ears.count() == 1


async def test_what_could_not_be_told_is_told_later(make_bus: MakeBus) -> None:
    ears = Ears()
    nearness = Nearness((await opened(make_bus, "r1")).meters, Draw, ears.tell)
    ears.deaf = True
    with pytest.raises(OSError, match="away"):
        await nearness.seen("acme", "calls", 9, 10)
    ears.deaf = False
    await nearness.seen("acme", "calls", 9, 10)
    await nearness.seen("acme", "calls", 9, 10)
    assert ears.count() == 1


async def test_calls_of_all_processes_count(make_bus: MakeBus) -> None:
    ears = Ears()
    one, two = await opened(make_bus, "r1"), await opened(make_bus, "r2")
    tenants = {"acme": TenantLimits(calls=5), "free": TenantLimits(), "quiet": TenantLimits(calls=5)}
    watch = CallsWatch(tenants, one.limits.used, Nearness(one.meters, Draw, ears.tell))
    for bus in (one, two, one, two):
        assert await bus.limits.take({"tenant/acme": 5}) is None

    async def told(count: int) -> bool:
        await watch.look()
        return len(ears.told) == count

    await until(lambda: told(1))
    assert ears.told == [("acme", "calls", "5", "4")]
    await watch.look()
    for bus in (one, two):
        bus.limits.give(["tenant/acme"])

    async def fell() -> bool:
        return (await two.limits.used(["tenant/acme"]))["tenant/acme"] == 2

    await until(fell)
    await watch.look()
    for bus in (two, one):
        assert await bus.limits.take({"tenant/acme": 5}) is None
    await until(lambda: told(2))


async def test_nobody_is_watched_without_a_limit_and_a_bus_that_is_away_is_waited_for(
    make_bus: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, ears = await opened(make_bus, "r1"), Ears()
    nearness = Nearness(bus.meters, Draw, ears.tell)
    await CallsWatch({"free": TenantLimits()}, bus.limits.used, nearness).run()
    monkeypatch.setattr("sipserver.tenants.nearness.LOOK_S", 0.001)
    asked = 0

    async def used(scopes: Sequence[str]) -> Mapping[str, int]:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise BusDown("away")
        if asked > 3:
            raise AssertionError("over")
        return dict.fromkeys(scopes, 9)

    with pytest.raises(AssertionError, match="over"):
        await CallsWatch({"acme": TenantLimits(calls=10)}, used, nearness).run()
    assert ears.told == [("acme", "calls", "10", "9")]
