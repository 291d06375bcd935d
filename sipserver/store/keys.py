"""Rows of API keys. Refuses to know what a key looks like and what it allows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa

from sipserver.store.database import Database
from sipserver.store.schema import api_keys


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key. digest: of the key itself, which nobody keeps. Moments are aware and in UTC."""

    id: str
    tenant: str
    name: str
    scopes: list[str]
    digest: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    used_at: datetime | None = None


Rows = list[KeyRow]


class KeyRows:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: KeyRow) -> None:
        async with self._database.engine.begin() as connection:
            await connection.execute(sa.insert(api_keys).values(**asdict(row)))

    async def get(self, key_id: str) -> KeyRow | None:
        rows = await self._found(sa.select(api_keys).where(api_keys.c.id == key_id))
        return rows[0] if rows else None

    async def list(self, tenant: str | None = None) -> Rows:
        """The oldest first; of one tenant, or of all."""
        query = sa.select(api_keys).order_by(api_keys.c.tenant, api_keys.c.created_at, api_keys.c.id)
        return await self._found(query if tenant is None else query.where(api_keys.c.tenant == tenant))

    async def revoke(self, key_id: str, at: datetime) -> bool:
        """False when there is no such key that was still good. A moment that stands already stays."""
        change = (
            sa.update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=at)
        )
        async with self._database.engine.begin() as connection:
            return (await connection.execute(change)).rowcount == 1

    async def replace(self, old_id: str, until: datetime, row: KeyRow) -> bool:
        """Add a key, and end another at a moment, if it does not end before. False, and nothing is done, when that one
        was revoked meanwhile."""
        same = sa.update(api_keys).where(api_keys.c.id == old_id, api_keys.c.revoked_at.is_(None))
        ends = sa.case((api_keys.c.expires_at < until, api_keys.c.expires_at), else_=until)
        async with self._database.engine.begin() as connection:
            if (await connection.execute(same.values(expires_at=ends))).rowcount != 1:
                return False
            await connection.execute(sa.insert(api_keys).values(**asdict(row)))
        return True

    async def used(self, key_id: str, at: datetime) -> None:
        async with self._database.engine.begin() as connection:
            await connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(used_at=at))

    async def _found(self, query: sa.Select[tuple[object, ...]]) -> Rows:
        async with self._database.reading.connect() as connection:
            return [KeyRow(**row) for row in (await connection.execute(query)).mappings()]
