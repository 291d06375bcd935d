"""Rows of sessions: who is logged in where. Refuses to know cookies and how long a session lasts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa

from sipserver.store.database import Database
from sipserver.store.schema import sessions, users
from sipserver.store.users import UserRow


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session. digest: of what the browser keeps. source: where it began. agent: the browser, as it says."""

    digest: str
    id: str
    user_id: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    source: str
    agent: str


Rows = list[SessionRow]


class SessionRows:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, row: SessionRow, password: str | None, *, keep: int) -> bool:
        """False when the user was disabled, or has another password (its hash), by now. Of older sessions the newest
        stay, so that there are `keep`; those of anybody that are over go.
        """
        of_user = sa.select(users.c.id).where(
            users.c.id == row.user_id, users.c.disabled_at.is_(None), users.c.password.is_not_distinct_from(password)
        )
        newest = (
            sa.select(sessions.c.digest)
            .where(sessions.c.user_id == row.user_id)
            .order_by(sessions.c.created_at.desc(), sessions.c.digest)
            .limit(keep - 1)
        )
        old = sa.and_(sessions.c.user_id == row.user_id, sessions.c.digest.not_in(newest))
        async with self._database.engine.begin() as connection:
            if self._database.is_sqlite:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            if (await connection.execute(of_user.with_for_update())).first() is None:
                return False
            await connection.execute(sa.delete(sessions).where(old))
            await connection.execute(sa.delete(sessions).where(sessions.c.expires_at <= row.created_at))
            await connection.execute(sa.insert(sessions).values(**asdict(row)))
        return True

    async def get(self, digest: str) -> tuple[SessionRow, UserRow] | None:
        """With the user as he is now."""
        query = sa.select(sessions, users).join_from(sessions, users).where(sessions.c.digest == digest)
        async with self._database.engine.connect() as connection:
            found = (await connection.execute(query)).one_or_none()
        if found is None:
            return None
        width = len(sessions.c)
        return SessionRow(*found[:width]), UserRow(**dict(zip(users.c.keys(), found[width:], strict=True)))

    async def list(self, user_id: str) -> Rows:
        """The newest first."""
        query = sa.select(sessions).where(sessions.c.user_id == user_id).order_by(sessions.c.created_at.desc())
        async with self._database.engine.connect() as connection:
            return [SessionRow(**row) for row in (await connection.execute(query)).mappings()]

    async def seen(self, digest: str, at: datetime) -> None:
        async with self._database.engine.begin() as connection:
            await connection.execute(sa.update(sessions).where(sessions.c.digest == digest).values(seen_at=at))

    async def end(self, digest: str) -> None:
        await self._delete(sessions.c.digest == digest)

    async def end_one(self, user_id: str, session_id: str) -> bool:
        return await self._delete(sessions.c.user_id == user_id, sessions.c.id == session_id) == 1

    async def end_others(self, user_id: str, digest: str) -> int:
        """How many there were beside this one."""
        return await self._delete(sessions.c.user_id == user_id, sessions.c.digest != digest)

    async def _delete(self, *conditions: sa.ColumnElement[bool]) -> int:
        async with self._database.engine.begin() as connection:
            return (await connection.execute(sa.delete(sessions).where(*conditions))).rowcount
