"""What tenants may use: counted together, begun anew in time, told once."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sipserver.bus.contract import Draw
from sipserver.bus.memory import MemoryBus
from sipserver.tenants.allowances import (
    STORED_S,
    Allowances,
    day_begin,
    micro,
    month_begin,
    spend_scope,
    storage_scope,
)
from sipserver.tenants.settings import TenantLimits

MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC).timestamp()


class Desk:
    """Allowances of one tenant with its own clock."""

    def __init__(self, **limits: Any) -> None:
        self.bus = MemoryBus(node="one", run="r1")
        self.now = MIDNIGHT - 100
        tenants = {"acme": TenantLimits(**limits)}
        self.allowances = Allowances(tenants, self.bus.meters, self.bus.once.first, Draw, now=lambda: self.now)

    async def calls(self, count: int, tenant: str = "acme") -> list[str]:
        """The limits that so many calls come upon; empty: none."""
        found = [await self.allowances.call(tenant) for _ in range(count)]
        return [each.reached.limit if each.reached else "" for each in found]


async def test_who_has_no_limits_may_all() -> None:
    desk = Desk()
    assert await desk.calls(3) == await desk.calls(3, "zenith") == [""] * 3
    assert (await desk.allowances.request("zenith")).reached is None


async def test_calls_of_a_second_begin_anew_with_the_next() -> None:
    desk = Desk(calls_per_s=2)
    assert await desk.calls(3) == ["", "", "calls_per_s"]
    desk.now += 1
    assert await desk.calls(3) == ["", "", "calls_per_s"]
    reached = (await desk.allowances.call("acme")).reached
    assert reached is not None
    assert (reached.code, reached.retry_after_s, reached.text) == (
        503,
        1,
        "the limit calls_per_s is reached: 2 of 2",
    )


async def test_minutes_are_those_of_the_day_and_what_was_not_needed_comes_back() -> None:
    desk = Desk(minutes_a_day=3)
    assert await desk.calls(2) == ["", ""]
    assert (await desk.allowances.minute("acme")).reached is None
    reached = (await desk.allowances.minute("acme")).reached
    assert reached is not None
    assert (reached.code, reached.hang_up) == (403, False)
    await desk.allowances.unused("acme")
    assert await desk.calls(1) == ["minutes_a_day"], "the minute of a call that goes on was counted, too"
    await desk.allowances.unused("acme")
    assert await desk.calls(2) == ["", "minutes_a_day"]
    desk.now = MIDNIGHT
    assert await desk.calls(1) == [""]


async def test_spend_is_asked_for_and_not_drawn() -> None:
    desk = Desk(spend_a_month=Decimal("10.5"), on_exceeded="hangup")
    scope = spend_scope("spend_a_month", "acme", desk.now)
    assert scope == "spend_a_month/acme/2026-11"
    await desk.bus.meters.put(scope, micro(Decimal("10.499999")), 60)
    assert await desk.calls(2) == ["", ""]
    await desk.bus.meters.put(scope, micro(Decimal("10.5")), 60)
    allowed = await desk.allowances.minute("acme")
    assert allowed.reached is not None
    assert (allowed.reached.hang_up, allowed.reached.most, allowed.reached.used) == (True, "10.5", "10.5")
    desk.now = MIDNIGHT
    assert await desk.calls(1) == [""]


async def test_near_is_told_once_a_day_and_reached_once_a_minute() -> None:
    desk = Desk(minutes_a_day=5)
    told = [(await desk.allowances.call("acme")).told for _ in range(8)]
    assert [[(each.near, each.used) for each in some] for some in told] == [
        [],
        [],
        [],
        [(True, "4")],
        [],
        [(False, "5")],
        [],
        [],
    ]
    desk.now = MIDNIGHT
    told = [(await desk.allowances.call("acme")).told for _ in range(4)]
    assert [len(some) for some in told] == [0, 0, 0, 1]


async def test_recordings_may_begin_while_anything_is_left() -> None:
    desk = Desk(storage_bytes=1000)
    scope = storage_scope("acme")
    assert (await desk.allowances.recording("acme")).reached is None, "nobody has looked yet"
    assert (await desk.allowances.recording("zenith")).reached is None
    await desk.bus.meters.put(scope, 999, STORED_S, lower=True)
    allowed = await desk.allowances.recording("acme")
    assert (allowed.reached, list(allowed.told)) == (None, []), "that it is near is told by whoever watches it"
    await desk.bus.meters.put(scope, 1001, STORED_S, lower=True)
    found = [await desk.allowances.recording("acme") for _ in range(2)]
    assert [each.reached is not None and each.reached.text for each in found] == [
        "the limit storage_bytes is reached: 1001 of 1000"
    ] * 2
    assert [[(told.near, told.used) for told in each.told] for each in found] == [[(False, "1001")], []]
    assert await desk.calls(1) == [""], "calls are another matter"
    await desk.bus.meters.put(scope, 500, STORED_S, lower=True)
    assert (await desk.allowances.recording("acme")).reached is None


def test_days_and_months_are_those_of_utc() -> None:
    assert day_begin(MIDNIGHT - 1) == datetime(2026, 11, 30, tzinfo=UTC)
    assert month_begin(MIDNIGHT - 1) == datetime(2026, 11, 1, tzinfo=UTC)
    assert month_begin(MIDNIGHT) == day_begin(MIDNIGHT) == datetime(2026, 12, 1, tzinfo=UTC)


async def test_looking_at_what_is_used_uses_nothing() -> None:
    desk = Desk(minutes_a_day=2, spend_a_day=1.5, calls_per_s=9)
    assert await desk.allowances.used("zenith") == {}
    assert await desk.allowances.used("acme") == {"minutes_a_day": "0", "spend_a_day": "0"}
    assert await desk.calls(1) == [""]
    await desk.bus.meters.put(spend_scope("spend_a_day", "acme", desk.now), micro(Decimal("1.75")), 1000)
    for _ in range(3):
        assert await desk.allowances.used("acme") == {"minutes_a_day": "1", "spend_a_day": "1.75"}
    assert await Desk(storage_bytes=9).allowances.used("acme") == {}
