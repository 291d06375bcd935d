"""Rows of what calls that are over have used, read. Refuses to know prices, how the rows come to be (`store.usage`),
and calls that run (`store.running`).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sipserver.store.database import Database, opened_to_read
from sipserver.store.schema import usage
from sipserver.store.settings import StoreSettings

PAGE = 500
"""Rows at once: what is done with them holds the loop up for some milliseconds."""


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
    async with opened_to_read(settings) as database:
        yield UsageRows(database)
