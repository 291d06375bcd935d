"""Rows of requests that came with an Idempotency-Key. Refuses to know what was asked and what is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sipserver.store.database import Database
from sipserver.store.schema import idempotency_keys

SWEPT_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class IdempotencyRow:
    """One key of one tenant. id: SHA-256 of both; nobody keeps the key. request: SHA-256 of what was asked. claim:
    whose work it is. call_id: of the call that it may place; empty: it places none. status: of the answer; None: it is
    under way, or whoever did it died. answer: its body; None: it is not kept. Moments are aware and in UTC.
    """

    id: str
    tenant: str
    request: str
    claim: str
    call_id: str
    claimed_at: datetime
    until: datetime
    status: int | None = None
    headers: Mapping[str, str] | None = None
    answer: str | None = None


class IdempotencyRows:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = (sqlite if database.is_sqlite else postgresql).insert

    async def claim(self, row: IdempotencyRow) -> IdempotencyRow | None:
        """None: it is the first one, and kept; otherwise the first one. Of those that ask at the same moment, in any
        process, one is the first. A row is none any more from its `until` on.
        """
        put = self._insert(idempotency_keys).values(**asdict(row))
        over = idempotency_keys.c.until <= row.claimed_at
        changing = {column.name: put.excluded[column.name] for column in idempotency_keys.c if not column.primary_key}
        put = put.on_conflict_do_update(index_elements=["id"], set_=changing, where=over)
        async with self._database.engine.begin() as connection:
            if (await connection.execute(put)).rowcount == 1:
                return None
            query = sa.select(idempotency_keys).where(idempotency_keys.c.id == row.id)
            found = (await connection.execute(query)).mappings().one_or_none()
        return IdempotencyRow(**found) if found is not None else await self.claim(row)  # given up in between

    async def take_over(self, first: IdempotencyRow, row: IdempotencyRow) -> bool:
        """Put a row in the place of one that nobody works on. False: somebody else did, or its work came to an end."""
        values = {name: value for name, value in asdict(row).items() if name != "id"}
        return await self._change(first, **values)

    async def settle(self, row: IdempotencyRow, status: int, headers: Mapping[str, str], answer: str | None) -> None:
        """It was done, and answered so."""
        await self._change(row, status=status, headers=dict(headers), answer=answer)

    async def release(self, row: IdempotencyRow) -> None:
        """Nothing was done: the key is as if it had not been used."""
        async with self._database.engine.begin() as connection:
            await connection.execute(sa.delete(idempotency_keys).where(*_unsettled(row)))

    async def sweep(self, now: datetime) -> int:
        """Delete what is over. How many there were; SWEPT_AT_ONCE at most, without those that another one deletes."""
        columns = idempotency_keys.c
        over = sa.select(columns.id).where(columns.until <= now).limit(SWEPT_AT_ONCE).with_for_update(skip_locked=True)
        async with self._database.engine.begin() as connection:
            return (await connection.execute(sa.delete(idempotency_keys).where(columns.id.in_(over)))).rowcount

    async def _change(self, row: IdempotencyRow, **values: Any) -> bool:
        async with self._database.engine.begin() as connection:
            change = sa.update(idempotency_keys).where(*_unsettled(row)).values(**values)
            return (await connection.execute(change)).rowcount == 1


def _unsettled(row: IdempotencyRow) -> tuple[sa.ColumnElement[bool], ...]:
    columns = idempotency_keys.c
    return columns.id == row.id, columns.claim == row.claim, columns.status.is_(None)
