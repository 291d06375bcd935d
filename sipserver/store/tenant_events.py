"""What happens to a tenant and to none of its calls, for those who follow its events: written first, then told at once.

Owns that the events of a process have a run of their own, and are written in the order of their moments: so cursors
mark them as they mark those of calls. Refuses to keep them for longer than a cursor is good.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa

from sipserver.events import Event
from sipserver.journal import Entry, Kind, micros
from sipserver.store.database import Database
from sipserver.store.schema import tenant_events

KEPT_US = 2 * 86_400 * 1_000_000
"""Twice as long as somebody may be away who comes back with a cursor."""


class TenantEvents:
    """Of one process. Loop thread. node: this machine. tell: as `bus.contract.Live.tell`. now: the time of day in
    seconds since the epoch.
    """

    def __init__(
        self, database: Database, node: str, tell: Callable[[Entry], None], *, now: Callable[[], float] = time.time
    ) -> None:
        self._database, self._node, self._tell, self._now = database, node, tell, now
        self._run = uuid.uuid4().hex
        self._last_us = 0
        self._writing = asyncio.Lock()

    async def add(self, tenant: str, event: Event) -> datetime:
        """Returns when it happened. Raises SQLAlchemy's errors when the database does not answer: nobody was told."""
        async with self._writing:
            at_us = self._last_us = max(micros(self._now()), self._last_us + 1)
            row = {"run": self._run, "at_us": at_us, "tenant": tenant, "kind": event.kind, "fields": event.fields()}
            old = sa.and_(tenant_events.c.tenant == tenant, tenant_events.c.at_us < at_us - KEPT_US)
            try:
                async with self._database.engine.begin() as connection:
                    await connection.execute(sa.delete(tenant_events).where(old))
                    await connection.execute(sa.insert(tenant_events).values(row))
            except BaseException:
                self._run = uuid.uuid4().hex  # it may stand there: what comes next must not say that it was told
                raise
            fields = {"tenant": tenant, "seq": 0, "at_ms": 0, "kind": event.kind, "fields": event.fields()}
            self._tell(Entry(Kind.EVENT, self._node, self._run, "", at_us / 1e6, fields))
        return datetime.fromtimestamp(at_us / 1e6, UTC)
