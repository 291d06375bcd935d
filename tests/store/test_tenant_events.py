"""What belongs to no call is written in the order of its moments, told once it is written, and kept for two days."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sipserver import events
from sipserver.events import Event
from sipserver.journal import Entry, micros
from sipserver.store.database import UNAVAILABLE, Database
from sipserver.store.feed_rows import FeedRows
from sipserver.store.ledger import Ledger
from sipserver.store.schema import tenant_events
from sipserver.store.settings import StoreSettings
from sipserver.store.tenant_events import KEPT_US, TenantEvents
from tests.store.conftest import store_settings
from tests.store.told import one_call

__all__ = ["store_settings"]

NOW_S = 1_790_000_003.25
"""The fourth second of `one_call`."""


def near(used: int) -> Event:
    return events.LimitNear("calls", "10", str(used))


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


class Office:
    def __init__(self, database: Database) -> None:
        self.database, self.told, self.clock = database, list[Entry](), Clock()
        self.rows = FeedRows(database)

    def process(self) -> TenantEvents:
        return TenantEvents(self.database, "one", self.told.append, now=self.clock)

    async def kept(self) -> list[tuple[str, int, str]]:
        columns = (tenant_events.c.tenant, tenant_events.c.at_us, tenant_events.c.fields)
        async with self.database.engine.connect() as connection:
            found = await connection.execute(sa.select(*columns).order_by(tenant_events.c.at_us))
            return [(row.tenant, row.at_us, row.fields["used"]) for row in found]


@pytest.fixture
async def office(store_settings: StoreSettings) -> AsyncIterator[Office]:
    database = Database(store_settings)
    await database.open()
    yield Office(database)
    await database.close()


async def test_each_has_a_moment_of_its_own_and_is_told_as_it_was_written(office: Office) -> None:
    process = office.process()
    moments = await asyncio.gather(*(process.add("acme", near(number)) for number in range(4)))
    first_us = micros(NOW_S)
    assert [micros(at.timestamp()) for at in moments] == [first_us + number for number in range(4)]
    assert await office.kept() == [("acme", first_us + number, str(number)) for number in range(4)]
    rows = await office.rows.after("acme", 0, 10)
    assert [micros(entry.at) for entry in office.told] == [row.at_us for row in rows]
    assert {(entry.call_id, entry.run, entry.fields["kind"]) for entry in office.told} == {
        ("", rows[0].run, "limit.near")
    }
    await office.process().add("acme", near(9))
    assert len(await office.rows.newest("acme", 0)) == 2, "each process has a run"


async def test_one_that_may_have_been_written_untold_is_no_predecessor(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection broke behind the commit: who is live gets it from the database, as of a process that died."""

    @asynccontextmanager
    async def broken() -> AsyncIterator[AsyncConnection]:
        async with office.database.engine.begin() as connection:
            yield connection
        raise OSError("the answer to the commit is lost")

    process = office.process()
    await process.add("acme", near(1))
    with monkeypatch.context() as patch:
        patch.setattr(process, "_database", SimpleNamespace(engine=SimpleNamespace(begin=broken)))
        with pytest.raises(OSError, match="lost"):
            await process.add("acme", near(2))
    await process.add("acme", near(3))
    assert [used for _, _, used in await office.kept()] == ["1", "2", "3"]
    first, third = office.told
    assert first.run != third.run


async def test_they_stand_among_the_events_of_calls(office: Office) -> None:
    await Ledger(office.database).apply(one_call())
    await office.process().add("acme", near(8))
    await office.process().add("zenith", near(9))
    whole = await office.rows.after("acme", 0, 100)
    at = [row.kind for row in whole].index("limit.near")
    assert 0 < at < len(whole) - 1
    assert [row.at_us for row in whole] == sorted(row.at_us for row in whole)
    assert (whole[at].call_id, whole[at].fields["used"]) == ("", "8")
    assert await office.rows.after("acme", 0, at + 1) == whole[: at + 1]
    assert await office.rows.after("acme", whole[at].at_us, 100) == whole[at + 1 :]
    assert set(await office.rows.newest("acme", 0)) == {"r1", whole[at].run}


async def test_old_ones_go_with_the_next(office: Office) -> None:
    process = office.process()
    for tenant in ("acme", "zenith"):
        await process.add(tenant, near(1))
    office.clock.now_s += KEPT_US / 1e6 + 1
    await process.add("acme", near(2))
    assert [(tenant, used) for tenant, _, used in await office.kept()] == [("zenith", "1"), ("acme", "2")]


async def test_nobody_hears_what_was_not_written(office: Office) -> None:
    process = office.process()
    async with office.database.engine.begin() as connection:
        await connection.execute(sa.text("DROP TABLE tenant_events"))
    with pytest.raises(UNAVAILABLE):
        await process.add("acme", near(1))
    assert office.told == []
