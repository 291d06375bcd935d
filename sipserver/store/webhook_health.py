"""Whether an endpoint's receiver is there: failures in a row, and the hold that they lead to.

Owns that part of the endpoints' table, and who may try an endpoint that is held: one process at a time. Refuses to
know how many failures are too many and for how long: it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import sqlalchemy as sa

from sipserver.store.database import Database
from sipserver.store.schema import webhook_endpoints
from sipserver.store.webhook_rows import EndpointRow

Hold = Callable[[int], datetime | None]
"""From failures in a row to the moment of the next attempt; None: no hold."""


class WebhookHealth:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine

    async def failed(self, endpoint_id: str, now: datetime, hold: Hold, *, probe: bool) -> bool:
        """One more failure. probe: of an attempt at an endpoint that was held when it began; others count until it is
        held. True: it is held from now on.
        """
        table = webhook_endpoints.c
        held = table.held_until.is_not(None) if probe else table.held_until.is_(None)
        count = (
            sa.update(webhook_endpoints)
            .where(table.id == endpoint_id, held)
            .values(failures=table.failures + 1)
            .returning(table.failures)
        )
        async with self._engine.begin() as connection:
            failures = await connection.scalar(count)
            until = hold(failures) if failures is not None else None
            if until is None:
                return False
            since = {} if probe else {"held_since": now}
            change = sa.update(webhook_endpoints).where(table.id == endpoint_id).values(held_until=until, **since)
            await connection.execute(change)
            return not probe

    async def answered(self, endpoint_id: str) -> bool:
        """The receiver is there. True: the endpoint was held, and is no more."""
        table = webhook_endpoints.c
        well = sa.update(webhook_endpoints).where(table.id == endpoint_id)
        async with self._engine.begin() as connection:
            opened = well.where(table.held_until.is_not(None)).values(failures=0, held_since=None, held_until=None)
            if (await connection.execute(opened)).rowcount == 1:
                return True
            await connection.execute(well.values(failures=0))
            return False

    async def held(self) -> Sequence[EndpointRow]:
        """Endpoints that are held and enabled, those whose attempt is due first."""
        table = webhook_endpoints.c
        query = (
            sa.select(webhook_endpoints)
            .where(table.held_until.is_not(None), table.disabled_at.is_(None))
            .order_by(table.held_until)
        )
        async with self._engine.connect() as connection:
            return [EndpointRow(**row) for row in (await connection.execute(query)).mappings()]

    async def take_turn(self, endpoint: EndpointRow, until: datetime) -> bool:
        """Whether the attempt that is due is ours; nobody else's before `until` then."""
        table = webhook_endpoints.c
        mine = sa.update(webhook_endpoints).where(table.id == endpoint.id, table.held_until == endpoint.held_until)
        async with self._engine.begin() as connection:
            return (await connection.execute(mine.values(held_until=until))).rowcount == 1
