"""Rows of users. Owns that a tenant's last owner stays one, whoever asks at the same moment.

Refuses to know passwords and what a role may do: `owner` is only the role of which one must be left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sipserver.errors import CallerError
from sipserver.store.database import Database
from sipserver.store.schema import sessions, users

OWNER = "owner"


@dataclass(frozen=True, slots=True)
class UserRow:
    """One user. email: case folded. password: its hash. Moments are aware and in UTC."""

    id: str
    tenant: str
    email: str
    name: str
    role: str
    created_at: datetime
    password: str | None = None
    disabled_at: datetime | None = None
    login_at: datetime | None = None
    failed: int = 0
    locked_until: datetime | None = None
    issuer: str | None = None
    subject: str | None = None


Rows = list[UserRow]


class UserRows:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: UserRow) -> bool:
        """False when the tenant has somebody with this address, or this subject, already."""
        try:
            async with self._database.engine.begin() as connection:
                await connection.execute(sa.insert(users).values(**asdict(row)))
        except IntegrityError:
            return False
        return True

    async def get(self, user_id: str) -> UserRow | None:
        return await self._one(users.c.id == user_id)

    async def by_email(self, tenant: str, email: str) -> UserRow | None:
        return await self._one(users.c.tenant == tenant, users.c.email == email)

    async def by_subject(self, tenant: str, issuer: str, subject: str) -> UserRow | None:
        return await self._one(users.c.tenant == tenant, users.c.issuer == issuer, users.c.subject == subject)

    async def list(self, tenant: str | None = None) -> Rows:
        """By address; of one tenant, or of all."""
        query = sa.select(users).order_by(users.c.tenant, users.c.email)
        return await self._found(query if tenant is None else query.where(users.c.tenant == tenant))

    async def change(self, user_id: str, values: Mapping[str, Any], *, ends_sessions: bool) -> UserRow | None:
        """The user afterwards; None: there is none. Raises CallerError when the tenant would be without an owner who
        can come in.
        """
        async with self._database.engine.begin() as connection:
            before = await self._locked(connection, user_id)
            if before is None:
                return None
            await connection.execute(sa.update(users).where(users.c.id == user_id).values(**values))
            await self._keep_owner(connection, before)
            if ends_sessions:
                await connection.execute(sa.delete(sessions).where(sessions.c.user_id == user_id))
            found = (await connection.execute(sa.select(users).where(users.c.id == user_id))).mappings().one()
            return UserRow(**found)

    async def delete(self, user_id: str) -> UserRow | None:
        """The user that was, sessions included; None: there is none. Raises CallerError for the tenant's last owner."""
        async with self._database.engine.begin() as connection:
            before = await self._locked(connection, user_id)
            if before is None:
                return None
            # His row first, with which his sessions go: whoever begins one takes the rows in this order, too.
            await connection.execute(sa.delete(users).where(users.c.id == user_id))
            await self._keep_owner(connection, before)
            return before

    async def attempt(self, user_id: str, now: datetime, locks: Mapping[int, datetime]) -> UserRow | None:
        """Count one more attempt before it is looked at, so that many at the same moment are counted as well. None: the
        user is locked, and it is not counted. locks: number of the attempt -> until when it locks; a higher one locks
        as the highest.
        """
        number = users.c.failed + 1
        first, last = min(locks), max(locks)
        until = sa.case(
            (number < first, None),
            *((number == each, sa.literal(moment, users.c.locked_until.type)) for each, moment in locks.items()),
            else_=sa.literal(locks[last], users.c.locked_until.type),
        )
        free = sa.or_(users.c.locked_until.is_(None), users.c.locked_until <= now)
        change = (
            sa.update(users)
            .where(users.c.id == user_id, free)
            .values(failed=number, locked_until=until)
            .returning(*users.c)
        )
        async with self._database.engine.begin() as connection:
            found = (await connection.execute(change)).mappings().one_or_none()
            return None if found is None else UserRow(**found)

    async def came_in(self, user_id: str, at: datetime, password: str | None = None) -> None:
        """Forget attempts. password: a new hash of the same one."""
        values = {"failed": 0, "locked_until": None, "login_at": at, **({"password": password} if password else {})}
        async with self._database.engine.begin() as connection:
            await connection.execute(sa.update(users).where(users.c.id == user_id).values(**values))

    async def link(self, user_id: str, issuer: str, subject: str) -> bool:
        """False when the user has a subject already, or the subject another user."""
        change = (
            sa.update(users)
            .where(users.c.id == user_id, users.c.subject.is_(None))
            .values(issuer=issuer, subject=subject)
        )
        try:
            async with self._database.engine.begin() as connection:
                return (await connection.execute(change)).rowcount == 1
        except IntegrityError:
            return False

    async def _locked(self, connection: AsyncConnection, user_id: str) -> UserRow | None:
        """The user, whose tenant's owners nobody else changes until the end of the transaction."""
        if self._database.is_sqlite:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        query = sa.select(users).where(users.c.id == user_id)
        found = (await connection.execute(query)).mappings().one_or_none()
        if found is None:
            return None
        owners = sa.select(users.c.id).where(users.c.tenant == found["tenant"], users.c.role == OWNER)
        await connection.execute(owners.order_by(users.c.id).with_for_update())
        return UserRow(**(await connection.execute(query)).mappings().one())

    async def _keep_owner(self, connection: AsyncConnection, before: UserRow) -> None:
        """Raises CallerError when the tenant of this owner, as he was, has none any more who can come in."""
        if not _is_owner(before):
            return
        query = sa.select(users.c.id).where(
            users.c.tenant == before.tenant, users.c.role == OWNER, users.c.disabled_at.is_(None)
        )
        if (await connection.execute(query.limit(1))).first() is None:
            raise CallerError(f"{before.email} is the last owner of {before.tenant}: make somebody else one first")

    async def _one(self, *conditions: sa.ColumnElement[bool]) -> UserRow | None:
        rows = await self._found(sa.select(users).where(*conditions))
        return rows[0] if rows else None

    async def _found(self, query: sa.Select[tuple[object, ...]]) -> Rows:
        async with self._database.engine.connect() as connection:
            return [UserRow(**row) for row in (await connection.execute(query)).mappings()]


def _is_owner(row: UserRow) -> bool:
    return row.role == OWNER and row.disabled_at is None
