"""Meter events: every quantity is told once, whatever breaks, and more of it as the difference."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from sipserver.store.database import Database
from sipserver.store.schema import usage
from sipserver.store.settings import StoreSettings
from sipserver.store.usage_meters import AT_ONCE, UsageMeters
from sipserver.tenants.bills import Month
from sipserver.tenants.metering import MeterEvent, Metering
from sipserver.tenants.settings import TenantLimits
from tests.store.conftest import store_settings

__all__ = ["store_settings"]

AT = Month.of("2026-11").since
TENANTS = {"acme": TenantLimits(stripe_customer="cus_1"), "zenith": TenantLimits()}


@pytest.fixture
async def database(store_settings: StoreSettings) -> AsyncIterator[Database]:
    opened = Database(store_settings)
    await opened.open()
    yield opened
    await opened.close()


async def use(database: Database, calls: int = 1, tenant: str = "acme") -> None:
    row = {"leg": "", "engine": "voice", "vendor": "", "model": "", "tenant": tenant, "at": AT}
    more: dict[str, Any] = {"part": "tts", "unit": "characters", "quantity": 40, "metered": 0, "metering": 0}
    async with database.engine.begin() as connection:
        rows = [{"call_id": f"{tenant}-{number}", **row, **more} for number in range(calls)]
        await connection.execute(sa.insert(usage), rows)


class Told:
    """Who is told. Keeps what came for the first time, by key, as webhooks do. fails: so often it is broken off."""

    def __init__(self, *, fails: int = 0) -> None:
        self.fails = fails
        self.events: dict[str, MeterEvent] = {}

    async def publish(self, events: Sequence[MeterEvent]) -> None:
        for event in events:
            assert self.events.setdefault(event.key, event) == event
        if self.fails:
            self.fails -= 1
            raise OSError("away")

    @property
    def value(self) -> int:
        return sum(int(event.fields["payload"]["value"]) for event in self.events.values())


async def test_an_event_is_what_stripe_takes(database: Database) -> None:
    await use(database)
    await use(database, tenant="zenith")
    told = Told()
    metering = Metering(UsageMeters(database), TENANTS, told.publish)
    assert await metering.look()
    assert not await metering.look()
    (event,) = told.events.values()
    assert event.tenant == "acme"
    assert event.fields == {
        "event_name": "tts_characters",
        "identifier": event.fields["identifier"],
        "timestamp": int(AT.timestamp()),
        "payload": {"stripe_customer_id": "cus_1", "value": "40"},
    }
    assert len(event.fields["identifier"]) <= 100


async def test_more_of_it_is_told_as_the_difference(database: Database) -> None:
    await use(database)
    told = Told()
    metering = Metering(UsageMeters(database), TENANTS, told.publish)
    await metering.look()
    async with database.engine.begin() as connection:
        await connection.execute(sa.update(usage).values(quantity=55))
    await metering.look()
    assert sorted(event.fields["payload"]["value"] for event in told.events.values()) == ["15", "40"]


async def test_what_was_broken_off_is_told_again_in_the_same_words(database: Database) -> None:
    await use(database)
    told = Told(fails=1)
    with pytest.raises(OSError, match="away"):
        await Metering(UsageMeters(database), TENANTS, told.publish).look()
    async with database.engine.begin() as connection:
        await connection.execute(sa.update(usage).values(quantity=55))
    other = Metering(UsageMeters(database), TENANTS, told.publish)
    while await other.look():
        pass
    assert (len(told.events), told.value) == (2, 55)


async def test_many_are_told_in_parts(database: Database) -> None:
    await use(database, AT_ONCE + 3)
    told = Told()
    one, two = (Metering(UsageMeters(database), TENANTS, told.publish) for _ in range(2))
    while await one.look() or await two.look():
        pass
    assert (len(told.events), told.value) == (AT_ONCE + 3, 40 * (AT_ONCE + 3))
