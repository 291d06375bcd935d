"""A tenant's events in the order in which they happened, over all calls, with what belongs to none. Changes nothing.

The events of one run (a life of a process) are written in order: where one is, those before it are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sipserver.store.database import Database
from sipserver.store.schema import calls, events, tenant_events


@dataclass(frozen=True, slots=True)
class FeedRow:
    """An event, and where it comes from. call_id: empty: it belongs to no call; seq and at_ms say nothing then. at_us:
    when, since the epoch; of the events of a run no two have the same.
    """

    run: str
    call_id: str
    seq: int
    at_ms: int
    kind: str
    fields: dict[str, Any]
    at_us: int


Newest = dict[str, int]
"""By run: the at_us of its newest event."""


class FeedRows:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, tenant: str, after_us: int) -> Newest:
        """Of the runs that told something after a moment."""
        query = (
            sa.select(calls.c.run, sa.func.max(events.c.at_us))
            .join_from(events, calls, calls.c.id == events.c.call_id)
            .where(events.c.at_us > after_us, calls.c.tenant == tenant)
            .group_by(calls.c.run)
        )
        beside = (
            sa.select(tenant_events.c.run, sa.func.max(tenant_events.c.at_us))
            .where(_of_none(tenant, after_us))
            .group_by(tenant_events.c.run)
        )
        async with self._database.engine.connect() as connection:
            found = [*await connection.execute(query), *await connection.execute(beside)]
        return {run: int(at_us) for run, at_us in found}

    async def after(self, tenant: str, after_us: int, limit: int) -> Sequence[FeedRow]:
        """What was told after a moment, the oldest first."""
        columns = [events.c[name] for name in ("call_id", "seq", "at_ms", "kind", "fields", "at_us")]
        query = (
            sa.select(calls.c.run, *columns)
            .join_from(events, calls, calls.c.id == events.c.call_id)
            .where(events.c.at_us > after_us, calls.c.tenant == tenant)
            .order_by(events.c.at_us, events.c.call_id, events.c.seq)
            .limit(limit)
        )
        told = [tenant_events.c[name] for name in ("run", "kind", "fields", "at_us")]
        beside = sa.select(*told).where(_of_none(tenant, after_us)).order_by(tenant_events.c.at_us).limit(limit)
        async with self._database.engine.connect() as connection:
            found = [FeedRow(**row) for row in (await connection.execute(query)).mappings()]
            of_none = (await connection.execute(beside)).mappings().all()
        if not of_none:
            return found
        found += [FeedRow(call_id="", seq=0, at_ms=0, **row) for row in of_none]
        return sorted(found, key=lambda row: (row.at_us, row.call_id, row.seq))[:limit]


def _of_none(tenant: str, after_us: int) -> sa.ColumnElement[bool]:
    return sa.and_(tenant_events.c.tenant == tenant, tenant_events.c.at_us > after_us)
