"""Rows of the audit log: appended one after the other by all processes, read in pages, never changed, never deleted.

Owns the order: whoever appends has the tenant's chain for itself until the row stands there. Also owns what becomes of
rows that nobody of ours wrote, which on SQLite may hold anything. Refuses to know seals: what is written is made by a
function that is given the end of the chain.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from sipserver.store.database import Database, opened_to_read
from sipserver.store.schema import audit, audit_heads
from sipserver.store.settings import StoreSettings

LOCKS = 0x51BC_A0D1
"""The first of two numbers of an advisory lock on PostgreSQL; the second one stands for the tenant. Two tenants that
share it wait for each other, no more."""
HIGHEST = 2**62
"""No chain gets there. On SQLite a number may be text, which counts as higher than all numbers."""

_GARBAGE = (ValueError, TypeError, OverflowError)
"""What is raised for a moment that is none."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One entry. at: aware, in UTC. detail: JSON. previous and mac: in hex; previous is empty in the first entry."""

    tenant: str
    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: str
    source: str
    previous: str
    mac: str


@dataclass(frozen=True, slots=True)
class SpoiledRow:
    """An entry with something in it that was never written there, such as bytes. number: if that can be read."""

    number: int | None


@dataclass(frozen=True, slots=True)
class HeadRow:
    """Where a tenant's chain ends. last: mac of that entry. mac: of this row; empty for one that cannot be read."""

    tenant: str
    number: int
    last: str
    mac: str


Row = AuditRow | SpoiledRow
Make = Callable[[HeadRow | None, Row | None], tuple[AuditRow, HeadRow]]
"""Makes the next entry, and the head for it, from the head and the last entry that are there. Must not block."""


class AuditRows:
    """Loop thread. Raises SQLAlchemy's errors, or OSError, when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = asyncio.Lock()  # so that those who wait for their turn here do not hold connections

    async def append(self, tenant: str, make: Make) -> AuditRow:
        """Safe to cancel: the entry is then there as a whole, or not at all."""
        async with self._turn, self._database.engine.connect() as connection:
            await self._alone(connection, tenant)
            head = await self._head(connection, tenant)
            row, new = make(head, await self._last(connection, tenant))
            await connection.execute(sa.insert(audit).values(**asdict(row)))
            if head is None:
                await connection.execute(sa.insert(audit_heads).values(**asdict(new)))
            else:
                change = sa.update(audit_heads).where(audit_heads.c.tenant == tenant)
                await connection.execute(change.values(**asdict(new)))
            await connection.commit()
        return row

    async def page(
        self,
        tenant: str,
        *,
        after: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 500,
    ) -> list[Row]:
        """In order. One with a spoiled entry may be short; only an empty one is the last. until: not included."""
        query = sa.select(audit).where(audit.c.tenant == tenant).order_by(audit.c.number)
        if after is not None:
            query = query.where(audit.c.number > after)
        if since is not None:
            query = query.where(audit.c.at >= since)
        if until is not None:
            query = query.where(audit.c.at < until)
        return await self._rows(query, limit)

    async def newest(
        self, tenant: str, *, before: int | None = None, since: datetime | None = None, limit: int = 50
    ) -> list[Row]:
        """The newest first. before: a number."""
        query = sa.select(audit).where(audit.c.tenant == tenant).order_by(audit.c.number.desc())
        if before is not None:
            query = query.where(audit.c.number < before)
        if since is not None:
            query = query.where(audit.c.at >= since)
        return await self._rows(query, limit)

    async def head(self, tenant: str) -> HeadRow | None:
        async with self._database.engine.connect() as connection:
            return await self._head(connection, tenant)

    async def count(self, tenant: str, *, up_to: int) -> int:
        """Entries with numbers up to this one."""
        query = sa.select(sa.func.count()).select_from(audit).where(audit.c.tenant == tenant, audit.c.number <= up_to)
        async with self._database.engine.connect() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def tenants(self) -> list[str]:
        """All that have entries, or the end of a chain."""
        query = sa.union(sa.select(audit.c.tenant), sa.select(audit_heads.c.tenant))
        async with self._database.engine.connect() as connection:
            return sorted(name for name in (await connection.execute(query)).scalars() if isinstance(name, str))

    async def _alone(self, connection: AsyncConnection, tenant: str) -> None:
        """Until the end of the transaction nobody else appends to the chain; on SQLite nobody else writes at all."""
        if self._database.is_sqlite:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            number = int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:4], signed=True)
            lock = sa.text("SELECT pg_advisory_xact_lock(CAST(:locks AS integer), CAST(:number AS integer))")
            await connection.execute(lock, {"locks": LOCKS, "number": number})

    async def _head(self, connection: AsyncConnection, tenant: str) -> HeadRow | None:
        query = sa.select(audit_heads).where(audit_heads.c.tenant == tenant)
        try:
            found = (await connection.execute(query)).mappings().one_or_none()
        except OperationalError as problem:
            _must_be_garbage(problem)
            return HeadRow(tenant, 0, "", "")
        if found is None:
            return None
        fits = isinstance(found["number"], int) and isinstance(found["last"], str) and isinstance(found["mac"], str)
        return HeadRow(**found) if fits else HeadRow(tenant, 0, "", "")

    async def _last(self, connection: AsyncConnection, tenant: str) -> Row | None:
        query = sa.select(audit).where(audit.c.tenant == tenant, audit.c.number <= HIGHEST)
        try:
            found = (await connection.execute(query.order_by(audit.c.number.desc()).limit(1))).mappings().one_or_none()
        except (*_GARBAGE, OperationalError) as problem:
            _must_be_garbage(problem)
            highest = sa.select(sa.func.max(audit.c.number)).where(audit.c.tenant == tenant, audit.c.number <= HIGHEST)
            return SpoiledRow((await connection.execute(highest)).scalar_one())
        return None if found is None else _row(found)

    async def _rows(self, query: sa.Select[Any], limit: int) -> list[Row]:
        async with self._database.engine.connect() as connection:
            try:
                return [_row(row) for row in (await connection.execute(query.limit(limit))).mappings()]
            except (*_GARBAGE, OperationalError) as problem:
                _must_be_garbage(problem)
        return [SpoiledRow(None)] if limit == 1 else await self._rows(query, 1)


@contextlib.asynccontextmanager
async def open_audit(settings: StoreSettings) -> AsyncIterator[AuditRows]:
    """For programs beside the server, such as `audit verify`. Creates and migrates nothing; raises SettingsError."""
    async with opened_to_read(settings) as database:
        yield AuditRows(database)


def _row(found: sa.RowMapping) -> Row:
    number = found["number"]
    if not isinstance(number, int):
        return SpoiledRow(None)
    wanted = {"number": int, "at": datetime}
    if all(isinstance(found[field.name], wanted.get(field.name, str)) for field in fields(AuditRow)):
        return AuditRow(**found)
    return SpoiledRow(number)


def _must_be_garbage(problem: Exception) -> None:
    """Raises what says something else than that text or a moment cannot be decoded."""
    if isinstance(problem, OperationalError) and "decode" not in str(problem.orig).lower():
        raise problem
