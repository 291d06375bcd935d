"""What calls used, told as Stripe's billing meters take it: one event for each part of a call, once.

Owns the form of the events, and that none is left out and none told with another value. Refuses to know who sends them.
Source: https://docs.stripe.com/api/billing/meter-event/create.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sipserver import log
from sipserver.store.database import UNAVAILABLE, brief
from sipserver.store.usage_meters import MeteredRow, UsageMeters
from sipserver.tenants.settings import TenantLimits

KIND = "usage.metered"
EVERY_S = 2.0
SHARE = 20
"""A look that took long is followed by a pause of so many times its length."""


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """at: when the call began. key: the same when the same is told again."""

    tenant: str
    at: datetime
    key: str
    fields: Mapping[str, Any]


Publish = Callable[[Sequence[MeterEvent]], Awaitable[None]]


def event_of(row: MeteredRow, customer: str) -> MeterEvent:
    """Of what was used and not told yet. Its value is a whole number, in the unit that its name ends with."""
    usage = row.usage
    about = (usage.call_id, usage.part, usage.leg, usage.engine, usage.vendor, usage.model)
    key = hashlib.sha256("\n".join((*about, str(row.metered))).encode()).hexdigest()[:40]
    fields = {
        "event_name": f"{usage.part.replace('.', '_')}_{usage.unit}",
        "identifier": key,
        "timestamp": int(usage.at.timestamp()),
        "payload": {"stripe_customer_id": customer, "value": str(row.metering - row.metered)},
    }
    return MeterEvent(usage.tenant, usage.at, f"{KIND}/{key}", fields)


class Metering:
    """Loop thread. Several processes may do the same: they tell the same, and it is told once."""

    def __init__(self, rows: UsageMeters, tenants: Mapping[str, TenantLimits], publish: Publish) -> None:
        self._rows, self._publish = rows, publish
        self._customers = {name: limits.stripe_customer for name, limits in tenants.items() if limits.stripe_customer}
        self._log = log.logger("tenants")

    async def run(self) -> None:
        """For ever; returns at once when no tenant is a customer."""
        failing = False
        while self._customers:
            began_s, more = time.monotonic(), False
            try:
                more = await self.look()
                failing = False
            except UNAVAILABLE as problem:
                if not failing:
                    self._log.warning("what was used cannot be metered now", error=brief(problem))
                failing = True
            if not more:
                await asyncio.sleep(max(EVERY_S, SHARE * (time.monotonic() - began_s)))

    async def look(self) -> bool:
        """Tell some; whether there may be more. Raises SQLAlchemy's errors when the database does not answer: what was
        told then is told again in the same words.
        """
        rows = await self._rows.claim(sorted(self._customers))
        if rows:
            await self._publish([event_of(row, self._customers[row.usage.tenant]) for row in rows])
            await self._rows.told(rows)
        return bool(rows)
