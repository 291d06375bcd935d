"""Rows of what calls used and what is kept of them, read. Refuses to know prices, and how the rows come to be
(`store.usage`).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sipserver.store import usage as usage_of
from sipserver.store.database import Database
from sipserver.store.parts import UNITS
from sipserver.store.schema import calls, events, stored, usage
from sipserver.store.settings import StoreSettings

PAGE = 500
"""Rows at once: what is done with them holds the loop up for some milliseconds."""
MOST_RUNNING = 5_000
"""Calls of one tenant that are looked at."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one call used of one thing. at: when the call began. engine: or the trunk. unit: as `store.usage.UNITS`."""

    call_id: str
    tenant: str
    at: datetime
    part: str
    leg: str
    engine: str
    vendor: str
    model: str
    quantity: int
    unit: str


_ORDER = (usage.c.at, usage.c.call_id, usage.c.part, usage.c.leg, usage.c.engine, usage.c.vendor, usage.c.model)
_COLUMNS = [usage.c[name] for name in UsageRow.__dataclass_fields__]


class UsageRows:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_call(self, call_id: str) -> Sequence[UsageRow]:
        return await self._found(sa.select(*_COLUMNS).where(usage.c.call_id == call_id).order_by(*_ORDER))

    async def stored(self, tenant: str) -> int:
        """Bytes of sound that are kept of the tenant's calls that are over."""
        query = sa.select(sa.func.coalesce(sa.func.sum(stored.c.bytes), 0)).where(stored.c.tenant == tenant)
        async with self._database.engine.connect() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def running(self, tenant: str, since: datetime, now: datetime) -> Sequence[UsageRow]:
        """What calls that began then, and are not over, have used of connections until now; of MOST_RUNNING at most."""
        known = (calls.c.id, calls.c.started_at, calls.c.answered_at, calls.c.direction, calls.c.recording_path)
        are_open = sa.and_(calls.c.ended_at.is_(None), calls.c.answered_at.is_not(None))
        query = sa.select(*known).where(calls.c.tenant == tenant, calls.c.started_at >= since, are_open)
        async with self._database.engine.connect() as connection:
            found = (await connection.execute(query.order_by(calls.c.started_at).limit(MOST_RUNNING))).mappings().all()
            told: dict[str, list[usage_of.Told]] = {row["id"]: [] for row in found}
            columns = (events.c.call_id, events.c.at_ms, events.c.kind, events.c.fields)
            for at in range(0, len(found), PAGE):
                of = sa.and_(
                    events.c.call_id.in_([row["id"] for row in found[at : at + PAGE]]),
                    events.c.kind.in_(usage_of.TALKING),
                )
                happened = await connection.execute(sa.select(*columns).where(of).order_by(events.c.seq))
                for call_id, at_ms, kind, fields in happened:
                    told[call_id].append(usage_of.Told(at_ms, kind, fields))
        return [
            UsageRow(
                row["id"],
                tenant,
                row["started_at"],
                item.part,
                item.leg,
                item.engine,
                item.vendor,
                item.model,
                quantity,
                UNITS[item.part],
            )
            for row in found
            for item, quantity in usage_of.talked(dict(row), told[row["id"]], now).items()
        ]

    async def between(self, tenant: str, since: datetime, until: datetime) -> AsyncIterator[UsageRow]:
        """Of all calls that began then, until not within, in order of their beginning. Read in pages of PAGE."""
        query = sa.select(*_COLUMNS).where(usage.c.tenant == tenant, usage.c.at < until).order_by(*_ORDER).limit(PAGE)
        page = await self._found(query.where(usage.c.at >= since))
        while page:
            for row in page:
                yield row
            if len(page) < PAGE:
                return
            last = page[-1]
            after = [last.at, last.call_id, last.part, last.leg, last.engine, last.vendor, last.model]
            types = [column.type for column in _ORDER]
            bound = [sa.bindparam(None, value, kind) for value, kind in zip(after, types, strict=True)]
            page = await self._found(query.where(usage.c.at >= last.at, sa.tuple_(*_ORDER) > sa.tuple_(*bound)))

    async def _found(self, query: sa.Select[Any]) -> Sequence[UsageRow]:
        async with self._database.engine.connect() as connection:
            return [UsageRow(**row) for row in (await connection.execute(query)).mappings()]


@contextlib.asynccontextmanager
async def open_usage(settings: StoreSettings) -> AsyncIterator[UsageRows]:
    """For programs beside the server, such as `usage export`. Creates and migrates nothing; raises SettingsError."""
    database = Database(settings, connections=1)
    await database.open_to_read()
    try:
        yield UsageRows(database)
    finally:
        await database.close()
