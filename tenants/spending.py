"""How much tenants have spent and keep, told to whoever counts limits: from what calls that are over cost, what those
that run have cost so far, and what is kept of recordings.

Owns how often it looks. Refuses to know what becomes of a tenant whose limit is reached.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sipserver import log
from sipserver.store.database import UNAVAILABLE, brief
from sipserver.store.running import Running
from sipserver.store.usage_rows import UsageRows
from sipserver.tenants.allowances import (
    DAY_S,
    MONTH_S,
    STORED_S,
    day_begin,
    micro,
    minutes_scope,
    month_begin,
    spend_scope,
    storage_scope,
)
from sipserver.tenants.nearness import Nearness
from sipserver.tenants.prices import Rating
from sipserver.tenants.settings import TenantLimits

EVERY_S = 5.0
SHARE = 20
"""A look that took long is followed by a pause of so many times its length: a twentieth of the time is spent on it."""


class Meters(Protocol):
    """As `bus.contract.Meters`."""

    async def put(self, scope: str, used: int, lives_s: float, *, lower: bool = False) -> None: ...


class Spending:
    """Loop thread. now: seconds since the epoch. Several processes may do the same: all find the same."""

    def __init__(
        self,
        rows: UsageRows,
        running: Running,
        rating: Rating,
        tenants: Mapping[str, TenantLimits],
        meters: Meters,
        nearness: Nearness,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rows, self._running, self._rating, self._meters, self._now = rows, running, rating, meters, now
        self._nearness = nearness
        self._tenants = {
            name: limits
            for name, limits in tenants.items()
            if limits.minutes_a_day or limits.spend_a_day or limits.spend_a_month or limits.storage_bytes
        }
        self._log = log.logger("tenants")

    async def run(self) -> None:
        """For ever; returns at once when no tenant has such a limit."""
        failing = False
        while self._tenants:
            began_s = time.monotonic()
            try:
                await self.look()
                failing = False
            except UNAVAILABLE as problem:
                if not failing:
                    self._log.warning("what tenants have spent cannot be read now", error=brief(problem))
                failing = True
            await asyncio.sleep(max(EVERY_S, SHARE * (time.monotonic() - began_s)))

    async def look(self) -> None:
        """Once. Raises SQLAlchemy's errors when the database does not answer."""
        for tenant, limits in self._tenants.items():
            if limits.minutes_a_day or limits.spend_a_day or limits.spend_a_month:
                await self._look_at(tenant, limits)
            if limits.storage_bytes:
                stored = await self._running.stored(tenant, datetime.fromtimestamp(self._now(), UTC))
                await self._meters.put(storage_scope(tenant), stored, STORED_S, lower=True)
                await self._nearness.seen(tenant, "storage_bytes", stored, limits.storage_bytes)

    async def _look_at(self, tenant: str, limits: TenantLimits) -> None:
        now_s = self._now()
        now = datetime.fromtimestamp(now_s, UTC)
        day = day_begin(now_s)
        since = month_begin(now_s) if limits.spend_a_month else day
        of_day = of_month = minutes = 0
        async for row in self._rows.between(tenant, since, now + timedelta(days=1)):
            cost = micro(self._rating.rate(row).cost)
            of_month += cost
            if row.at >= day:
                of_day += cost
                minutes += -(-row.quantity // 60_000) if row.part in ("call.inbound", "call.outbound") else 0
        if limits.spend_a_day or limits.spend_a_month:
            # Read after the others: one that ends between is missing this time, instead of being counted twice.
            async for call in self._running.of(tenant, now):
                for row in call.used:
                    cost = micro(self._rating.rate(row).cost)
                    of_month += cost if row.at >= since else 0
                    of_day += cost if row.at >= day else 0
        if limits.minutes_a_day:
            await self._meters.put(minutes_scope(tenant, now_s), minutes, 2 * DAY_S)
        if limits.spend_a_day:
            await self._meters.put(spend_scope("spend_a_day", tenant, now_s), of_day, 2 * DAY_S, lower=True)
        if limits.spend_a_month:
            await self._meters.put(spend_scope("spend_a_month", tenant, now_s), of_month, 2 * MONTH_S, lower=True)
